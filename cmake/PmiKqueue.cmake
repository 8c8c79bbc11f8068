# PROCESSMGR_KQUEUE: the kqueue reactor on a system that has no kqueue of its own, for tests.
#
#   ON         libkqueue, found by pkg-config
#   STANDIN    tests/support/kqueue: what the reactor needs of the real thing, over epoll and pidfd
#
# Sets HAVE_KQUEUE, PMI_LIBKQUEUE, PMI_KQUEUE_SOURCES and PMI_KQUEUE_LIBRARIES; takes back HAVE_EPOLL
# and HAVE_EVENTFD.
set(PMI_KQUEUE_SOURCES)
set(PMI_KQUEUE_LIBRARIES)
if(NOT HAVE_KQUEUE)
    set(HAVE_EPOLL OFF)
    set(HAVE_EVENTFD OFF)
    set(HAVE_KQUEUE ON)
    if(PROCESSMGR_KQUEUE STREQUAL "STANDIN")
        set(PMI_KQUEUE_SOURCES tests/support/kqueue/kqueue.c)
        list(APPEND PMI_PRIVATE_INCLUDE_DIRS "${CMAKE_CURRENT_SOURCE_DIR}/tests/support/kqueue")
        message(STATUS "processmgr: kqueue is a stand-in, for tests only")
    else()
        find_package(PkgConfig REQUIRED)
        pkg_check_modules(PMI_PC_KQUEUE REQUIRED libkqueue)
        set(PMI_LIBKQUEUE ON)
        target_compile_definitions(pmi_flags INTERFACE PM_TEST_LIBKQUEUE)
        list(APPEND PMI_PRIVATE_INCLUDE_DIRS ${PMI_PC_KQUEUE_INCLUDE_DIRS})
        # By its path, since its .pc file names no folder. The archive first: what is built for tests
        # then runs wherever libkqueue was unpacked. Its names are not ours to export.
        find_library(
            PMI_KQUEUE_LIBRARY
            NAMES libkqueue.a kqueue
            HINTS "${PMI_PC_KQUEUE_LIBDIR}" REQUIRED)
        set(PMI_KQUEUE_LIBRARIES "-Wl,--exclude-libs,libkqueue.a" "${PMI_KQUEUE_LIBRARY}")
        message(STATUS "processmgr: kqueue is libkqueue ${PMI_PC_KQUEUE_VERSION}, for tests only")
    endif()
endif()
