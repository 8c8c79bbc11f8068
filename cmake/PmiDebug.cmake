# The debug server: processmgr::debug, and of each kind processmgr::debug_shared and
# processmgr::debug_static, each over the library of the same kind.
include(src/debug/sources.cmake)
list(TRANSFORM PMI_DEBUG_SOURCES PREPEND "${PROJECT_SOURCE_DIR}/")
set(pmi_page "${PMI_GENERATED_DIR}/debug_page.c")
add_custom_command(
    OUTPUT "${pmi_page}"
    COMMAND
        "${CMAKE_COMMAND}" "-DINPUT=${PROJECT_SOURCE_DIR}/src/debug/page.html" "-DOUTPUT=${pmi_page}"
        -DNAME=pmi_debug_page_html -P "${PROJECT_SOURCE_DIR}/cmake/PmiEmbed.cmake"
    DEPENDS "${PROJECT_SOURCE_DIR}/src/debug/page.html" "${PROJECT_SOURCE_DIR}/cmake/PmiEmbed.cmake"
    VERBATIM)

# pmi_add_debug(KIND TYPE LIBRARY [MICROHTTPD...]): processmgr_debug_KIND over the library.
function(pmi_add_debug kind type library)
    add_library(processmgr_debug_${kind} ${type} ${PMI_DEBUG_SOURCES} "${pmi_page}")
    target_include_directories(processmgr_debug_${kind} SYSTEM
                               PRIVATE "${PMI_MICROHTTPD_INCLUDE_DIR}")
    target_include_directories(
        processmgr_debug_${kind}
        PUBLIC "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>"
               "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>"
        PRIVATE ${PMI_PRIVATE_INCLUDE_DIRS})
    set_target_properties(
        processmgr_debug_${kind}
        PROPERTIES C_STANDARD 11
                   C_STANDARD_REQUIRED ON
                   C_EXTENSIONS OFF
                   C_VISIBILITY_PRESET hidden
                   POSITION_INDEPENDENT_CODE ON
                   OUTPUT_NAME processmgr-debug
                   EXPORT_NAME debug_${kind})
    target_link_libraries(
        processmgr_debug_${kind}
        PUBLIC ${library}
        PRIVATE ${ARGN} pmi_jansson "$<BUILD_INTERFACE:pmi_flags>"
                "$<BUILD_INTERFACE:pmi_guard>")
    if(WIN32)
        target_link_libraries(processmgr_debug_${kind} PRIVATE ws2_32 advapi32)
    endif()
endfunction()

# The static one always exists as a target: the tests link it.
pmi_add_debug(static STATIC processmgr_static pmi_microhttpd)
add_library(processmgr::debug_static ALIAS processmgr_debug_static)
if(NOT PROCESSMGR_BUILD_STATIC)
    set_target_properties(processmgr_debug_static PROPERTIES EXCLUDE_FROM_ALL ON)
endif()
if(PROCESSMGR_BUILD_SHARED)
    set(pmi_shared_microhttpd pmi_microhttpd)
    if(MINGW AND CMAKE_OBJCOPY AND PMI_MICROHTTPD_LIBRARY MATCHES "[^l][.]a$")
        # The static one asks for its names to be exported, from whatever it is linked into.
        set(pmi_shared_microhttpd "${CMAKE_CURRENT_BINARY_DIR}/microhttpd-plain.a")
        add_custom_command(
            OUTPUT "${pmi_shared_microhttpd}"
            COMMAND "${CMAKE_OBJCOPY}" --remove-section=.drectve "${PMI_MICROHTTPD_LIBRARY}"
                    "${pmi_shared_microhttpd}"
            DEPENDS "${PMI_MICROHTTPD_LIBRARY}"
            VERBATIM)
        add_custom_target(pmi_plain_microhttpd DEPENDS "${pmi_shared_microhttpd}")
    endif()
    pmi_add_debug(shared SHARED processmgr_shared "${pmi_shared_microhttpd}")
    add_library(processmgr::debug_shared ALIAS processmgr_debug_shared)
    if(TARGET pmi_plain_microhttpd)
        add_dependencies(processmgr_debug_shared pmi_plain_microhttpd)
    endif()
    target_compile_definitions(
        processmgr_debug_shared
        PRIVATE PM_BUILDING_DEBUG_SHARED
        INTERFACE PM_USING_DEBUG_SHARED)
    set_target_properties(processmgr_debug_shared PROPERTIES VERSION "${PROJECT_VERSION}"
                                                             SOVERSION 0)
    if(UNIX AND NOT APPLE)
        target_link_options(processmgr_debug_shared PRIVATE "LINKER:-z,nodelete")
    endif()
    if(MINGW)
        set_target_properties(processmgr_debug_shared PROPERTIES PREFIX "")
        # Its libraries are inside, and so is their thread library.
        target_link_options(processmgr_debug_shared PRIVATE -static)
    endif()
    add_library(processmgr::debug ALIAS processmgr_debug_shared)
else()
    add_library(processmgr::debug ALIAS processmgr_debug_static)
endif()

# Of the runner: where the HTTP library is a shared one, it is loaded when the page is asked for
# (src/debug/http.h). No part of what is installed.
set(PMI_RUNNER_DEBUG processmgr_debug_static)
get_filename_component(pmi_http_file "${PMI_MICROHTTPD_LIBRARY}" REALPATH)
if(UNIX
   AND NOT APPLE
   AND pmi_http_file MATCHES "/(libmicrohttpd\\.so\\.[0-9]+)[^/]*$")
    set(PMI_HTTP_LATE "${CMAKE_MATCH_1}")
    pmi_add_debug(late STATIC processmgr_static "${CMAKE_DL_LIBS}")
    target_sources(processmgr_debug_late PRIVATE "${PROJECT_SOURCE_DIR}/src/posix/debug_late.c")
    target_compile_definitions(processmgr_debug_late PRIVATE "PMI_HTTP_LATE=\"${PMI_HTTP_LATE}\"")
    set_target_properties(processmgr_debug_late PROPERTIES EXCLUDE_FROM_ALL ON OUTPUT_NAME
                                                                               pmi_debug_late)
    set(PMI_RUNNER_DEBUG processmgr_debug_late)
    # By that name the loader finds what is in its own folders. Of another one the runner is told.
    get_filename_component(PMI_HTTP_FOLDER "${pmi_http_file}" DIRECTORY)
    foreach(folder IN LISTS CMAKE_C_IMPLICIT_LINK_DIRECTORIES
                            CMAKE_PLATFORM_IMPLICIT_LINK_DIRECTORIES)
        get_filename_component(folder "${folder}" REALPATH)
        if(folder STREQUAL PMI_HTTP_FOLDER)
            set(PMI_HTTP_FOLDER)
            break()
        endif()
    endforeach()
endif()
