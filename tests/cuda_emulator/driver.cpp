// libcuda: the driver's functions that libgpuarray calls, on cards that are the processor.
// Everything has happened when a call returns, so streams and events do nothing.
#include "driver.h"

#include <vector>

#include "memory.h"

namespace {

const std::map<int, const char*> NAMES = {
    {SUCCESS, "CUDA_SUCCESS"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
    {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
    {UNSUPPORTED_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
    {LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
};

const std::map<int, const char*> SENTENCES = {
    {SUCCESS, "no error"},
    {OUT_OF_MEMORY, "out of memory"},
    {NO_DEVICE, "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "invalid device ordinal"},
    {UNSUPPORTED_PTX_VERSION, "the provided PTX was compiled with an unsupported toolchain."},
    {NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"},
    {LAUNCH_FAILED, "unspecified launch failure"},
};

bool initialized;
thread_local std::vector<void*> contexts;
unsigned context_flags;
int n_retained;
char the_context, a_stream, an_event;

void write_counts() { counts().write(setting("COUNTS")); }

int n_devices() { return (int)number("DEVICES", 1); }

}  // namespace

Counts& counts() {
    static Counts* all = new Counts;  // never destroyed: the end of a process counts, too
    return *all;
}
int driver_version() { return (int)number("DRIVER", 12090); }
int capability() { return (int)number("CAPABILITY", 90); }
bool is_initialized() { return initialized; }
bool has_context() { return !contexts.empty(); }

#define NEEDS_DEVICE_MEMORY(start, size)                                             \
    do {                                                                             \
        if (!is_on_device((const void*)(start), size))                               \
            FAIL(INVALID_VALUE, "%s: %zu bytes do not lie in one buffer of the device", \
                 __func__, (size_t)(size));                                          \
    } while (0)

API const char* device_counts() { return counts().text(); }

// For the other libraries of the emulator.
API void emulated_count_launch(const char* name) { counts().launch(name); }
API bool emulated_on_device(const void* start, size_t size) { return is_on_device(start, size); }

// ---------------------------------------------------------------------------- the device

API int cuInit(unsigned) {
    if (!n_devices()) return NO_DEVICE;
    if (!initialized) {
        name_faults(running_code);
        atexit(write_counts);
    }
    initialized = true;
    return SUCCESS;
}
API int cuDriverGetVersion(int* version) { return *version = driver_version(), SUCCESS; }
// The real NVRTC asks the driver for functions of its own, and does without them.
API int cuGetExportTable(const void** table, const void*) { return *table = nullptr, NOT_FOUND; }
static int found(const std::map<int, const char*>& table, int code, const char** text) {
    auto entry = table.find(code);
    *text = entry == table.end() ? NAMES.count(code) ? NAMES.at(code) : nullptr : entry->second;
    return *text ? SUCCESS : INVALID_VALUE;
}
API int cuGetErrorName(int code, const char** text) { return found(NAMES, code, text); }
API int cuGetErrorString(int code, const char** text) { return found(SENTENCES, code, text); }
API int cuDeviceGetCount(int* n) {
    if (!initialized) return NOT_INITIALIZED;
    return *n = n_devices(), SUCCESS;
}
API int cuDeviceGet(int* device, int i) {
    if (!initialized) return NOT_INITIALIZED;
    if (i < 0 || i >= n_devices()) return INVALID_DEVICE;
    return *device = i, SUCCESS;
}
API int cuDeviceGetName(char* text, int size, int) {
    return snprintf(text, (size_t)size, "Emulated GPU"), SUCCESS;
}
API int cuDeviceGetPCIBusId(char* text, int size, int device) {
    return snprintf(text, (size_t)size, "0000:%02x:00.0", device + 1), SUCCESS;
}
API int cuDeviceGetAttribute(int* value, int attribute, int) {
    const std::map<int, int> attributes = {
        {1, 1024}, {2, 1024}, {3, 1024}, {4, 64},      // threads of a block, its sizes
        {5, 2147483647}, {6, 65535}, {7, 65535},       // sizes of a grid
        {8, 49152}, {9, 65536}, {10, 32},              // shared and constant memory, a warp
        {12, 65536}, {13, 1500000}, {16, 4},           // registers, clock, multiprocessors
        {39, 2048}, {41, 1},                           // threads of one, unified addressing
        {75, capability() / 10}, {76, capability() % 10},
    };
    auto entry = attributes.find(attribute);
    return *value = entry == attributes.end() ? 0 : entry->second, SUCCESS;
}
API int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
    return *flags = context_flags, *active = n_retained > 0, SUCCESS;
}
API int cuDevicePrimaryCtxSetFlags(int, unsigned flags) { return context_flags = flags, SUCCESS; }
API int cuDevicePrimaryCtxRetain(void** context, int) {
    return n_retained++, *context = &the_context, SUCCESS;
}
API int cuDevicePrimaryCtxRelease(int) { return n_retained--, SUCCESS; }
API int cuCtxGetDevice(int* device) {
    NEEDS_CONTEXT;
    return *device = 0, SUCCESS;
}
API int cuCtxPushCurrent_v2(void* context) {
    if (!context) return INVALID_CONTEXT;
    return contexts.push_back(context), SUCCESS;
}
API int cuCtxPopCurrent_v2(void** context) {
    NEEDS_CONTEXT;
    if (context) *context = contexts.back();
    return contexts.pop_back(), SUCCESS;
}

// ---------------------------------------------------------------------------- memory

typedef unsigned long long Pointer;

API int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    NEEDS_CONTEXT;
    return *total = device_memory(), *free_bytes = *total - memory_in_use(), SUCCESS;
}
API int cuMemAlloc_v2(Pointer* pointer, size_t size) {
    NEEDS_CONTEXT;
    if (!size) FAIL(INVALID_VALUE, "cuMemAlloc: no bytes");
    char* start = allocate(size);
    if (!start) FAIL(OUT_OF_MEMORY, "cuMemAlloc: %zu bytes are not left", size);
    return *pointer = (Pointer)start, SUCCESS;
}
API int cuMemFree_v2(Pointer pointer) {
    if (contexts.empty()) return INVALID_CONTEXT;  // libgpuarray does this when a process ends
    if (!release((char*)pointer)) FAIL(INVALID_VALUE, "cuMemFree: this is no buffer");
    return SUCCESS;
}
API int cuMemAllocHost_v2(void** pointer, size_t size) {
    NEEDS_CONTEXT;
    return (*pointer = malloc(size)) ? SUCCESS : OUT_OF_MEMORY;
}
API int cuMemFreeHost(void* pointer) { return free(pointer), SUCCESS; }
API int cuMemcpyHtoD_v2(Pointer to, const void* from, size_t size) {
    NEEDS_CONTEXT;
    NEEDS_DEVICE_MEMORY(to, size);
    return counts().up(size), memcpy((void*)to, from, size), SUCCESS;
}
API int cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t size, void*) {
    return cuMemcpyHtoD_v2(to, from, size);
}
API int cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t size, void*) {
    NEEDS_CONTEXT;
    NEEDS_DEVICE_MEMORY(from, size);
    return counts().down(size), memcpy(to, (void*)from, size), SUCCESS;
}
API int cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t size, void*) {
    NEEDS_CONTEXT;
    NEEDS_DEVICE_MEMORY(to, size);
    NEEDS_DEVICE_MEMORY(from, size);
    counts().launch("(copy)");
    return memmove((void*)to, (void*)from, size), SUCCESS;
}
API int cuMemcpyPeerAsync(Pointer to, void*, Pointer from, void*, size_t size, void* stream) {
    return cuMemcpyDtoDAsync_v2(to, from, size, stream);
}
API int cuMemsetD8Async(Pointer to, unsigned char value, size_t size, void*) {
    NEEDS_CONTEXT;
    NEEDS_DEVICE_MEMORY(to, size);
    counts().launch("(fill)");
    return memset((void*)to, value, size), SUCCESS;
}
API int cuIpcGetMemHandle(void*, Pointer) { return NOT_SUPPORTED; }
API int cuIpcOpenMemHandle(Pointer*, ...) { return NOT_SUPPORTED; }
API int cuIpcCloseMemHandle(Pointer) { return NOT_SUPPORTED; }

// ---------------------------------------------------------------------------- streams and events

API int cuStreamCreate(void** stream, unsigned) {
    NEEDS_CONTEXT;
    return *stream = &a_stream, SUCCESS;
}
API int cuStreamDestroy_v2(void*) { return SUCCESS; }
API int cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
API int cuStreamSynchronize(void*) { return SUCCESS; }
API int cuEventCreate(void** event, unsigned) {
    NEEDS_CONTEXT;
    return *event = &an_event, SUCCESS;
}
API int cuEventRecord(void*, void*) { return SUCCESS; }
API int cuEventSynchronize(void*) { return SUCCESS; }
API int cuEventDestroy_v2(void*) { return SUCCESS; }
