# Relative to the source root. One file a line.
set(PMI_RUNNER_SOURCES
    src/runner/attach.c
    src/runner/child.c
    src/runner/cli.c
    src/runner/cli_service.c
    src/runner/cli_session.c
    src/runner/cli_doctor.c
    src/runner/cli_who.c
    src/runner/collect.c
    src/runner/control_client.c
    src/runner/control_server.c
    src/runner/create.c
    src/runner/doctor.c
    src/runner/doctor_pods.c
    src/runner/doctor_services.c
    src/runner/doctor_state.c
    src/runner/error.c
    src/runner/feed.c
    src/runner/handshake.c
    src/runner/help.c
    src/runner/help_service.c
    src/runner/jsonplace.c
    src/runner/known.c
    src/runner/lines.c
    src/runner/log.c
    src/runner/memory.c
    src/runner/message.c
    src/runner/methods.c
    src/runner/peer.c
    src/runner/placement.c
    src/runner/podchild.c
    src/runner/podjournal.c
    src/runner/podlink.c
    src/runner/podop.c
    src/runner/post.c
    src/runner/prune.c
    src/runner/recover.c
    src/runner/refresh.c
    src/runner/restart.c
    src/runner/rpc.c
    src/runner/serve.c
    src/runner/service.c
    src/runner/service_call.c
    src/runner/service_config.c
    src/runner/service_log.c
    src/runner/service_methods.c
    src/runner/session.c
    src/runner/start.c
    src/runner/stop.c
    src/runner/stuck.c
    src/runner/text.c
    src/runner/tree.c
    src/runner/upgrade.c
    src/runner/view.c
    src/runner/who.c)
if(PMI_WITH_DEBUG)
    list(APPEND PMI_RUNNER_SOURCES src/runner/debug.c)
else()
    list(APPEND PMI_RUNNER_SOURCES src/runner/no_debug.c)
endif()
if(WIN32)
    set(PMI_RUNNER_OS_SOURCES src/runner/win32/command.c src/runner/win32/doctor.c
        src/runner/win32/inspect.c src/runner/win32/os.c src/runner/win32/placement.c)
else()
    set(PMI_RUNNER_OS_SOURCES src/runner/posix/command.c src/runner/posix/doctor.c
        src/runner/posix/exec.c src/runner/posix/inspect.c src/runner/posix/os.c
        src/runner/posix/placement.c src/runner/posix/signals.c src/runner/posix/supervisor.c
        src/runner/posix/units.c)
endif()
