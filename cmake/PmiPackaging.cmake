# Install rules of the programs, component `programs`: the runner, its holder, and units of systemd.
install(TARGETS processmgr-poddaemon RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}"
                                             COMPONENT programs)
if(TARGET runner)
    install(TARGETS runner RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT programs)
endif()
if(TARGET runner AND NOT WIN32)
    # lib, not lib64 or lib/<arch>: systemd looks nowhere else. Written when it is installed, because
    # the path of the runner in it depends on the prefix then.
    set(pmi_unit_template "${PROJECT_SOURCE_DIR}/src/runner/packaging/processmgr-runner.service.in")
    set(pmi_unit "${CMAKE_CURRENT_BINARY_DIR}/processmgr-runner.service")
    install(
        CODE "set(PMI_RUNNER_PATH \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/runner\")
              configure_file(\"${pmi_unit_template}\" \"${pmi_unit}\" @ONLY)"
        COMPONENT programs)
    install(FILES "${pmi_unit}" DESTINATION lib/systemd/system COMPONENT programs)
    install(FILES "${pmi_unit}" DESTINATION lib/systemd/user COMPONENT programs)
endif()
