#!/usr/bin/env python3
"""Proves that the tests of the pod daemon find something: plants defects, one by one, in a copy of the
sources, and runs the test that has to find each.

    tests/pod/prove.py BUILD_FOLDER [WORD...]      only the plants with one of the words in their names

BUILD_FOLDER is a native one in which pod_daemon and pod_strays are built. Each test must pass with the daemon as it is.
"""

import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from defects import ROOT, Defect, prove  # noqa: E402

STRAYS = "src/poddaemon/posix/strays.c"
DEFECTS = [
    Defect("an older runner is not fenced", "src/pod/rules.c", "peer->epoch < rules->epoch) {\n        return -POD_E_FENCED",
           "false) {\n        return -POD_E_FENCED", "TakingOverIsExplicitAndFencedByEpoch"),
    Defect("a viewer may stop", "src/pod/rules.c", "if (peer->role == POD_ROLE_VIEWER) {\n        return -POD_E_READ_ONLY;",
           "if (false) {\n        return -POD_E_READ_ONLY;", "AViewerSeesAndCannotDoAnything"),
    Defect("the exit comes ahead of the record", "src/poddaemon/session.c", "    try_to_record(pod);\n    pod_conns_pump(pod);",
           "    pod_session_recorded(pod);\n    try_to_record(pod);", "TheExitIsNotAnnouncedBeforeItIsOnTheDisk"),
    Defect("the exit does not wait for the output", "src/poddaemon/session.c", "!pod->child_ended || !all_output_ended(pod) ||",
           "!pod->child_ended ||", "SomebodyLeftBehindDelaysTheExitNoLongerThanTheDrainTime"),
    Defect("input without an end", "src/poddaemon/peer.c", "data.size > conn->limit - conn->received", "false",
           "InputWithoutCreditEndsTheConnectionAlone"),
    Defect("a writer that is sent away stays one", "src/poddaemon/peer.c", "    lose_role(conn);\n    pod_conn_pump(conn);",
           "    pod_conn_pump(conn);", "AWriterThatIsSentAwayAndReadsNothingIsNoneAndGoesSoon"),
    Defect("the proof is not looked at", "src/poddaemon/peer.c", "if (!pod_same_secret(expected, prove->proof, sizeof expected)) {",
           "if (false) {", "AProofThatIsWrongIsRefused"),
    Defect("the user is not looked at", "src/poddaemon/posix/endpoint.c", "if (!is_ours(fd)) {\n        (void)close(fd);\n        return PM_ERR_ACCESS;",
           "if (false) {\n        (void)close(fd);\n        return PM_ERR_ACCESS;", "AnotherUserIsSentAway"),
    Defect("links are followed", "src/poddaemon/posix/files.c", "flags | O_NOFOLLOW | O_CLOEXEC", "flags | O_CLOEXEC",
           "Folders.WithPlantedLinksAndOpenToOthersAreRefused"),
    Defect("mute connections stay", "src/poddaemon/peer.c", "birth ? POD_START_MS : POD_PROVE_MS", "10000000",
           "MuteConnectionsAreDroppedInTimeAndKeepNobodyOut"),
    Defect("the child lives without the daemon", "src/poddaemon/child.c", "spec->die_with_parent = true;",
           "spec->die_with_parent = false;", "ADaemonThatIsKilledLeavesNothingOfTheSessionBehind"),
    Defect("a daemon that nobody needs stays", "src/poddaemon/session.c", "    pod_session_leave(pod);\n}\n\nstatic void close_all",
           "}\n\nstatic void close_all", "AnExitThatNobodySeesIsKeptAndCostsNoProcess"),
    Defect("the same size is no signal", "src/poddaemon/child.c", "bool nudge = redraw &&", "bool nudge = false && redraw &&",
           "AttachingWithTheSameSizeRedrawsAndTheSizeIsTheWriters"),
    Defect("the log grows", "src/poddaemon/journal.c", "journal->size + size > POD_LOG_MAX", "false",
           "TheLogIsCappedAndRotated"),
    Defect("a timer that always runs", "src/poddaemon/session.c", "(void)uv_timer_stop(&pod->leave_timer);\n    pod_note(pod, \"started",
           "(void)uv_timer_start(&pod->redraw_timer, on_never, 50, 50);\n    pod_note(pod, \"started",
           "AnIdleDaemonIsOneThreadIsNeverWokenAndIsSmall",
           (("void pod_session_started(", "static void on_never(uv_timer_t *t)\n{\n    (void)t;\n}\n\nvoid pod_session_started("),)),
    Defect("a record is made a second time", "src/poddaemon/record.c", "pod->record_named ? pod_dir_sync(&pod->dir) : ", "",
           "ARecordThatHasItsNameIsNotMadeASecondTime"),
    Defect("no last look at the output", "src/poddaemon/session.c", "        pod_source_look(&pod->channels[i].source);\n",
           "        (void)i;\n", "WhatIsThereWhenTheDrainTimeIsOverIsStillRead"),
    Defect("the child waits for nobody", "src/poddaemon/child.c", "ring->capacity - (size_t)kept : 0;",
           "ring->capacity - (size_t)kept : SIZE_MAX;", "Flow.ASlowWriterLosesNothing"),
    Defect("what is sent counts as taken", "src/poddaemon/child.c", "writer->acknowledges ? writer->acked[channel] : ", "",
           "Flow.TheRingHoldsWhatAWriterHasNotAcknowledged"),
    Defect("a writer that takes nothing is waited for for ever", "src/poddaemon/child.c", "    pod->given_up = true;\n", "",
           "Flow.AWriterThatTakesNothingIsGivenUpUntilItTakesSomething"),
    Defect("a writer that is gone is waited for", "src/poddaemon/session.c", "    pod->given_up = false;\n    pod_child_flow(pod);\n",
           "", "Flow.ViewersProbesAndNobodyAreNotWaitedFor"),
    Defect("a stop waits for the writer", "src/poddaemon/child.c", " ||\n        pod->stopping.active) {", ") {",
           "Flow.AStopAndAKillDoNotWaitForTheWriter"),
    Defect("input is typed twice", "src/poddaemon/posix/streams.c", "    *ret_count = count;\n    return result;",
           "    *ret_count = result == PM_OK ? count : 0;\n    return result;", "InputIsTypedOnceThoughAWriteFailsInItsMiddle"),
    Defect("any number of viewers", "src/poddaemon/peer.c", "pod->rules.viewers >= POD_VIEWERS_MAX", "false", "ViewersKeepNobodyElseOut"),
    Defect("nobody gives up its place", "src/poddaemon/peer.c", "pod->conns_count - pod->unproven >= POD_PROVEN_MAX", "false",
           "IdleConnectionsKeepNobodyOut"),
    Defect("a limit for files kills", "src/poddaemon/posix/process.c", "    (void)sigaction(SIGXFSZ, &action, NULL);", "    //",
           "ALimitForTheSizeOfFilesCostsTheOutputAndNotTheExit"),
    Defect("a record for ever", "src/poddaemon/session.c", "if (pod_dir_is_removed(&pod->dir)) {", "if (false) {",
           "ADaemonWhoseFolderIsGoneTellsTheExitAndEnds"),
    Defect("a shell hears nothing", "src/poddaemon/session.c", "        pod_process_hang_up(pod->child);\n", "        (void)0;\n",
           "StopOfATerminalReachesAShell"),
    Defect("a terminal ends once for all", "src/poddaemon/posix/streams.c", "if (last == 0 && source->held) {", "if (false) {",
           "ATerminalThatNobodyHasOpenForAMomentGoesOn"),
    Defect("a crash writes to anybody", "src/poddaemon/journal.c", "    pod_crash_arm(PM_NATIVE_INVALID,", "    if (0) pod_crash_arm(PM_NATIVE_INVALID,",
           "ACrashWithoutALogWritesToNobody"),
    Defect("who calls setsid() gets away", "src/poddaemon/session.c", "PM_STOP_KILL ? pod_strays_kill(&pod->strays)", "PM_STOP_KILL ? PM_OK",
           "StopAndKillReachWhoHasASessionOfItsOwn"),
    Defect("parents count no more after the polite end", "src/poddaemon/session.c", "    note_strays(pod, pod_strays_note(&pod->strays));\n", "",
           "StopAndKillReachWhoHasASessionOfItsOwn"),
    Defect("strays are held to the end", "src/poddaemon/session.c", "    pod_strays_clear(&pod->strays); // The record", "    // The record",
           "WhatIsHeldForAStopIsLetGoOfWhenTheChildHasEnded"),
    Defect("want of descriptors is not told", "src/poddaemon/session.c", "    if (result != PM_OK) {\n        pod_fault(pod, POD_FAULT_CHILD",
           "    if (false && result) {\n        pod_fault(pod, POD_FAULT_CHILD", "AStopThatMayMissSomebodySaysSo"),
    Defect("a terminal hangs up at once for all", "src/poddaemon/session.c", "bool waits = terminal &&", "bool waits = false && terminal &&",
           "StopOfATerminalLeavesTimeToWhoHearsSigterm"),
    Defect("a record is tried after it is there", "src/poddaemon/session.c", "    (void)uv_timer_stop(&pod->record_timer);", "    ",
           "AnExitThatIsRecordedForWhoInsistsIsRecordedOnce"),
    Defect("half a line is gone on with", "src/poddaemon/journal.c", "journal->torn ? put(", "false ? put(",
           "AfterALineThatWasCutTheNextOneBeginsOnALineOfItsOwn"),
    Defect("a log that may not grow ends", "src/poddaemon/journal.c", "result == PM_ERR_TOO_BIG &&", "false &&", "ALogThatMayNotGrowIsRotated"),
    Defect("a stale folder is tried for ever", "src/poddaemon/posix/files.c", ": errno == ESTALE;", ": false;",
           "ADaemonWhoseFolderIsStaleTellsTheExitAndEnds"),
    Defect("a stop needs descriptors", STRAYS, "if (strays->spare[i] == 0) {", "if (false) {",
           "AStopWithoutDescriptorsReachesWhoHasASessionOfItsOwn"),
    Defect("whose child a stray is", STRAYS, "stat.ppid != walk->parent.pid ||", "", "Strays.*"),
    Defect("who the parent of a stray is", STRAYS, " ||\n        !is_alive(strays, &walk->parent)) {", ") {", "Strays.*"),
    Defect("strays are known by number", STRAYS, "(uint64_t)stat.starttime == process->start &&", "", "Strays.*"),
    Defect("strays are pinned late", STRAYS, "pidfd = pmi_sys_pidfd_open(stray->pid);", "", "Strays.*",
           (("        sent = pidfd >= 0", "        pidfd = pmi_sys_pidfd_open(stray->pid);\n        sent = pidfd >= 0"),)),
    Defect("64 strays", STRAYS, "if (is_well(strays, list != NULL", "if (strays->count < 64 && is_well(strays, list != NULL", "Strays.*"),
    Defect("strays are walked again", STRAYS, "    if (is_known(strays, &process) ||", "    if (false ||", "Strays.*"),
    Defect("too many strays", STRAYS, " || result == PM_ERR_TOO_BIG", "", "Strays.*"),
    Defect("strays are missed in silence", STRAYS, "result == PM_ERR_NO_DESCRIPTORS ||", "", "Strays.*"),
    Defect("the reserve is used once", STRAYS, "SIGCONT);\n    keep_spare(strays);", "SIGCONT);", "Strays.*"),
    Defect("the reserve stays closed", STRAYS, "    let_spare(strays);\n    if (knows_child", "    if (knows_child", "Strays.*"),
    Defect("strays run on while others are looked for", STRAYS, "        deliver_all(strays, SIGSTOP);\n", "", "Strays.*"),
    Defect("new strays run on", STRAYS, "if (stop && walk.members[i].is_new) {", "if (false) {", "Strays.*"),
    Defect("one look at all for each", STRAYS, "    if (!walk->has_table) {", "    walk->table_size = 0;\n    if (true) {", "Strays.*"),
    Defect("no look at all", STRAYS, "        look_in_table(walk);", "        (void)look_in_table;", "Strays.*"),
    Defect("somebody else's child", STRAYS, " && stat.ppid == getpid()) {", ") {", "Strays.*"),
    Defect("strays of a foreign table", STRAYS, " && !pmi_proc_is_foreign() &&", " &&", "Strays.*"),
    Defect("a first thread that is dead", STRAYS, "process->start && !pmi_stat_is_dead(&stat);",
           "process->start && stat.state != 'Z';", "Strays.*"),
]


