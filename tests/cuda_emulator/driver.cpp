// libcuda: the driver's functions that libgpuarray calls, on one card that is the processor.
// Everything has happened when a call returns, so streams and events do nothing.
#include <dlfcn.h>
#include <stdint.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "counts.h"
#include "fibers.h"
#include "kernel_abi.h"
#include "memory.h"
#include "settings.h"

#define API extern "C" __attribute__((visibility("default")))

namespace {

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
std::recursive_mutex one_launch;

Counts& counts() {
    static Counts* all = new Counts;  // never destroyed: the end of a process counts, too
    return *all;
}

void write_counts() { counts().write(setting("COUNTS")); }

int driver_version() { return (int)number("DRIVER", 12090); }
int n_devices() { return (int)number("DEVICES", 1); }
int capability() { return (int)number("CAPABILITY", 90); }

}  // namespace

#define FAIL(code, ...) \
    do {                \
        report(__VA_ARGS__); \
        return code;    \
    } while (0)
#define NEEDS_CONTEXT                          \
    do {                                       \
        if (!initialized) return NOT_INITIALIZED; \
        if (contexts.empty()) FAIL(INVALID_CONTEXT, "%s: no context is current", __func__); \
    } while (0)
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

static const char* running_code();

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

// ---------------------------------------------------------------------------- modules
// "PTX" is what compiler.cpp writes: its version and target, and the name of a library.

namespace {

struct Module {
    EmulatedThread* thread;
    void* library;
    char *shared, *shared_end;
};
struct Function {
    Module* module;
    void (*entry)(void**);
    std::string name;
};

std::string after(const std::string& text, const char* word) {
    size_t at = text.find(word);
    if (at == std::string::npos) return "";
    at += strlen(word);
    return text.substr(at, text.find('\n', at) - at);
}

// The newest PTX that drivers take, as 10 * major + minor: by the CUDA release that they came with.
int newest_ptx(int driver) {
    static const int releases[][2] = {{13000, 90}, {12090, 88}, {12080, 87}, {12070, 86},
                                      {12050, 85}, {12040, 84}, {12030, 83}, {12020, 82},
                                      {12010, 81}, {12000, 80}, {11080, 78}, {11070, 77},
                                      {11060, 76}, {11050, 75}, {11040, 74}, {11030, 73},
                                      {11020, 72}, {11010, 71}, {11000, 70}};
    for (auto& release : releases)
        if (driver >= release[0]) return release[1];
    return 65;
}

int check(const std::string& ptx, std::string& message) {
    int major = 0, minor = 0;
    if (sscanf(after(ptx, ".version ").c_str(), "%d.%d", &major, &minor) != 2)
        FAIL(INVALID_IMAGE, "cuLinkAddData: this is not the emulator's PTX");
    const int newest = newest_ptx(driver_version());
    if (10 * major + minor > newest) {
        char text[200];
        snprintf(text, sizeof text,
                 "ptxas application ptx input, line 9; fatal   : Unsupported .version %d.%d; "
                 "current version is '%d.%d'",
                 major, minor, newest / 10, newest % 10);
        message = text;
        FAIL(UNSUPPORTED_PTX_VERSION, "cuLinkAddData: PTX %d.%d is too new for a driver of CUDA %d",
             major, minor, driver_version());
    }
    const int target = atoi(after(ptx, ".target sm_").c_str());
    if (target > capability())
        FAIL(NO_BINARY_FOR_GPU, "cuLinkAddData: PTX for sm_%d on a card of sm_%d", target,
             capability());
    return SUCCESS;
}

}  // namespace

namespace {

struct Link {
    std::string ptx;
    char* log = nullptr;  // the caller's, for errors
    size_t log_size = 0;
};
enum LinkOption { ERROR_LOG_BUFFER = 5, ERROR_LOG_BUFFER_SIZE = 6 };

}  // namespace

