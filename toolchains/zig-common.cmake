# The part that the toolchain files of "zig cc" share; PMI_ZIG_TARGET is set by the includer.
#
# PMI_ZIG_BIN, here or in the environment, is the folder that "ci/dependencies zig" makes: in it are
# TARGET-cc and TARGET-c++ for each target, ar and ranlib. zig brings all headers and libraries.
if(NOT PMI_ZIG_BIN)
    set(PMI_ZIG_BIN "$ENV{PMI_ZIG_BIN}")
endif()
if(NOT PMI_ZIG_BIN)
    message(FATAL_ERROR "PMI_ZIG_BIN is not set (ci/dependencies zig)")
endif()
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES PMI_ZIG_BIN)

set(CMAKE_C_COMPILER "${PMI_ZIG_BIN}/${PMI_ZIG_TARGET}-cc")
set(CMAKE_CXX_COMPILER "${PMI_ZIG_BIN}/${PMI_ZIG_TARGET}-c++")
set(CMAKE_AR
    "${PMI_ZIG_BIN}/ar"
    CACHE FILEPATH "Archiver")
set(CMAKE_RANLIB
    "${PMI_ZIG_BIN}/ranlib"
    CACHE FILEPATH "Indexer of archives")

# Nothing of the machine that builds.
set(CMAKE_FIND_ROOT_PATH "${PMI_ZIG_BIN}/none")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
