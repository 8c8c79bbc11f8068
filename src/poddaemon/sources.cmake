# Relative to the source root.

# For both ends, with libuv: the runner links these too.
set(PMI_PODLINK_SOURCES src/poddaemon/folder.c src/poddaemon/link.c)
if(WIN32)
    list(APPEND PMI_PODLINK_SOURCES src/poddaemon/win32/endpoint.c src/poddaemon/win32/files.c)
else()
    list(APPEND PMI_PODLINK_SOURCES src/poddaemon/posix/endpoint.c src/poddaemon/posix/files.c)
endif()

set(PMI_PODDAEMON_SOURCES
    src/poddaemon/child.c
    src/poddaemon/journal.c
    src/poddaemon/listener.c
    src/poddaemon/main.c
    src/poddaemon/outbox.c
    src/poddaemon/peer.c
    src/poddaemon/record.c
    src/poddaemon/session.c)
if(WIN32)
    list(APPEND PMI_PODDAEMON_SOURCES src/poddaemon/win32/process.c src/poddaemon/win32/streams.c)
else()
    list(APPEND PMI_PODDAEMON_SOURCES src/poddaemon/posix/process.c src/poddaemon/posix/strays.c
         src/poddaemon/posix/streams.c)
endif()

list(TRANSFORM PMI_PODLINK_SOURCES PREPEND "${PROJECT_SOURCE_DIR}/")
list(TRANSFORM PMI_PODDAEMON_SOURCES PREPEND "${PROJECT_SOURCE_DIR}/")
