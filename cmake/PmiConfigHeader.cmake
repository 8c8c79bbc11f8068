# Feature probes of the POSIX backend, and the private header pmi_config.h made of them.
#
# A HAVE_ name says what the headers and the C library offer. What the running kernel refuses is
# found out at run time.
include(CheckCSourceCompiles)
include(CheckStructHasMember)
include(CheckSymbolExists)
include(CMakePushCheckState)

if(NOT WIN32)
    cmake_push_check_state(RESET)
    get_target_property(pmi_feature_macros pmi_flags INTERFACE_COMPILE_DEFINITIONS)
    list(TRANSFORM pmi_feature_macros PREPEND "-D" OUTPUT_VARIABLE CMAKE_REQUIRED_DEFINITIONS)
    set(CMAKE_REQUIRED_QUIET ON)


    check_symbol_exists(pipe2 "unistd.h;fcntl.h" HAVE_PIPE2)
    check_symbol_exists(accept4 sys/socket.h HAVE_ACCEPT4)
    check_symbol_exists(SOCK_CLOEXEC sys/socket.h HAVE_SOCK_CLOEXEC)
    check_symbol_exists(SYS_close_range sys/syscall.h HAVE_CLOSE_RANGE)
    check_symbol_exists(SYS_rt_sigprocmask sys/syscall.h HAVE_RT_SIGPROCMASK)
    check_symbol_exists(clone sched.h HAVE_CLONE)
    check_symbol_exists(memfd_create sys/mman.h HAVE_MEMFD_CREATE)
    check_symbol_exists(prctl sys/prctl.h HAVE_PRCTL)
    check_symbol_exists(MADV_WIPEONFORK sys/mman.h HAVE_WIPEONFORK)
    check_symbol_exists(PR_SET_PDEATHSIG sys/prctl.h HAVE_PDEATHSIG)
    check_symbol_exists(PR_SET_CHILD_SUBREAPER sys/prctl.h HAVE_CHILD_SUBREAPER)
    check_struct_has_member("struct procctl_reaper_kill" rk_subtree "sys/types.h;sys/procctl.h"
                            HAVE_PROCCTL_REAPER)
    check_struct_has_member("struct kinfo_proc" ki_start
                            "sys/types.h;sys/param.h;sys/sysctl.h;sys/user.h" HAVE_KINFO_PROC_KI)
    check_struct_has_member("struct kinfo_proc" kp_proc.p_starttime
                            "sys/types.h;sys/param.h;sys/sysctl.h" HAVE_KINFO_PROC_KP)
    if(HAVE_KINFO_PROC_KI OR HAVE_KINFO_PROC_KP)
        set(HAVE_KINFO_PROC ON)
    endif()
    check_symbol_exists(PR_SET_NO_NEW_PRIVS sys/prctl.h HAVE_NO_NEW_PRIVS)
    check_symbol_exists(ptsname_r stdlib.h HAVE_PTSNAME_R)
    check_symbol_exists(TIOCGPTPEER "sys/ioctl.h;termios.h" HAVE_TIOCGPTPEER)
    check_symbol_exists(CGROUP2_SUPER_MAGIC linux/magic.h HAVE_CGROUP2)
    check_symbol_exists(TIOCSCTTY "sys/ioctl.h;termios.h" HAVE_TIOCSCTTY)
    check_symbol_exists(getauxval sys/auxv.h HAVE_GETAUXVAL)
    check_symbol_exists(issetugid unistd.h HAVE_ISSETUGID)
    check_symbol_exists(getrandom sys/random.h HAVE_GETRANDOM)
    check_symbol_exists(getentropy sys/random.h HAVE_GETENTROPY)
    check_symbol_exists(PROC_PIDLISTFDS libproc.h HAVE_PROC_PIDLISTFDS)
    check_symbol_exists(KERN_PROC_NFDS "sys/types.h;sys/sysctl.h" HAVE_KERN_PROC_NFDS)
    check_symbol_exists(getpeereid "sys/types.h;unistd.h" HAVE_GETPEEREID)
    check_symbol_exists(prlimit sys/resource.h HAVE_PRLIMIT)
    check_struct_has_member(ucontext_t uc_mcontext.pc ucontext.h HAVE_UCONTEXT_PC)

    set(CMAKE_REQUIRED_LIBRARIES Threads::Threads)
    check_symbol_exists(pthread_condattr_setclock pthread.h HAVE_PTHREAD_CONDATTR_SETCLOCK)
    unset(CMAKE_REQUIRED_LIBRARIES)

    # Not cached under the HAVE_ names, so that switching PROCESSMGR_NO_PIDFD or PROCESSMGR_KQUEUE
    # needs no fresh folder.
    check_symbol_exists(epoll_create1 sys/epoll.h PMI_PROBE_EPOLL)
    check_symbol_exists(eventfd sys/eventfd.h PMI_PROBE_EVENTFD)
    # OpenBSD and NetBSD have had kqueue for long, but EVFILT_USER only of late.
    check_symbol_exists(EVFILT_USER "sys/types.h;sys/event.h" PMI_PROBE_KQUEUE)
    check_symbol_exists(SYS_pidfd_open sys/syscall.h PMI_PROBE_PIDFD)
    check_c_source_compiles(
        "#include <sched.h>\n#include <linux/sched.h>\nint main(void) { return !CLONE_PIDFD; }"
        PMI_PROBE_CLONE_PIDFD)
    foreach(probe IN ITEMS PIDFD CLONE_PIDFD)
        set(HAVE_${probe} "${PMI_PROBE_${probe}}")
        if(PROCESSMGR_NO_PIDFD OR PROCESSMGR_KQUEUE)
            set(HAVE_${probe} OFF)
        endif()
    endforeach()
    foreach(probe IN ITEMS EPOLL EVENTFD KQUEUE)
        set(HAVE_${probe} "${PMI_PROBE_${probe}}")
    endforeach()
    if(PROCESSMGR_KQUEUE)
        include(PmiKqueue)
    endif()
    cmake_pop_check_state()
endif()

set(PMI_LAUNCHER_INSTALL_DIR "${CMAKE_INSTALL_LIBEXECDIR}/processmgr")
set(PMI_LAUNCHER_INSTALL_PATH
    "${CMAKE_INSTALL_FULL_LIBEXECDIR}/processmgr/processmgr-launcher")
configure_file("${CMAKE_CURRENT_LIST_DIR}/pmi_config.h.in" "${PMI_GENERATED_DIR}/pmi_config.h")
