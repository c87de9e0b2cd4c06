// Stands before oclgrind's OpenCL library (kernels_races.py): notes every kernel that is launched, and
// keeps all memory where KERNELS_KEEP is set. oclgrind tells memory by a number, which the next
// buffer gets once one is released, and takes what was written to the old one for written to the
// new one.
#include <dlfcn.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

namespace {

constexpr unsigned KERNEL_FUNCTION_NAME = 0x1190;  // CL_KERNEL_FUNCTION_NAME of CL/cl.h

// The function of this name in oclgrind's library.
template <class Function>
Function original(const char* name) {
    return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" int clReleaseMemObject(void* memory) {
    static const auto release = original<decltype(&clReleaseMemObject)>("clReleaseMemObject");
    return getenv("KERNELS_KEEP") ? 0 : release(memory);
}

extern "C" int clEnqueueNDRangeKernel(void* queue, void* kernel, unsigned axes,
                                      const size_t* offset, const size_t* threads,
                                      const size_t* in_group, unsigned n_events, void* events,
                                      void* event) {
    using Info = int (*)(void*, unsigned, size_t, void*, size_t*);
    static const auto info = original<Info>("clGetKernelInfo");
    static const auto launch = original<decltype(&clEnqueueNDRangeKernel)>("clEnqueueNDRangeKernel");
    static FILE* const launches = fopen(getenv("KERNELS_LAUNCHES"), "a");
    char name[256] = "";
    info(kernel, KERNEL_FUNCTION_NAME, sizeof name, name, nullptr);
    fprintf(launches, "%s\n", name);
    fflush(launches);
    return launch(queue, kernel, axes, offset, threads, in_group, n_events, events, event);
}