API int cuLinkCreate(unsigned n, int* options, void** values, void** state) {
    NEEDS_CONTEXT;
    Link* link = new Link;
    for (unsigned i = 0; i < n; i++) {
        if (options[i] == ERROR_LOG_BUFFER) link->log = (char*)values[i];
        if (options[i] == ERROR_LOG_BUFFER_SIZE) link->log_size = (size_t)values[i];
    }
    return *state = link, SUCCESS;
}
API int cuLinkAddData(void* state, int, void* data, size_t size, const char*, unsigned, int*,
                      void**) {
    Link& link = *(Link*)state;
    link.ptx.assign((char*)data, strnlen((char*)data, size));
    std::string message;
    const int result = check(link.ptx, message);
    if (link.log) snprintf(link.log, link.log_size, "%s", message.c_str());
    return result;
}
API int cuLinkComplete(void* state, void** image, size_t* size) {
    std::string& ptx = ((Link*)state)->ptx;
    return *image = &ptx[0], *size = ptx.size() + 1, SUCCESS;
}
API int cuLinkDestroy(void* state) { return delete (Link*)state, SUCCESS; }
API int cuModuleLoadData(void** module, const void* image) {
    NEEDS_CONTEXT;
    const std::string key = after((const char*)image, "// emulated kernels: ");
    const std::string path = setting("CACHE", ".") + "/" + key + ".so";
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) FAIL(INVALID_IMAGE, "cuModuleLoadData: %s", dlerror());
    Module* loaded = new Module{(EmulatedThread*)dlsym(library, "emulated"), library, 0, 0};
    ((void (*)(char**, char**))dlsym(library, "emulated_shared_range"))(&loaded->shared,
                                                                  &loaded->shared_end);
    return *module = loaded, SUCCESS;
}
API int cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void**) {
    return cuModuleLoadData(module, image);
}
API int cuModuleUnload(void* module) {
    dlclose(((Module*)module)->library);
    return delete (Module*)module, SUCCESS;
}
API int cuModuleGetFunction(void** function, void* module, const char* name) {
    Module* of = (Module*)module;
    const std::string symbol = std::string("emulated_entry_") + name;
    auto entry = (void (*)(void**))dlsym(of->library, symbol.c_str());
    if (!entry) FAIL(NOT_FOUND, "cuModuleGetFunction: there is no kernel %s", name);
    return *function = new Function{of, entry, name}, SUCCESS;
}
API int cuFuncGetAttribute(int* value, int attribute, void* function) {
    const Module& module = *((Function*)function)->module;
    const int shared = (int)(module.shared_end - module.shared);
    return *value = attribute == 0 ? 1024 : attribute == 1 ? shared : 0, SUCCESS;
}

// ---------------------------------------------------------------------------- launches

namespace {

const size_t SHARED_MEMORY = 49152;
const Function* running;

Order order() {
    const std::string name = setting("ORDER", "forward");
    return name == "backward"  ? Order::backward
           : name == "rotated" ? Order::rotated
                               : Order::forward;
}

EmulatedPlace place_of(unsigned long i, const EmulatedPlace& sizes) {
    return {(unsigned)(i % sizes.x), (unsigned)(i / sizes.x % sizes.y),
            (unsigned)(i / sizes.x / sizes.y)};
}

int run(const Function& kernel, EmulatedPlace grid, EmulatedPlace block, unsigned n_dynamic,
        void** values) {
    static std::vector<char> dynamic(SHARED_MEMORY + 64);
    Module& module = *kernel.module;
    EmulatedThread& thread = *module.thread;
    thread.block_size = block;
    thread.grid_size = grid;
    thread.barrier = wait_at_barrier;
    thread.dynamic_shared = (char*)(((uintptr_t)dynamic.data() + 63) / 64 * 64);
    const Block threads = {
        block.x * block.y * block.z, order(),
        [&](unsigned i) { thread.thread = place_of(i, block); },
        [&] { kernel.entry(values); }};
    const unsigned long n_blocks = (unsigned long)grid.x * grid.y * grid.z;
    for (unsigned long i = 0; i < n_blocks; i++) {
        thread.block = place_of(threads.order == Order::backward ? n_blocks - 1 - i : i, grid);
        memset(module.shared, 0xff, (size_t)(module.shared_end - module.shared));
        memset(thread.dynamic_shared, 0xff, n_dynamic);
        const std::string problem = run_block(threads);
        if (problem.empty()) continue;
        fprintf(stderr, "emulated CUDA: kernel %s: a barrier in a branch: %s\n",
                kernel.name.c_str(), problem.c_str());
        FAIL(LAUNCH_FAILED, "kernel %s: a barrier in a branch: %s", kernel.name.c_str(),
             problem.c_str());
    }
    return SUCCESS;
}

}  // namespace

static const char* running_code() {
    static char text[200];
    if (!running) return "no kernel";
    const EmulatedPlace& block = running->module->thread->block;
    snprintf(text, sizeof text, "kernel %s, block %u %u %u, thread %u", running->name.c_str(),
             block.x, block.y, block.z, current_thread());
    return text;
}

API int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                       unsigned block_x, unsigned block_y, unsigned block_z, unsigned dynamic,
                       void*, void** values, void**) {
    NEEDS_CONTEXT;
    std::lock_guard<std::recursive_mutex> guard(one_launch);
    const Function& kernel = *(Function*)function;
    const unsigned long n_threads = (unsigned long)block_x * block_y * block_z;
    const bool grid_fits = grid_x && grid_y && grid_z && grid_x <= 2147483647u &&
                           grid_y <= 65535 && grid_z <= 65535;
    if (!grid_fits || !n_threads || n_threads > 1024 || block_z > 64)
        FAIL(INVALID_VALUE, "kernel %s: a grid of %u %u %u blocks of %u %u %u threads",
             kernel.name.c_str(), grid_x, grid_y, grid_z, block_x, block_y, block_z);
    const size_t fixed = (size_t)(kernel.module->shared_end - kernel.module->shared);
    if (dynamic + fixed > SHARED_MEMORY)
        FAIL(LAUNCH_OUT_OF_RESOURCES, "kernel %s: %zu bytes of shared memory", kernel.name.c_str(),
             dynamic + fixed);
    counts().launch(kernel.name);
    running = &kernel;
    const int result = run(kernel, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, dynamic,
                           values);
    running = nullptr;
    return result;
}
