# The libraries that the programs and the debug server stand on. The core needs none of them. Part of
# the installed package, for whoever links the static debug server.
#
# pmi_find_library(<target> HEADER <file> NAMES <name>... [WINDOWS <library>...])
#
# makes the imported target <target> where header and library are found. WINDOWS: what a static one of
# MinGW-w64 needs of the system.
function(pmi_find_library target)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "HEADER" "NAMES;WINDOWS")
    if(TARGET ${target})
        return()
    endif()
    string(TOUPPER "${target}" prefix)
    find_path(${prefix}_INCLUDE_DIR NAMES "${arg_HEADER}")
    find_library(${prefix}_LIBRARY NAMES ${arg_NAMES})
    mark_as_advanced(${prefix}_INCLUDE_DIR ${prefix}_LIBRARY)
    if(NOT ${prefix}_INCLUDE_DIR OR NOT ${prefix}_LIBRARY)
        return()
    endif()
    # Global: whoever adds this project as a folder links it, too.
    add_library(${target} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(
        ${target} PROPERTIES IMPORTED_LOCATION "${${prefix}_LIBRARY}"
                             INTERFACE_INCLUDE_DIRECTORIES "${${prefix}_INCLUDE_DIR}")
    if(WIN32)
        set_target_properties(${target} PROPERTIES INTERFACE_LINK_LIBRARIES "${arg_WINDOWS}")
    endif()
endfunction()

pmi_find_library(
    pmi_libuv
    HEADER uv.h
    NAMES uv uv_a libuv
    WINDOWS psapi user32 advapi32 iphlpapi userenv ws2_32 dbghelp ole32 shell32)
pmi_find_library(
    pmi_jansson
    HEADER jansson.h
    NAMES jansson)
pmi_find_library(
    pmi_microhttpd
    HEADER microhttpd.h
    NAMES microhttpd
    WINDOWS ws2_32)
