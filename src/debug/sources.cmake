# Sources of the debug server, relative to the source root.
set(PMI_DEBUG_SOURCES
    src/debug/connections.c
    src/debug/metrics.c
    src/debug/names.c
    src/debug/page.c
    src/debug/processes.c
    src/debug/redact.c
    src/debug/request.c
    src/debug/server.c
    src/debug/text.c)
if(WIN32)
    list(APPEND PMI_DEBUG_SOURCES src/win32/debug.c)
else()
    list(APPEND PMI_DEBUG_SOURCES src/posix/debug.c)
endif()
