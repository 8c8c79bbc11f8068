# Finds what the tests need. Sets PMI_TESTS_MISSING to what is not there, or leaves it empty and
# provides the target pmi_gtest.
set(PMI_TESTS_MISSING "")

check_language(CXX)
# A toolchain file or the user may name a compiler that is not installed.
if(CMAKE_CXX_COMPILER)
    list(GET CMAKE_CXX_COMPILER 0 pmi_cxx)
    unset(PMI_CXX_FOUND CACHE)
    find_program(PMI_CXX_FOUND NAMES "${pmi_cxx}")
    mark_as_advanced(PMI_CXX_FOUND)
endif()
if(NOT CMAKE_CXX_COMPILER OR NOT PMI_CXX_FOUND)
    set(PMI_TESTS_MISSING "a C++17 compiler")
    return()
endif()
enable_language(CXX)
if(NOT "cxx_std_17" IN_LIST CMAKE_CXX_COMPILE_FEATURES)
    set(PMI_TESTS_MISSING "a C++17 compiler")
    return()
endif()

# A compiled GoogleTest of this machine is of no use to a cross build.
if(NOT CMAKE_CROSSCOMPILING AND NOT PROCESSMGR_GTEST_SOURCE_DIR)
    find_package(GTest QUIET)
endif()

add_library(pmi_gtest INTERFACE)
if(TARGET GTest::gtest_main)
    target_link_libraries(pmi_gtest INTERFACE GTest::gtest GTest::gtest_main)
    return()
endif()

set(pmi_gtest_source_dir "${PROCESSMGR_GTEST_SOURCE_DIR}")
if(NOT pmi_gtest_source_dir)
    set(pmi_gtest_source_dir /usr/src/googletest)
endif()
if(NOT EXISTS "${pmi_gtest_source_dir}/CMakeLists.txt")
    set(PMI_TESTS_MISSING
        "GoogleTest (package googletest, or its sources in PROCESSMGR_GTEST_SOURCE_DIR)")
    return()
endif()

set(BUILD_GMOCK OFF)
set(INSTALL_GTEST OFF)
set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)
set(CMAKE_CXX_STANDARD 17)
add_subdirectory("${pmi_gtest_source_dir}" "${CMAKE_CURRENT_BINARY_DIR}/googletest"
                 EXCLUDE_FROM_ALL)
unset(CMAKE_CXX_STANDARD)
target_link_libraries(pmi_gtest INTERFACE gtest gtest_main)
