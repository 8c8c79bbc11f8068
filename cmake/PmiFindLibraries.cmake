# Finds what the programs and the debug server need: the targets pmi_libuv, pmi_jansson and
# pmi_microhttpd, each where it is there. Sets PMI_WITH_PROGRAMS and PMI_WITH_DEBUG; what was asked for
# and cannot be built is named in one line.
set(PMI_WITH_PROGRAMS OFF)
set(PMI_WITH_DEBUG OFF)
if(NOT PROCESSMGR_PROGRAMS
   AND NOT PROCESSMGR_DEBUG
   AND NOT PROCESSMGR_BUILD_EXAMPLES)
    return()
endif()

include(PmiLibraries)

# pmi_decide(<option> <what it is, for people> <target>...)
function(pmi_decide option title)
    if(NOT PROCESSMGR_${option})
        return()
    endif()
    set(missing)
    foreach(target IN LISTS ARGN)
        if(NOT TARGET ${target})
            string(REPLACE "pmi_" "" name "${target}")
            string(REPLACE "microhttpd" "libmicrohttpd" name "${name}")
            list(APPEND missing "${name}")
        endif()
    endforeach()
    if(missing)
        list(JOIN missing ", " missing)
        message(STATUS "processmgr: ${title} left out, missing: ${missing}")
        return()
    endif()
    set(PMI_WITH_${option}
        ON
        PARENT_SCOPE)
endfunction()

pmi_decide(PROGRAMS "poddaemon and runner are" pmi_libuv pmi_jansson)
pmi_decide(DEBUG "the debug server is" pmi_microhttpd pmi_jansson)
