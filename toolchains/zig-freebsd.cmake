# Cross build for FreeBSD on x86-64 with "zig cc". Nothing of it can run here.
set(CMAKE_SYSTEM_NAME FreeBSD)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(PMI_ZIG_TARGET x86_64-freebsd)
include("${CMAKE_CURRENT_LIST_DIR}/zig-common.cmake")
