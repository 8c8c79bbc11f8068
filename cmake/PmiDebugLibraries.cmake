# The libraries that the debug server uses, as imported targets processmgr::microhttpd and
# processmgr::jansson. Sets PMI_DEBUG_MISSING to what is not there. Part of the installed package.
set(PMI_DEBUG_MISSING "")
foreach(pmi_pair IN ITEMS "microhttpd;microhttpd.h;libmicrohttpd" "jansson;jansson.h;jansson")
    list(GET pmi_pair 0 pmi_name)
    list(GET pmi_pair 1 pmi_header)
    list(GET pmi_pair 2 pmi_title)
    string(TOUPPER "PROCESSMGR_${pmi_name}" pmi_variable)
    find_path(${pmi_variable}_INCLUDE_DIR "${pmi_header}")
    find_library(${pmi_variable}_LIBRARY ${pmi_name})
    mark_as_advanced(${pmi_variable}_INCLUDE_DIR ${pmi_variable}_LIBRARY)
    if(NOT ${pmi_variable}_INCLUDE_DIR OR NOT ${pmi_variable}_LIBRARY)
        list(APPEND PMI_DEBUG_MISSING "${pmi_title}")
    elseif(NOT TARGET processmgr::${pmi_name})
        add_library(processmgr::${pmi_name} UNKNOWN IMPORTED)
        set_target_properties(
            processmgr::${pmi_name}
            PROPERTIES IMPORTED_LOCATION "${${pmi_variable}_LIBRARY}"
                       INTERFACE_INCLUDE_DIRECTORIES "${${pmi_variable}_INCLUDE_DIR}")
        if(WIN32 AND pmi_name STREQUAL "microhttpd")
            set_target_properties(processmgr::${pmi_name} PROPERTIES INTERFACE_LINK_LIBRARIES
                                                                     ws2_32)
        endif()
    endif()
endforeach()
list(JOIN PMI_DEBUG_MISSING ", " PMI_DEBUG_MISSING)
