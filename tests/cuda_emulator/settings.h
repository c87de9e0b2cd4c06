// The environment variables that the emulator is set by (README.md lists them), and its log.
#pragma once
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>

inline std::string setting(const char* name, const char* otherwise = "") {
    const char* value = getenv((std::string("EMULATED_CUDA_") + name).c_str());
    return value && *value ? value : otherwise;
}

inline long long number(const char* name, long long otherwise) {
    const std::string value = setting(name);
    return value.empty() ? otherwise : atoll(value.c_str());
}

// Write a line to the log: whatever a card would have refused or got wrong.
__attribute__((format(printf, 1, 2))) inline void report(const char* format, ...) {
    char line[1000];
    va_list values;
    va_start(values, format);
    vsnprintf(line, sizeof line, format, values);
    va_end(values);
    const std::string path = setting("LOG");
    FILE* file = path.empty() ? nullptr : fopen(path.c_str(), "a");
    if (!file) return;
    fprintf(file, "%s\n", line);
    fclose(file);
}
