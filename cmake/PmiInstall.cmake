# Install rules: libraries, headers, CMake package, pkg-config file, launcher.
include(CMakePackageConfigHelpers)

set(pmi_cmake_dir "${CMAKE_INSTALL_LIBDIR}/cmake/processmgr")

set(pmi_install_targets)
if(PROCESSMGR_BUILD_SHARED)
    list(APPEND pmi_install_targets processmgr_shared)
endif()
if(PROCESSMGR_BUILD_STATIC)
    list(APPEND pmi_install_targets processmgr_static)
endif()
install(
    TARGETS ${pmi_install_targets}
    EXPORT processmgr-targets
    RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}"
    LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(
    EXPORT processmgr-targets
    NAMESPACE processmgr::
    DESTINATION "${pmi_cmake_dir}")
install(FILES include/processmgr/processmgr.h include/processmgr/forbid_raw_spawn.h
        DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/processmgr")
if(TARGET processmgr_debug_static)
    set(pmi_install_targets)
    if(PROCESSMGR_BUILD_SHARED)
        list(APPEND pmi_install_targets processmgr_debug_shared)
    endif()
    if(PROCESSMGR_BUILD_STATIC)
        list(APPEND pmi_install_targets processmgr_debug_static)
    endif()
    install(
        TARGETS ${pmi_install_targets}
        EXPORT processmgr-debug-targets
        COMPONENT debug
        RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}"
        LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
        ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
    install(
        EXPORT processmgr-debug-targets
        NAMESPACE processmgr::
        DESTINATION "${pmi_cmake_dir}"
        COMPONENT debug)
    install(
        FILES include/processmgr/debug.h
        DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/processmgr"
        COMPONENT debug)
    install(
        FILES cmake/PmiLibraries.cmake
        DESTINATION "${pmi_cmake_dir}"
        COMPONENT debug)
endif()
if(pmi_def_file)
    install(FILES "${pmi_def_file}" DESTINATION "${CMAKE_INSTALL_LIBDIR}")
endif()
if(TARGET processmgr-launcher)
    install(TARGETS processmgr-launcher RUNTIME DESTINATION "${PMI_LAUNCHER_INSTALL_DIR}")
endif()
if(TARGET processmgr-poddaemon)
    install(TARGETS processmgr-poddaemon RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()

configure_package_config_file(cmake/processmgr-config.cmake.in processmgr-config.cmake
                              INSTALL_DESTINATION "${pmi_cmake_dir}"
                              PATH_VARS CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(processmgr-config-version.cmake COMPATIBILITY SameMajorVersion)
install(FILES cmake/processmgr-forbid-raw-spawn.cmake cmake/processmgr-check-objects.cmake
        DESTINATION "${pmi_cmake_dir}")
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/processmgr-config.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/processmgr-config-version.cmake"
        DESTINATION "${pmi_cmake_dir}")

# The prefix in the .pc file is written relative to the file itself, so a moved tree still works.
set(pmi_pc_dir "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
file(RELATIVE_PATH pmi_pc_prefix "${CMAKE_INSTALL_PREFIX}/${pmi_pc_dir}" "${CMAKE_INSTALL_PREFIX}")
string(REGEX REPLACE "/$" "" pmi_pc_prefix "${pmi_pc_prefix}")
set(pmi_pc_cflags "")
if(WIN32 AND NOT PROCESSMGR_BUILD_STATIC)
    set(pmi_pc_cflags " -DPM_USING_SHARED")
endif()
set(pmi_pc_libs "")
if(PMI_SANITIZE_LINK_FLAG)
    set(pmi_pc_libs " ${PMI_SANITIZE_LINK_FLAG}")
endif()
set(pmi_pc_libs_private ${PMI_SYSTEM_LIBRARIES})
list(TRANSFORM pmi_pc_libs_private PREPEND "-l" REGEX "^[A-Za-z0-9_]+$")
list(TRANSFORM pmi_pc_libs_private REPLACE "^Threads::Threads$" "${CMAKE_THREAD_LIBS_INIT}")
list(JOIN pmi_pc_libs_private " " pmi_pc_libs_private)
configure_file(cmake/processmgr.pc.in processmgr.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/processmgr.pc" DESTINATION "${pmi_pc_dir}")
if(TARGET processmgr_debug_static)
    configure_file(cmake/processmgr-debug.pc.in processmgr-debug.pc @ONLY)
    install(
        FILES "${CMAKE_CURRENT_BINARY_DIR}/processmgr-debug.pc"
        DESTINATION "${pmi_pc_dir}"
        COMPONENT debug)
endif()
