// libnvrtc: compiles CUDA C++ with g++ into a library, and with the real NVRTC, whose errors count.
// The "PTX" has the version and target of the real one, and names the library.
#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <regex>
#include <set>
#include <sstream>
#include <vector>

#include "settings.h"

#define API extern "C" __attribute__((visibility("default")))

namespace {

enum Result { SUCCESS = 0, INVALID_OPTION = 5, COMPILATION = 6, INTERNAL_ERROR = 11 };

struct Program {
    std::string source, log, ptx;
    std::vector<std::string> headers, names;  // the headers' texts and names
};

std::string read(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

// ---------------------------------------------------------------------------- the real NVRTC

template <class F>
F real(const char* name) {
    static void* library = [] {
        const std::string path = setting("NVRTC");
        void* loaded =
            path.empty() ? nullptr : dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
        if (!path.empty() && !loaded) report("the real NVRTC cannot be loaded: %s", dlerror());
        return loaded;
    }();
    return library ? (F)dlsym(library, name) : nullptr;
}

int compile_really(Program& program, const std::vector<const char*>& options) {
    typedef const char** Texts;
    auto create =
        real<int (*)(void**, const char*, const char*, int, Texts, Texts)>("nvrtcCreateProgram");
    if (!create) return SUCCESS;
    std::vector<const char*> headers, names;
    for (auto& header : program.headers) headers.push_back(header.c_str());
    for (auto& name : program.names) names.push_back(name.c_str());
    void* handle;
    int result = create(&handle, program.source.c_str(), nullptr, (int)headers.size(),
                        headers.data(), names.data());
    if (result) return result;
    result = real<int (*)(void*, int, Texts)>("nvrtcCompileProgram")(
        handle, (int)options.size(), const_cast<Texts>(options.data()));
    auto text = [&](const std::string& what) {
        size_t size = 0;
        real<int (*)(void*, size_t*)>(("nvrtcGet" + what + "Size").c_str())(handle, &size);
        std::string all(size, '\0');
        real<int (*)(void*, char*)>(("nvrtcGet" + what).c_str())(handle, &all[0]);
        return std::string(all.c_str());
    };
    program.log = text("ProgramLog");
    if (!result) program.ptx = text("PTX");
    real<int (*)(void**)>("nvrtcDestroyProgram")(&handle);
    return result;
}

std::string real_version() {
    int major = 0, minor = 0;
    auto version = real<int (*)(int*, int*)>("nvrtcVersion");
    if (version) version(&major, &minor);
    return std::to_string(major) + "." + std::to_string(minor);
}

// ---------------------------------------------------------------------------- g++

void replace(std::string& text, const std::string& old, const std::string& by) {
    for (size_t at = 0; (at = text.find(old, at)) != std::string::npos; at += by.size())
        text.replace(at, old.size(), by);
}

// What no header can make C++: dynamic shared memory, and libgpuarray's assembly of float16.
std::string in_cpp(const Program& program, const std::string& capability) {
    std::string text = program.source;
    for (size_t i = 0; i < program.headers.size(); i++)
        for (auto quotes : {"\"\"", "<>"})
            replace(text, std::string("#include ") + quotes[0] + program.names[i] + quotes[1],
                    program.headers[i]);
    static const std::regex dynamic("extern\\s+__shared__\\s+([\\w ]+?)\\s+(\\w+)\\[\\];");
    text = std::regex_replace(text, dynamic, "$1 *$2 = ($1 *)emulated.dynamic_shared;");
    static const std::regex assembly("asm\\(\"\\{ cvt\\.[^;]*; \\}[^;]*;");
    text = std::regex_replace(text, assembly, "emulated_no_half();");
    std::string entries;
    static const std::regex kernel(
        "(?:KERNEL|__global__)\\s+(?:__launch_bounds__\\s*\\([^)]*\\)\\s*)?void\\s+(\\w+)\\s*\\(");
    std::set<std::string> names;
    for (std::sregex_iterator i(program.source.begin(), program.source.end(), kernel), end;
         i != end; ++i)
        names.insert((*i)[1]);
    for (auto& name : names) entries += "EMULATED_ENTRY(" + name + ")\n";
    return "#define __CUDA_ARCH__ " + capability + "0\n" + text + "\nEMULATED_LIBRARY\n" + entries;
}

std::string quoted(const std::string& text) {
    std::string result = text;
    replace(result, "'", "'\\''");
    return "'" + result + "'";
}

// Make the library whole or not at all, since other processes may do the same.
bool compile_for_host(Program& program, const std::string& capability, const std::string& base) {
    const std::string own = base + "." + std::to_string(getpid());
    std::ofstream(own + ".cpp") << in_cpp(program, capability);
    const std::string directory = setting("DIRECTORY");
    const std::string command = setting("COMPILE") + " -include " +
                                quoted(directory + "/prelude.h") + " -o " + quoted(own + ".so") +
                                " " + quoted(own + ".cpp") + " 2> " + quoted(own + ".log");
    const bool compiled = !system(command.c_str());
    if (!compiled) program.log += "g++ for the emulator: " + read(own + ".log");
    if (compiled) rename((own + ".so").c_str(), (base + ".so").c_str());
    for (auto suffix : {".cpp", ".log"}) unlink((own + suffix).c_str());
    return compiled;
}

std::string option_capability(const std::vector<const char*>& options) {
    for (std::string option : options)
        for (std::string word : {"compute_", "sm_"}) {
            const size_t at = option.find(word);
            if (at != std::string::npos) return option.substr(at + word.size());
        }
    return "52";  // NVRTC's default
}

std::string line_with(const std::string& text, const std::string& word) {
    const size_t at = text.find("\n" + word);
    return at == std::string::npos ? "" : text.substr(at + 1, text.find('\n', at + 1) - at);
}

int compile(Program& program, const std::vector<const char*>& options) {
    std::string all = real_version() + setting("COMPILE") + program.source;
    for (auto& header : program.headers) all += header;
    for (auto& option : options) all += std::string("\n") + option;
    char key[20];
    snprintf(key, sizeof key, "%016zx", std::hash<std::string>()(all));
    const std::string base = setting("CACHE", ".") + "/" + key;
    program.ptx = read(base + ".ptx");
    if (!program.ptx.empty()) return SUCCESS;

    const std::string capability = option_capability(options);
    const int result = compile_really(program, options);
    if (result) {
        report("the real NVRTC refuses a source (%d): %.500s", result, program.log.c_str());
        return result;
    }
    if (program.ptx.empty())  // without the real one: the version that CUDA 12.9's writes
        program.ptx = "\n.version 8.8\n.target sm_" + capability + "\n";
    if (!compile_for_host(program, capability, base)) {
        report("%.900s", program.log.c_str());
        return INTERNAL_ERROR;
    }
    program.ptx = line_with(program.ptx, ".version") + line_with(program.ptx, ".target") +
                  "// emulated kernels: " + key + "\n";
    const std::string own = base + "." + std::to_string(getpid());
    std::ofstream(own) << program.ptx;
    rename(own.c_str(), (base + ".ptx").c_str());
    return SUCCESS;
}

}  // namespace

API const char* nvrtcGetErrorString(int result) {
    switch (result) {
        case SUCCESS: return "NVRTC_SUCCESS";
        case INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
        case COMPILATION: return "NVRTC_ERROR_COMPILATION";
        default: return "NVRTC_ERROR_INTERNAL_ERROR";
    }
}
API int nvrtcVersion(int* major, int* minor) {
    return sscanf(real_version().c_str(), "%d.%d", major, minor), SUCCESS;
}
API int nvrtcGetNumSupportedArchs(int* n) {
    auto asked = real<int (*)(int*)>("nvrtcGetNumSupportedArchs");
    return asked ? asked(n) : (*n = 2, (int)SUCCESS);
}
API int nvrtcGetSupportedArchs(int* architectures) {
    auto asked = real<int (*)(int*)>("nvrtcGetSupportedArchs");
    if (asked) return asked(architectures);
    architectures[0] = 50, architectures[1] = 121;  // CUDA 12.9's oldest and newest
    return SUCCESS;
}
API int nvrtcCreateProgram(Program** program, const char* source, const char*, int n,
                           const char** headers, const char** names) {
    *program = new Program{source, "", "", {headers, headers + n}, {names, names + n}};
    return SUCCESS;
}
API int nvrtcDestroyProgram(Program** program) {
    delete *program;
    return *program = nullptr, SUCCESS;
}
API int nvrtcCompileProgram(Program* program, int n, const char** options) {
    return compile(*program, {options, options + n});
}
API int nvrtcGetProgramLogSize(Program* program, size_t* n) {
    return *n = program->log.size() + 1, SUCCESS;
}
API int nvrtcGetProgramLog(Program* program, char* text) {
    return memcpy(text, program->log.c_str(), program->log.size() + 1), SUCCESS;
}
API int nvrtcGetPTXSize(Program* program, size_t* n) {
    return *n = program->ptx.size() + 1, SUCCESS;
}
API int nvrtcGetPTX(Program* program, char* text) {
    return memcpy(text, program->ptx.c_str(), program->ptx.size() + 1), SUCCESS;
}
