# This machine, with musl in place of its C library, by "zig cc". No cross build: what is built runs
# here.
set(PMI_ZIG_TARGET "${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-musl")
include("${CMAKE_CURRENT_LIST_DIR}/zig-common.cmake")
