# The programs on top of the library, and the libraries that they need. What is missing switches them
# off with one line.
include(CheckSymbolExists)
find_package(PkgConfig QUIET)
set(PMI_PROGRAMS_MISSING "")
if(PKG_CONFIG_FOUND)
    pkg_check_modules(PMI_LIBUV QUIET IMPORTED_TARGET libuv)
endif()
# One that this toolchain can link with: not the host's in a cross build.
if(PMI_LIBUV_FOUND)
    set(CMAKE_REQUIRED_LIBRARIES PkgConfig::PMI_LIBUV)
    check_symbol_exists(uv_random uv.h PMI_LIBUV_WORKS)
    unset(CMAKE_REQUIRED_LIBRARIES)
endif()
if(NOT PMI_LIBUV_WORKS)
    set(PMI_PROGRAMS_MISSING "libuv")
endif()

if(PMI_PROGRAMS_MISSING)
    message(STATUS "processmgr: the programs are left out, missing: ${PMI_PROGRAMS_MISSING}")
else()
    include(src/poddaemon/sources.cmake)
    if(WIN32)
        set(pmi_pod_os_dir "${CMAKE_CURRENT_SOURCE_DIR}/src/poddaemon/win32")
    else()
        set(pmi_pod_os_dir "${CMAKE_CURRENT_SOURCE_DIR}/src/poddaemon/posix")
    endif()

    # pmi_add_podlink(NAME [DEFS...]): what a daemon and its clients share.
    function(pmi_add_podlink name)
        add_library(${name} STATIC EXCLUDE_FROM_ALL ${PMI_PODLINK_SOURCES})
        target_include_directories(
            ${name} PUBLIC "${pmi_pod_os_dir}"
            PRIVATE "${PMI_GENERATED_DIR}")
        target_link_libraries(${name} PUBLIC pmi_pod processmgr_static PkgConfig::PMI_LIBUV)
        target_compile_definitions(${name} PRIVATE ${ARGN})
        pmi_setup_program(${name})
    endfunction()

    # pmi_add_poddaemon(NAME LINK [DEFS...]): a daemon; tests build some with other numbers.
    function(pmi_add_poddaemon name link)
        add_executable(${name} ${PMI_PODDAEMON_SOURCES})
        target_include_directories(${name} PRIVATE "${PMI_GENERATED_DIR}")
        target_link_libraries(${name} PRIVATE ${link})
        target_compile_definitions(${name} PRIVATE ${ARGN})
        pmi_setup_program(${name})
    endfunction()

    pmi_add_podlink(pmi_podlink)
    pmi_add_poddaemon(processmgr-poddaemon pmi_podlink)
endif()
