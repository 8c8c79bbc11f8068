# The runner: one program, daemon and client.
include(src/runner/sources.cmake)
set(pmi_runner_os_dir posix)
if(WIN32)
    set(pmi_runner_os_dir win32)
endif()

# What the runner is without its main(), for tests of its parts.
add_library(pmi_runner STATIC EXCLUDE_FROM_ALL ${PMI_RUNNER_SOURCES} ${PMI_RUNNER_OS_SOURCES})
target_link_libraries(pmi_runner PUBLIC pmi_podlink pmi_jansson)
if(PMI_WITH_DEBUG)
    target_link_libraries(pmi_runner PUBLIC processmgr_debug_static)
endif()
pmi_setup_program(pmi_runner)
# The one file that replaces this program by another.
if(NOT WIN32)
    set_source_files_properties(src/runner/posix/exec.c PROPERTIES COMPILE_DEFINITIONS PM_ALLOW_RAW_SPAWN)
endif()

# pmi_add_runner(NAME [DEFS...]): tests build some with other numbers.
function(pmi_add_runner name)
    add_executable(${name} "${PROJECT_SOURCE_DIR}/src/runner/main.c")
    target_link_libraries(${name} PRIVATE pmi_runner)
    target_compile_definitions(${name} PRIVATE ${ARGN})
    pmi_setup_program(${name})
endfunction()
pmi_add_runner(runner)
add_dependencies(runner processmgr-poddaemon)
