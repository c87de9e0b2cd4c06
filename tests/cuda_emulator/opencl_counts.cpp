// A layer of ocl-icd (OPENCL_LAYERS) that counts launches and transfers as the emulator of CUDA does.
#include <CL/cl.h>
#include <CL/cl_layer.h>

#include <vector>

#include "counts.h"

#define API extern "C" __attribute__((visibility("default")))

static cl_icd_dispatch ours;
static const cl_icd_dispatch* theirs;

static Counts& counts() {
    static Counts* all = new Counts;
    return *all;
}

API const char* device_counts() { return counts().text(); }

static cl_int CL_API_CALL launch(cl_command_queue queue, cl_kernel kernel, cl_uint n,
                                 const size_t* offset, const size_t* sizes, const size_t* group,
                                 cl_uint n_events, const cl_event* events, cl_event* event) {
    size_t size = 0;
    theirs->clGetKernelInfo(kernel, CL_KERNEL_FUNCTION_NAME, 0, nullptr, &size);
    std::vector<char> name(size + 1);
    theirs->clGetKernelInfo(kernel, CL_KERNEL_FUNCTION_NAME, size, name.data(), nullptr);
    counts().launch(name.data());
    return theirs->clEnqueueNDRangeKernel(queue, kernel, n, offset, sizes, group, n_events, events,
                                          event);
}

static cl_int CL_API_CALL write(cl_command_queue queue, cl_mem buffer, cl_bool waits, size_t offset,
                                size_t size, const void* from, cl_uint n, const cl_event* events,
                                cl_event* event) {
    counts().up(size);
    return theirs->clEnqueueWriteBuffer(queue, buffer, waits, offset, size, from, n, events, event);
}

static cl_int CL_API_CALL read(cl_command_queue queue, cl_mem buffer, cl_bool waits, size_t offset,
                               size_t size, void* to, cl_uint n, const cl_event* events,
                               cl_event* event) {
    counts().down(size);
    return theirs->clEnqueueReadBuffer(queue, buffer, waits, offset, size, to, n, events, event);
}

static cl_int CL_API_CALL copy(cl_command_queue queue, cl_mem from, cl_mem to, size_t start,
                               size_t to_start, size_t size, cl_uint n, const cl_event* events,
                               cl_event* event) {
    counts().launch("(copy)");
    return theirs->clEnqueueCopyBuffer(queue, from, to, start, to_start, size, n, events, event);
}

API cl_int clGetLayerInfo(cl_layer_info what, size_t size, void* value, size_t* needed) {
    if (what != CL_LAYER_API_VERSION) return CL_INVALID_VALUE;
    if (needed) *needed = sizeof(cl_layer_api_version);
    if (value && size < sizeof(cl_layer_api_version)) return CL_INVALID_VALUE;
    if (value) *(cl_layer_api_version*)value = CL_LAYER_API_VERSION_100;
    return CL_SUCCESS;
}

API cl_int clInitLayer(cl_uint n, const cl_icd_dispatch* target, cl_uint* n_ours,
                       const cl_icd_dispatch** layer) {
    if (n < sizeof ours / sizeof ours.clGetPlatformIDs) return CL_INVALID_VALUE;
    theirs = target;
    ours = *target;
    ours.clEnqueueNDRangeKernel = launch;
    ours.clEnqueueWriteBuffer = write;
    ours.clEnqueueReadBuffer = read;
    ours.clEnqueueCopyBuffer = copy;
    *layer = &ours;
    *n_ours = sizeof ours / sizeof ours.clGetPlatformIDs;
    return CL_SUCCESS;
}
