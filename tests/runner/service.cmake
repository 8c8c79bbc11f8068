# Services: their pure parts, and the runner with real children.
pm_add_test_exe(runner_service_unit service_units_test.cpp LABELS unit)
target_link_libraries(runner_service_unit PRIVATE pmi_runner)

add_executable(service-child service_child.c)
target_link_libraries(service-child PRIVATE pmi_jansson)
target_compile_definitions(service-child PRIVATE PM_ALLOW_RAW_SPAWN)
pmi_setup_program(service-child)
set_target_properties(service-child PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PMI_TEST_BIN_DIR}")
if(PMI_PYTHON3 AND (NOT WIN32 OR CMAKE_CROSSCOMPILING))
    set(wine)
    if(WIN32)
        set(wine --wine --hands "$<TARGET_FILE:runner-child>")
    endif()
    pm_add_test_script(
        runner_service
        COMMAND
        "${PMI_PYTHON3}"
        "${CMAKE_CURRENT_SOURCE_DIR}/service_run"
        --runner
        "$<TARGET_FILE:runner>"
        --child
        "$<TARGET_FILE:service-child>"
        ${wine}
        TIMEOUT
        300)
endif()