def compiler(folder, build):
    return [os.environ.get("CC", "cc"), "-std=c11", "-g", "-D_GNU_SOURCE", "-I", str(ROOT / "tests/pod"), "-I",
            str(folder / "src"), "-I", str(folder / "src/poddaemon/posix"), "-I", str(folder / "src/posix"), "-I",
            str(ROOT / "include"), "-I", str(build / "generated")]


def build_daemon(folder, build):
    sources = [str(p) for pattern in ("src/pod/*.c", "src/poddaemon/*.c", "src/poddaemon/posix/*.c")
               for p in sorted(folder.glob(pattern))]
    daemon = folder / "processmgr-poddaemon"
    subprocess.run([*compiler(folder, build), "-DPOD_FAULT_TABLE", *sources, str(ROOT / "tests/pod/pod_faults.c"),
                    str(build / "libprocessmgr.a"), "-luv", "-lpthread", "-o", str(daemon)], check=True)
    return daemon


def build_strays(folder, build):
    program, defect = folder / "pod_strays", folder / "strays.o"
    subprocess.run([*compiler(folder, build), "-include", str(ROOT / "tests/pod/strays_table.h"), "-c",
                    str(folder / STRAYS), "-o", str(defect)], check=True)
    objects = [build / "tests/pod/CMakeFiles/pod_strays.dir" / name for name in ("strays_test.cpp.o", "strays_table.c.o")]
    objects += sorted((build / "tests/CMakeFiles/pmi_test_support_objects.dir").rglob("*.o"))
    subprocess.run(["c++", str(defect), *map(str, objects), str(build / "libprocessmgr.a"), "-lgtest_main", "-lgtest",
                    "-lpthread", "-o", str(program)], check=True)
    return program


def run(folder, defect, build):
    environment = dict(os.environ)
    if defect.test.startswith("Strays."):
        program = build_strays(folder, build)
    else:
        program = build / "tests/bin/pod_daemon"
        environment["PM_TEST_PODDAEMON"] = str(build_daemon(folder, build))
    test = defect.test if "." in defect.test else "Pod." + defect.test
    try:
        result = subprocess.run([str(program), "--gtest_filter=" + test], env=environment, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=240)
    except subprocess.TimeoutExpired:
        return f"{test} hangs"
    passed = result.returncode == 0 and b"[  PASSED  ]" in result.stdout and b"PASSED  ] 0 tests" not in result.stdout
    return "" if passed else f"{test} fails"


def main():
    build, words = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    return prove(DEFECTS, lambda folder, defect: run(folder, defect, build), words)


if __name__ == "__main__":
    sys.exit(main())
