# processmgr_forbid_raw_spawn(<target> [EXEMPT <source>...])
#
# Process starts of the target go through the library, or it does not build:
#
#   - the guard header is forced into its C and C++ sources (gcc, clang, MinGW-w64), so that a call of
#     fork(), exec*(), system(), CreateProcess() ... is a compile error that names the replacement;
#   - the undefined symbols of its objects are checked after each build, so that what the header does
#     not see, such as a call through a pointer, or a source compiled without the header, is an error
#     as well. (Not seen by either: a raw syscall(), and libraries that are linked.)
#
# An exemption is for one source, and needs a reason in that source, in a comment of this form:
#
#   // PM_ALLOW_RAW_SPAWN: the debugger traces this child itself
#
# Call it in the folder that has made the target, after its last target_sources(). Executables,
# static, shared and module libraries fail in their own build step; of an object library a target
# <target>_forbid_raw_spawn is made, which is part of "all".

if(NOT DEFINED PROCESSMGR_GUARD_HEADER)
    message(FATAL_ERROR "PROCESSMGR_GUARD_HEADER is not set: use find_package(processmgr)")
endif()
# Properties, because a function is known in more folders than the variables around it.
set_property(GLOBAL PROPERTY PROCESSMGR_GUARD_HEADER "${PROCESSMGR_GUARD_HEADER}")
set_property(GLOBAL PROPERTY PROCESSMGR_CHECK_OBJECTS
                             "${CMAKE_CURRENT_LIST_DIR}/processmgr-check-objects.cmake")

# The nm that belongs to the compiler: only that one reads objects of link-time optimisation.
function(processmgr_find_nm ret_nm)
    foreach(language IN ITEMS C CXX)
        if(CMAKE_${language}_COMPILER_AR)
            string(REGEX REPLACE "-ar([-0-9.a-z]*)$" "-nm\\1" nm "${CMAKE_${language}_COMPILER_AR}")
            if(NOT nm STREQUAL CMAKE_${language}_COMPILER_AR AND EXISTS "${nm}")
                set(${ret_nm} "${nm}" PARENT_SCOPE)
                return()
            endif()
        endif()
    endforeach()
    set(${ret_nm} "${CMAKE_NM}" PARENT_SCOPE)
endfunction()

function(processmgr_forbid_raw_spawn target)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "EXEMPT")
    if(arg_UNPARSED_ARGUMENTS)
        message(FATAL_ERROR "processmgr_forbid_raw_spawn: what is ${arg_UNPARSED_ARGUMENTS}?")
    endif()
    get_target_property(type ${target} TYPE)
    if(NOT type MATCHES "^(EXECUTABLE|(STATIC|SHARED|MODULE|OBJECT)_LIBRARY)$")
        message(FATAL_ERROR "processmgr_forbid_raw_spawn: ${target} has no objects (${type})")
    endif()

    get_property(header GLOBAL PROPERTY PROCESSMGR_GUARD_HEADER)
    get_property(script GLOBAL PROPERTY PROCESSMGR_CHECK_OBJECTS)
    foreach(language IN ITEMS C CXX)
        target_compile_options(
            ${target}
            PRIVATE
                "$<$<COMPILE_LANG_AND_ID:${language},GNU,Clang,AppleClang>:SHELL:-include \"${header}\">"
        )
    endforeach()

    set(exempt)
    get_target_property(source_dir ${target} SOURCE_DIR)
    foreach(source IN LISTS arg_EXEMPT)
        get_filename_component(path "${source}" ABSOLUTE BASE_DIR "${source_dir}")
        if(NOT EXISTS "${path}")
            message(FATAL_ERROR "processmgr_forbid_raw_spawn: no such source: ${source}")
        endif()
        file(STRINGS "${path}" reason REGEX "PM_ALLOW_RAW_SPAWN:[ \t]*[^ \t]")
        if(NOT reason)
            message(
                FATAL_ERROR
                    "processmgr_forbid_raw_spawn: the exemption of ${source} needs its reason, in that "
                    "source, in a comment: // PM_ALLOW_RAW_SPAWN: why")
        endif()
        set_property(
            SOURCE "${path}" TARGET_DIRECTORY ${target}
            APPEND
            PROPERTY COMPILE_DEFINITIONS PM_ALLOW_RAW_SPAWN)
        list(APPEND exempt "${path}")
    endforeach()

    processmgr_find_nm(nm)
    if(NOT nm)
        message(WARNING "processmgr_forbid_raw_spawn: there is no nm; objects are not checked")
        return()
    endif()
    set(list "${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/${target}_forbid_raw_spawn-$<CONFIG>.txt")
    file(
        GENERATE
        OUTPUT "${list}"
        CONTENT
            "source_dir ${source_dir}\nexempt $<JOIN:${exempt},\nexempt >\nobject $<JOIN:$<TARGET_OBJECTS:${target}>,\nobject >\n"
    )
    set(check "${CMAKE_COMMAND}" "-DNM=${nm}" "-DTARGET=${target}" "-DLIST=${list}" -P
              "${script}")
    if(type STREQUAL "OBJECT_LIBRARY")
        add_custom_target(
            ${target}_forbid_raw_spawn ALL
            COMMAND ${check}
            DEPENDS "$<TARGET_OBJECTS:${target}>"
            COMMENT "Raw process starts in ${target}"
            VERBATIM)
        add_dependencies(${target}_forbid_raw_spawn ${target})
    else()
        add_custom_command(
            TARGET ${target}
            POST_BUILD
            COMMAND ${check}
            VERBATIM)
    endif()
endfunction()
