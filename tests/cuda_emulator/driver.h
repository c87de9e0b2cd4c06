// What the parts of libcuda share.
#pragma once
#include "counts.h"
#include "settings.h"

#define API extern "C" __attribute__((visibility("default")))

enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    UNSUPPORTED_PTX_VERSION = 222,
    NOT_FOUND = 500,
    LAUNCH_OUT_OF_RESOURCES = 701,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
};

Counts& counts();
int driver_version();
int capability();
bool is_initialized();
bool has_context();
const char* running_code();  // which kernel, block and thread runs

#define FAIL(code, ...) \
    do {                \
        report(__VA_ARGS__); \
        return code;    \
    } while (0)
#define NEEDS_CONTEXT                          \
    do {                                       \
        if (!is_initialized()) return NOT_INITIALIZED; \
        if (!has_context()) FAIL(INVALID_CONTEXT, "%s: no context is current", __func__); \
    } while (0)
