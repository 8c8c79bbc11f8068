# The runner: one program, daemon and client.
include(src/runner/sources.cmake)
set(pmi_runner_os_dir posix)
if(WIN32)
    set(pmi_runner_os_dir win32)
endif()

list(TRANSFORM PMI_RUNNER_SOURCES PREPEND "${PROJECT_SOURCE_DIR}/")
list(TRANSFORM PMI_RUNNER_OS_SOURCES PREPEND "${PROJECT_SOURCE_DIR}/")

# pmi_add_runner_parts(NAME LINK [DEFS...]): what the runner is without its main(); tests build some
# with other numbers.
function(pmi_add_runner_parts name link)
    add_library(${name} STATIC EXCLUDE_FROM_ALL ${PMI_RUNNER_SOURCES} ${PMI_RUNNER_OS_SOURCES})
    target_link_libraries(${name} PUBLIC ${link} pmi_jansson)
    if(PMI_WITH_DEBUG)
        target_link_libraries(${name} PUBLIC ${PMI_RUNNER_DEBUG})
    endif()
    target_compile_definitions(${name} PRIVATE ${ARGN})
    pmi_setup_program(${name})
    # The one file that replaces this program by another. Properties of files are those of a folder.
    if(NOT WIN32)
        set_source_files_properties("${PROJECT_SOURCE_DIR}/src/runner/posix/exec.c"
                                    PROPERTIES COMPILE_DEFINITIONS PM_ALLOW_RAW_SPAWN)
    endif()
endfunction()

# pmi_add_runner(NAME PARTS)
function(pmi_add_runner name parts)
    add_executable(${name} "${PROJECT_SOURCE_DIR}/src/runner/main.c")
    target_link_libraries(${name} PRIVATE ${parts})
    pmi_setup_program(${name})
    if(PMI_HTTP_FOLDER) # As CMake does it for what is linked.
        set_property(TARGET ${name} APPEND PROPERTY BUILD_RPATH "${PMI_HTTP_FOLDER}")
        if(CMAKE_INSTALL_RPATH_USE_LINK_PATH)
            set_property(TARGET ${name} APPEND PROPERTY INSTALL_RPATH "${PMI_HTTP_FOLDER}")
        endif()
    endif()
endfunction()

pmi_add_runner_parts(pmi_runner pmi_podlink)
pmi_add_runner(runner pmi_runner)
add_dependencies(runner processmgr-poddaemon)
