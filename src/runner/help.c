#include "runner/help.h"

const char help_runner[] = "runner [OPTIONS] COMMAND [ARGUMENTS]\n"
                           "\n"
                           "Sessions that survive: a program runs on a terminal, or on three "
                           "pipes, that a small process of\n"
                           "its own holds. You attach to it and detach from it, and it goes on "
                           "whatever becomes of you, of\n"
                           "your terminal, or of the runner.\n"
                           "\n"
                           "  runner create work           a shell in a session 'work'\n"
                           "  runner attach work           use it; Ctrl-\\ d leaves it\n"
                           "  runner list                  what there is\n"
                           "  runner logs work             what it has said\n"
                           "  runner destroy work          away with it\n"
                           "\n"
                           "A runner starts by itself when it is needed.\n";

const char help_options[] =
    "Options:\n"
    "\n"
    "  --state DIR  folder of the runner; else PROCESSMGR_STATE, else a folder of the user's\n"
    "  --json       output for programs\n"
    "  --no-start   do not start a runner if none is there\n"
    "  --version, --help\n"
    "\n"
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 no such session, 4 it exists already, 5 the runner\n"
    "cannot be reached, 6 refused (busy, taken over, read-only), 7 timed out, 8 damaged state.\n";

const char help_serve[] =
    "Runs the runner in the foreground, until SIGTERM or Ctrl-C. Sessions go on then, and the "
    "next\n"
    "runner finds them. Of two for the same state folder the second ends at once with code 6.\n"
    "Its log is runner.log in the state folder.\n"
    "\n"
    "  --debug ADDRESS  serve /debug/processes and /metrics there: 127.0.0.1:PORT, unix:PATH, or\n"
    "                   off; else PROCESSMGR_DEBUG_ADDRESS, else debug.sock in the state folder\n"
    "                   (Windows: off). `runner info` tells the address\n"
    "  --config FILE    services to start (docs/services.md); else PROCESSMGR_SERVICES, else\n"
    "                   services.json in the state folder\n"
    "  --leak-sweep MS  rhythm of the zombie detector; 30000\n"
    "  --keep-for TIME  how long what is left of an ended session is kept, once its end was told:\n"
    "                   7d, 12h, 30m, 90s; 0: for ever; else PROCESSMGR_KEEP_FOR, else 7d\n"
    "  --keep-records N and how many of them, the newest ones; 0: all; else\n"
    "                   PROCESSMGR_KEEP_RECORDS, else 1000\n"
    "  --self-check     say versions, as an upgrade asks for it, and end\n";

const char help_create[] =
    "Makes a session. Without a program: your shell. It gets your environment and folder.\n"
    "\n"
    "  --pipes            three pipes in place of a terminal\n"
    "  --size CxR         size of its terminal; else that of yours, or 80x24\n"
    "  --cwd DIR          its folder; else yours\n"
    "  --env NAME=VALUE   one more variable; may be repeated. NAME alone: without it\n"
    "  --clean-env        no variables but those of --env\n"
    "  --label NAME=TEXT  anything of yours, shown by list; may be repeated\n"
    "  --ring BYTES       how much of its output is kept; 1 MiB\n"
    "  --on-full WHAT     when so much was said that nobody has read: 'drop' (default), the "
    "oldest\n"
    "                     goes; 'wait', the program waits for who is attached and may type. It\n"
    "                     waits for nobody else, nor while nobody is attached. On Windows with\n"
    "                     --pipes only\n"
    "  --wait S           'wait': who takes nothing for so long is not waited for; 60\n"
    "  --grace MS         from the polite stop to the kill; 5000\n"
    "  --orphan S         stop it when nobody who may type was attached for so long; never\n"
    "  --kill-tree        when it ends, end what it leaves behind\n"
    "  --batch            the program may be a .cmd or .bat file; on Windows only\n"
    "  --attach           attach to it at once\n";

