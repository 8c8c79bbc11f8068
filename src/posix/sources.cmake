# Sources of the POSIX backend, relative to the source root. The HAVE_ results of
# cmake/PmiConfigHeader.cmake are known here, so a list may depend on them.
set(PMI_BACKEND_SOURCES
    src/posix/cgroup.c
    src/posix/child.c
    src/posix/clone.c
    src/posix/containment.c
    src/posix/daemon.c
    src/posix/environment.c
    src/posix/error.c
    src/posix/family.c
    src/posix/family_procctl.c
    src/posix/files.c
    src/posix/foreground.c
    src/posix/fork.c
    src/posix/group.c
    src/posix/identity.c
    src/posix/inspect.c
    src/posix/keeper.c
    src/posix/kernel.c
    src/posix/look.c
    src/posix/low_fds.c
    src/posix/manager.c
    src/posix/options.c
    src/posix/paths.c
    src/posix/process.c
    src/posix/proctable_kinfo.c
    src/posix/proctable_proc.c
    src/posix/reactor_epoll.c
    src/posix/reactor_kqueue.c
    src/posix/reactor_threads.c
    src/posix/reap.c
    src/posix/spawner.c
    src/posix/start.c
    src/posix/stdio.c
    src/posix/stream.c
    src/posix/terminal.c
    src/posix/self.c
    src/posix/threads.c
    src/posix/zombies.c)

# Only where PROCESSMGR_KQUEUE asks for them (cmake/PmiKqueue.cmake).
list(APPEND PMI_BACKEND_SOURCES ${PMI_KQUEUE_SOURCES})
set(PMI_BACKEND_LIBRARIES ${PMI_KQUEUE_LIBRARIES})
