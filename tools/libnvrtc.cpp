// The library that libgpuarray finds under the name libnvrtc.so: NVRTC itself but for one function.
//
// libgpuarray has room for two digits of an architecture, and asks for compute_12 on a card of
// compute capability 12.0. Here the driver is asked for the card, and NVRTC for the architectures
// that it knows; assembly for an older one is compiled on by the driver.
//
// NVRTC is the path of NVIDIA's library, which this one is linked with.

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

extern "C" int nvrtcGetNumSupportedArchs(int* number);
extern "C" int nvrtcGetSupportedArchs(int* architectures);

namespace {

// CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
constexpr int MAJOR = 75, MINOR = 76;

// Returns the compute capability of the card in use, 120 for 12.0; 0 where the driver says nothing.
int card() {
  void* driver = dlopen("libcuda.so", RTLD_LAZY | RTLD_NOLOAD);  // libgpuarray has loaded it
  if (driver == nullptr) return 0;
  auto device_of_context = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuCtxGetDevice"));
  auto attribute =
      reinterpret_cast<int (*)(int*, int, int)>(dlsym(driver, "cuDeviceGetAttribute"));
  int device = 0, major = 0, minor = 0;
  bool failed = device_of_context == nullptr || attribute == nullptr ||
                device_of_context(&device) != 0 || attribute(&major, MAJOR, device) != 0 ||
                attribute(&minor, MINOR, device) != 0;
  dlclose(driver);
  return failed ? 0 : 10 * major + minor;
}

// Returns the newest architecture that NVRTC knows and the card can run; 0 if there is none.
int architecture(int card) {
  int number = 0, newest = 0;
  if (nvrtcGetNumSupportedArchs(&number) != 0 || number <= 0) return 0;
  std::vector<int> known(number);
  if (nvrtcGetSupportedArchs(known.data()) != 0) return 0;
  for (int arch : known)
    if (arch <= card) newest = std::max(newest, arch);
  return newest;
}

}  // namespace

extern "C" int nvrtcCompileProgram(void* program, int n_options, const char* const* options) {
  static auto compile = reinterpret_cast<int (*)(void*, int, const char* const*)>(
      dlsym(dlopen(NVRTC, RTLD_NOW), "nvrtcCompileProgram"));
  std::vector<const char*> named(options, options + n_options);
  char name[32];
  int found = architecture(card());
  std::snprintf(name, sizeof name, "compute_%d", found);
  for (int i = 1; i < n_options && found > 0; ++i)
    if (std::strcmp(named[i - 1], "-arch") == 0) named[i] = name;
  return compile(program, n_options, named.data());
}
