# The daemon of a session, and what its clients share with it.
include(src/poddaemon/sources.cmake)
if(WIN32)
    set(pmi_pod_os_dir "${CMAKE_CURRENT_SOURCE_DIR}/src/poddaemon/win32")
else()
    set(pmi_pod_os_dir "${CMAKE_CURRENT_SOURCE_DIR}/src/poddaemon/posix")
endif()
# Windows: text, errors and security descriptors; POSIX: who a process is. All of the library's backend.
set(pmi_pod_private_dirs ${PMI_PRIVATE_INCLUDE_DIRS})

# pmi_add_podlink(NAME [DEFS...]): what a daemon and its clients share.
function(pmi_add_podlink name)
    add_library(${name} STATIC EXCLUDE_FROM_ALL ${PMI_PODLINK_SOURCES})
    target_include_directories(
        ${name} PUBLIC "${pmi_pod_os_dir}"
        PRIVATE ${pmi_pod_private_dirs})
    target_link_libraries(${name} PUBLIC pmi_pod processmgr_static pmi_libuv)
    target_compile_definitions(${name} PRIVATE ${ARGN})
    pmi_setup_program(${name})
endfunction()

# pmi_add_poddaemon(NAME LINK [DEFS...]): a daemon; tests build some with other numbers.
function(pmi_add_poddaemon name link)
    add_executable(${name} ${PMI_PODDAEMON_SOURCES})
    target_include_directories(${name} PRIVATE ${pmi_pod_private_dirs})
    target_link_libraries(${name} PRIVATE ${link})
    target_compile_definitions(${name} PRIVATE ${ARGN})
    pmi_setup_program(${name})
endfunction()

pmi_add_podlink(pmi_podlink)
pmi_add_poddaemon(processmgr-poddaemon pmi_podlink)
