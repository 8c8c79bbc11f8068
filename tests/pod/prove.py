#!/usr/bin/env python3
"""Proves that the tests of the pod daemon find something: plants defects, one by one, in a copy of the
sources, and runs the test that has to find each.

    tests/pod/prove.py BUILD_FOLDER [WORD...]      only the plants with one of the words in their names

BUILD_FOLDER is a native one in which pod_daemon is built. Each test must pass with the daemon as it is.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# (what is wrong, file, text, text in its place, test)
PLANTS = [
    ("an older runner is not fenced", "src/pod/rules.c", "peer->epoch < rules->epoch) {\n        return -POD_E_FENCED",
     "false) {\n        return -POD_E_FENCED", "TakingOverIsExplicitAndFencedByEpoch"),
    ("a viewer may stop", "src/pod/rules.c", "if (peer->role == POD_ROLE_VIEWER) {\n        return -POD_E_READ_ONLY;",
     "if (false) {\n        return -POD_E_READ_ONLY;", "AViewerSeesAndCannotDoAnything"),
    ("the exit comes ahead of the record", "src/poddaemon/session.c", "    try_to_record(pod);\n    pod_conns_pump(pod);",
     "    pod_session_recorded(pod);\n    try_to_record(pod);", "TheExitIsNotAnnouncedBeforeItIsOnTheDisk"),
    ("the exit does not wait for the output", "src/poddaemon/session.c", "!pod->child_ended || !all_output_ended(pod) ||",
     "!pod->child_ended ||", "SomebodyLeftBehindDelaysTheExitNoLongerThanTheDrainTime"),
    ("input without an end", "src/poddaemon/peer.c", "data.size > conn->limit - conn->received", "false",
     "InputWithoutCreditEndsTheConnectionAlone"),
    ("the proof is not looked at", "src/poddaemon/peer.c", "if (!pod_same_secret(expected, prove->proof, sizeof expected)) {",
     "if (false) {", "AProofThatIsWrongIsRefused"),
    ("the user is not looked at", "src/poddaemon/posix/endpoint.c", "if (!is_ours(fd)) {\n        (void)close(fd);\n        return PM_ERR_ACCESS;",
     "if (false) {\n        (void)close(fd);\n        return PM_ERR_ACCESS;", "AnotherUserIsSentAway"),
    ("links are followed", "src/poddaemon/posix/files.c", "flags | O_NOFOLLOW | O_CLOEXEC", "flags | O_CLOEXEC",
     "Folders.WithPlantedLinksAndOpenToOthersAreRefused"),
    ("mute connections stay", "src/poddaemon/peer.c", "birth ? POD_START_MS : POD_PROVE_MS", "10000000",
     "MuteConnectionsAreDroppedInTimeAndKeepNobodyOut"),
    ("the child lives without the daemon", "src/poddaemon/child.c", "spec->die_with_parent = true;",
     "spec->die_with_parent = false;", "ADaemonThatIsKilledLeavesNothingOfTheSessionBehind"),
    ("a daemon that nobody needs stays", "src/poddaemon/session.c", "    pod_session_leave(pod);\n}\n\nstatic void close_all",
     "}\n\nstatic void close_all", "AnExitThatNobodySeesIsKeptAndCostsNoProcess"),
    ("the same size is no signal", "src/poddaemon/child.c", "bool nudge = redraw &&", "bool nudge = false && redraw &&",
     "AttachingWithTheSameSizeRedrawsAndTheSizeIsTheWriters"),
    ("the log grows", "src/poddaemon/journal.c", "journal->size + size > POD_LOG_MAX", "false",
     "TheLogIsCappedAndRotated"),
    ("a timer that always runs", "src/poddaemon/session.c", "(void)uv_timer_stop(&pod->leave_timer);\n    pod_note(pod, \"started",
     "(void)uv_timer_start(&pod->redraw_timer, on_record_timer_never, 50, 50);\n    pod_note(pod, \"started",
     "AnIdleDaemonIsOneThreadIsNeverWokenAndIsSmall"),
    ("a record is made a second time", "src/poddaemon/record.c", "pod->record_named ? pod_dir_sync(&pod->dir) : ", "",
     "ARecordThatHasItsNameIsNotMadeASecondTime"),
    ("no last look at the output", "src/poddaemon/session.c", "        pod_source_look(&pod->channels[i].source);\n",
     "        (void)i;\n", "WhatIsThereWhenTheDrainTimeIsOverIsStillRead"),
    ("the child waits for nobody", "src/poddaemon/child.c", "ring->capacity - (size_t)kept : 0;",
     "ring->capacity - (size_t)kept : SIZE_MAX;", "Flow.ASlowWriterLosesNothing"),
    ("what is sent counts as taken", "src/poddaemon/child.c", "writer->acknowledges ? writer->acked[channel] : ", "",
     "Flow.TheRingHoldsWhatAWriterHasNotAcknowledged"),
    ("a writer that takes nothing is waited for for ever", "src/poddaemon/child.c", "    pod->given_up = true;\n", "",
     "Flow.AWriterThatTakesNothingIsGivenUpUntilItTakesSomething"),
    ("a writer that is gone is waited for", "src/poddaemon/session.c", "    pod->given_up = false;\n    pod_child_flow(pod);\n",
     "", "Flow.ViewersProbesAndNobodyAreNotWaitedFor"),
    ("a stop waits for the writer", "src/poddaemon/child.c", " ||\n        pod->stopping.active) {", ") {",
     "Flow.AStopAndAKillDoNotWaitForTheWriter"),
    ("input is typed twice", "src/poddaemon/posix/streams.c", "    *ret_count = count;\n    return result;",
     "    *ret_count = result == PM_OK ? count : 0;\n    return result;", "InputIsTypedOnceThoughAWriteFailsInItsMiddle"),
    ("any number of viewers", "src/poddaemon/peer.c", "pod->rules.viewers >= POD_VIEWERS_MAX", "false", "ViewersKeepNobodyElseOut"),
    ("nobody gives up its place", "src/poddaemon/peer.c", "pod->conns_count - pod->unproven >= POD_PROVEN_MAX", "false",
     "IdleConnectionsKeepNobodyOut"),
    ("a limit for files kills", "src/poddaemon/posix/process.c", "    (void)sigaction(SIGXFSZ, &action, NULL);", "    //",
     "ALimitForTheSizeOfFilesCostsTheOutputAndNotTheExit"),
    ("a record for ever", "src/poddaemon/session.c", "if (pod_dir_is_removed(&pod->dir)) {", "if (false) {",
     "ADaemonWhoseFolderIsGoneTellsTheExitAndEnds"),
    ("a shell hears nothing", "src/poddaemon/session.c", "        pod_process_hang_up(pod->child);\n", "        (void)0;\n",
     "StopOfATerminalReachesAShell"),
    ("a terminal ends once for all", "src/poddaemon/posix/streams.c", "if (last == 0 && source->held) {", "if (false) {",
     "ATerminalThatNobodyHasOpenForAMomentGoesOn"),
    ("a crash writes to anybody", "src/poddaemon/journal.c", "    pod_crash_arm(PM_NATIVE_INVALID,", "    if (0) pod_crash_arm(PM_NATIVE_INVALID,",
     "ACrashWithoutALogWritesToNobody"),
    ("who calls setsid() gets away", "src/poddaemon/session.c", "PM_STOP_KILL ? pod_strays_kill(&pod->strays)", "PM_STOP_KILL ? PM_OK",
     "StopAndKillReachWhoHasASessionOfItsOwn"),
    ("parents count no more after the polite end", "src/poddaemon/session.c", "    note_strays(pod, pod_strays_note(&pod->strays));\n", "",
     "StopAndKillReachWhoHasASessionOfItsOwn"),
    ("strays are held to the end", "src/poddaemon/session.c", "    pod_strays_clear(&pod->strays); // The record", "    // The record",
     "KillLeavesNobodyOfWhoMakesChildrenMeanwhile"),
    ("want of descriptors is not told", "src/poddaemon/session.c", "    if (result != PM_OK) {\n        pod_fault(pod, POD_FAULT_CHILD",
     "    if (false && result) {\n        pod_fault(pod, POD_FAULT_CHILD", "TheDaemonOutlivesARealLackOfDescriptors"),
    ("a terminal hangs up at once for all", "src/poddaemon/session.c", "bool waits = terminal &&", "bool waits = false && terminal &&",
     "StopOfATerminalLeavesTimeToWhoHearsSigterm"),
    ("a record is tried after it is there", "src/poddaemon/session.c", "    (void)uv_timer_stop(&pod->record_timer);", "    ",
     "AnExitThatIsRecordedForWhoInsistsIsRecordedOnce"),
    ("half a line is gone on with", "src/poddaemon/journal.c", "journal->torn ? put(", "false ? put(",
     "AfterALineThatWasCutTheNextOneBeginsOnALineOfItsOwn"),
    ("a log that may not grow ends", "src/poddaemon/journal.c", "result == PM_ERR_TOO_BIG &&", "false &&", "ALogThatMayNotGrowIsRotated"),
]
EXTRA = {"a timer that always runs": ("static void try_to_record(struct pod *pod);\n",
                                      "static void on_record_timer_never(uv_timer_t *t)\n{\n    (void)t;\n}\n\n",
                                      "void pod_session_started(")}


def build_daemon(folder, build):
    sources = [str(p) for pattern in ("src/pod/*.c", "src/poddaemon/*.c", "src/poddaemon/posix/*.c")
               for p in sorted(folder.glob(pattern))]
    daemon = folder / "processmgr-poddaemon"
    command = [os.environ.get("CC", "cc"), "-std=c11", "-g", "-D_GNU_SOURCE", "-DPOD_FAULT_TABLE",
               "-I", str(ROOT / "tests/pod"), "-I", str(folder / "src"), "-I",
               str(folder / "src/poddaemon/posix"), "-I", str(folder / "src/posix"), "-I", str(ROOT / "include"), "-I",
               str(build / "generated"),
               *sources, str(ROOT / "tests/pod/pod_faults.c"), str(build / "libprocessmgr.a"), "-luv", "-lpthread", "-o", str(daemon)]
    subprocess.run(command, check=True)
    return daemon


def passes(build, daemon, test):
    environment = dict(os.environ, PM_TEST_PODDAEMON=str(daemon))
    command = [str(build / "tests/bin/pod_daemon"), "--gtest_filter=" + (test if "." in test else "Pod." + test)]
    try:
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                timeout=240)
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0 and b"[  PASSED  ] 1 test" in result.stdout


def plant(folder, name, file, text, other):
    path = folder / file
    source = path.read_text()
    if text not in source:
        sys.exit(f"{name}: the text is no longer in {file}")
    source = source.replace(text, other, 1)
    if name in EXTRA:
        _, code, before = EXTRA[name]
        source = source.replace(before, code + before, 1)
    path.write_text(source)


def main():
    build, words = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    failed = 0
    for name, file, text, other, test in PLANTS:
        if words and not any(word in name for word in words):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            folder.chmod(0o755)
            shutil.copytree(ROOT / "src", folder / "src")
            if not passes(build, build_daemon(folder, build), test):
                sys.exit(f"{test} does not pass without a defect")
            plant(folder, name, file, text, other)
            found = not passes(build, build_daemon(folder, build), test)
        print(f"{name}: {'found' if found else 'NOT FOUND'} ({test})", flush=True)
        failed += not found
    print("every defect was found" if not failed else f"{failed} not found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
