# Relative to the source root. One file a line.
set(PMI_RUNNER_SOURCES
    src/runner/attach.c
    src/runner/cli.c
    src/runner/cli_session.c
    src/runner/control_client.c
    src/runner/control_server.c
    src/runner/create.c
    src/runner/error.c
    src/runner/help.c
    src/runner/lines.c
    src/runner/log.c
    src/runner/methods.c
    src/runner/podlink.c
    src/runner/podop.c
    src/runner/recover.c
    src/runner/refresh.c
    src/runner/rpc.c
    src/runner/serve.c
    src/runner/session.c
    src/runner/start.c
    src/runner/stop.c
    src/runner/upgrade.c
    src/runner/view.c)
if(WIN32)
    set(PMI_RUNNER_OS_SOURCES src/runner/win32/os.c)
else()
    set(PMI_RUNNER_OS_SOURCES src/runner/posix/exec.c src/runner/posix/os.c)
endif()
