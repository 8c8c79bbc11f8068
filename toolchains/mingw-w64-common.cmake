# The part that both MinGW-w64 toolchain files share; PMI_MINGW_TRIPLE is set by the includer.
set(CMAKE_SYSTEM_NAME Windows)

# The "-posix" flavour has std::mutex, which GoogleTest needs.
foreach(pmi_pair IN ITEMS "C;gcc" "CXX;g++")
    list(GET pmi_pair 0 pmi_lang)
    list(GET pmi_pair 1 pmi_driver)
    if(NOT CMAKE_${pmi_lang}_COMPILER)
        set(pmi_name "${PMI_MINGW_TRIPLE}-${pmi_driver}")
        find_program(PMI_MINGW_${pmi_lang} NAMES "${pmi_name}-posix" "${pmi_name}")
        mark_as_advanced(PMI_MINGW_${pmi_lang})
        if(PMI_MINGW_${pmi_lang})
            set(CMAKE_${pmi_lang}_COMPILER "${PMI_MINGW_${pmi_lang}}")
        else()
            # Named all the same: a compiler of the build machine must not stand in for it.
            set(CMAKE_${pmi_lang}_COMPILER "${pmi_name}")
        endif()
    endif()
endforeach()
find_program(CMAKE_RC_COMPILER NAMES "${PMI_MINGW_TRIPLE}-windres")

# Where ci/mingw-libraries, or somebody else, has put the libraries of the programs, 64-bit only: given
# here or in the environment.
set(CMAKE_FIND_ROOT_PATH "/usr/${PMI_MINGW_TRIPLE}")
if(PMI_MINGW_TRIPLE STREQUAL "x86_64-w64-mingw32")
    if(NOT PROCESSMGR_MINGW_PREFIX)
        set(PROCESSMGR_MINGW_PREFIX
            "$ENV{PROCESSMGR_MINGW_PREFIX}"
            CACHE PATH "Libraries built for MinGW-w64" FORCE)
    endif()
    list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES PROCESSMGR_MINGW_PREFIX)
    if(PROCESSMGR_MINGW_PREFIX)
        list(PREPEND CMAKE_FIND_ROOT_PATH "${PROCESSMGR_MINGW_PREFIX}")
    endif()
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

get_filename_component(pmi_wine_run "${CMAKE_CURRENT_LIST_DIR}/../ci/wine-run" ABSOLUTE)
set(CMAKE_CROSSCOMPILING_EMULATOR "${pmi_wine_run}")
