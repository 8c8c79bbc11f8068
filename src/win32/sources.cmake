# Sources of the Windows backend, relative to the source root.
set(PMI_BACKEND_SOURCES
    src/win32/containment.c
    src/win32/daemon.c
    src/win32/environ.c
    src/win32/error.c
    src/win32/files.c
    src/win32/identity.c
    src/win32/job.c
    src/win32/launch.c
    src/win32/launcher.c
    src/win32/lock.c
    src/win32/paths.c
    src/win32/process.c
    src/win32/reactor.c
    src/win32/security.c
    src/win32/start.c
    src/win32/stdio.c
    src/win32/stop_event.c
    src/win32/stream.c
    src/win32/sys.c
    src/win32/text.c
    src/win32/threads.c)
set(PMI_BACKEND_LIBRARIES advapi32)
