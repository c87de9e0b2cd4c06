// libcuda: modules, which are libraries of kernels, and launches.
// "PTX" is what compiler.cpp writes: its version and target, and the name of a library.
#include <dlfcn.h>
#include <stdint.h>

#include <mutex>
#include <vector>

#include "driver.h"
#include "fibers.h"
#include "kernel_abi.h"

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
std::recursive_mutex one_launch;
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

const char* running_code() {
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
