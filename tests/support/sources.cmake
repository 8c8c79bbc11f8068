# Sources that every GoogleTest program is linked with, relative to the source root.
set(PMI_TEST_SUPPORT_SOURCES)
if(NOT WIN32)
    list(APPEND PMI_TEST_SUPPORT_SOURCES tests/support/kill.c)
endif()
if(CMAKE_C_FLAGS MATCHES "--coverage")
    list(APPEND PMI_TEST_SUPPORT_SOURCES tests/support/leave.c)
endif()

# The scripted backend, which stands in for the real one in tests with FAKE_BACKEND.
set(PMI_TEST_FAKE_SOURCES tests/support/fake/fake_backend.c)
