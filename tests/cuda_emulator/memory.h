// Device memory, which is the host's: buffers that are known, poisoned and guarded.
#pragma once
#include <stddef.h>

// Return a new buffer, nullptr where the device's memory is used up.
char* allocate(size_t size);

// Free a buffer; false: it is none.
bool release(char* buffer);

// Tell whether these bytes lie in one buffer.
bool is_on_device(const void* bytes, size_t size);

size_t device_memory();
size_t memory_in_use();

// Where accesses out of bounds end the process, let `describe` say which code ran.
void name_faults(const char* (*describe)());
