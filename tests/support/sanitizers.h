// Which sanitizer this is compiled with: gcc and clang tell it in different ways.
#ifndef PM_TEST_SUPPORT_SANITIZERS_H
#define PM_TEST_SUPPORT_SANITIZERS_H

#if defined(__SANITIZE_ADDRESS__)
#define PM_TEST_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define PM_TEST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PM_TEST_ASAN 1
#elif __has_feature(thread_sanitizer)
#define PM_TEST_TSAN 1
#endif
#endif

#endif
