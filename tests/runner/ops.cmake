# Who, doctor, and where holders live.
pm_add_test_exe(runner_ops_unit ops_units_test.cpp LABELS unit DEFS PM_ALLOW_RAW_SPAWN)
target_link_libraries(runner_ops_unit PRIVATE pmi_runner)

if(PMI_PYTHON3 AND NOT WIN32)
    pm_add_test_script(
        runner_ops
        COMMAND
        "${PMI_PYTHON3}"
        "${CMAKE_CURRENT_SOURCE_DIR}/ops_run"
        --runner
        "$<TARGET_FILE:runner>"
        TIMEOUT
        300)
endif()
if(PMI_PYTHON3 AND WIN32 AND CMAKE_CROSSCOMPILING)
    pm_add_test_script(
        runner_ops
        COMMAND
        "${PMI_PYTHON3}"
        "${CMAKE_CURRENT_SOURCE_DIR}/ops_run"
        --runner
        "$<TARGET_FILE:runner>"
        --wine
        --child
        "$<TARGET_FILE:runner-child>"
        TIMEOUT
        300)
endif()