const char help_list[] =
    "Shows all sessions, those that have ended too until they are destroyed, forgotten, or older "
    "and\n"
    "more than what is kept: `serve --keep-for`, `--keep-records`; 7 days and 1000 of them.\n"
    "\n"
    "States: running, ended, lost (its holder died: how it ended is not known),\n"
    "unreachable (its holder lives and does not answer), unproven (its folder is not to be "
    "trusted).\n";

const char help_get[] = "Shows all that is known of one session.\n";

const char help_attach[] =
    "Uses a session on this terminal: what you type goes there, what it shows comes here, and its\n"
    "size follows this window. Goes on when the runner dies. Leave with Ctrl-\\ d; Ctrl-\\ "
    "Ctrl-\\\n"
    "types one Ctrl-\\.\n"
    "\n"
    "  --read-only       only look\n"
    "  --take-over       take the place of who is attached\n"
    "  --from OFFSET     show what was said from this byte on; 'start', 'kept' (default), 'now'\n"
    "  --detach-key KEY  in place of ^\\ : '^]' and the like; 'none'\n"
    "  --exit-code       when the session ends: its exit code, 128 + signal, 1: not known\n"
    "\n"
    "Without a terminal stdin is typed as it is, and its end ends the input of a session with "
    "pipes.\n";

const char help_send[] =
    "Types into a session, as its writer for a moment. Without a text: stdin, to its end.\n"
    "\n"
    "  --enter       the Enter key after the text; a line end in a session with pipes\n"
    "  --close       close its stdin after it (sessions with pipes)\n"
    "  --take-over   also while somebody is attached, who then only looks. A moment of others who\n"
    "                send is waited for, up to 1 s\n"
    "  --timeout MS  how long all of it may take; else as long as the child does not read\n";

const char help_resize[] = "Changes the size of its terminal, such as 100x30.\n";

const char help_logs[] =
    "Writes what a session has said, as it was: what is kept of it (1 MiB unless made otherwise).\n"
    "Works without a runner, for sessions that have ended too.\n"
    "\n"
    "  --follow, -f     go on until it ends\n"
    "  --from OFFSET    from this byte on; 'start', 'kept' (default), 'now'\n"
    "  --stderr         the stderr of a session with pipes, in place of stdout\n";

const char help_stop[] =
    "Ends its child politely (SIGTERM to all of its tree, on a terminal SIGHUP, too), by force\n"
    "after the grace. Daemons that it has started (setsid, and no parent) live on. Record and\n"
    "output stay until it is destroyed or forgotten, or for some time: see `list --help`.\n"
    "\n"
    "  --grace MS   from the one to the other; else what it was made with\n"
    "  --exit-code  the child's exit code in place of 0; 128 + signal, 1: not known\n";

const char help_kill[] =
    "Ends its child and all of its tree by force; not daemons that it has started. A holder that\n"
    "does not answer is asked to end after 2 s, and the time to write down what it has kept (1 s\n"
    "for each 4 MiB); it is killed after as long again.\n";

const char help_destroy[] =
    "Ends the session if it runs, then removes its record, output and log.\n"
    "\n"
    "  --grace MS   from the polite stop to the kill; else what it was made with\n";

const char help_forget[] =
    "Removes what is left of a session that has ended. Refused for one that runs.\n";

const char help_info[] = "Tells how the runner is: version, process, epoch, counts of sessions.\n";

const char help_events[] =
    "Tells what happens as it happens, one JSON object a line: session.created, session.exited,\n"
    "session.lost, session.destroyed, session.unreachable, session.unproven, service.added,\n"
    "service.removed, service.state, service.message, service.request, service.answered,\n"
    "service.breaker, log.\n";

const char help_upgrade[] =
    "Puts another runner in the place of the one that runs, while all sessions go on: BINARY, or\n"
    "the file that it was started from, which may have been replaced. The new one has to prove\n"
    "itself first; if it is not ready within 10 s the old one comes back.\n";

const char help_shutdown[] =
    "Ends the runner, and waits until another one could serve. Sessions go on, and the next\n"
    "runner finds them.\n"
    "\n"
    "  --stop-sessions  stop all of them first\n";
