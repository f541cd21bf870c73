// The few lines that the core's tests need of a test framework.
#pragma once

#include <cstdio>

inline int failures = 0;

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);   \
            ++failures;                                                           \
        }                                                                         \
    } while (0)
