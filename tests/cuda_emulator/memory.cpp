#include "memory.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <mutex>

#include "settings.h"

namespace {

struct Buffer {
    size_t size;
    char* mapping;  // nullptr: of malloc, without guards
    size_t mapped;
};

std::recursive_mutex lock;
std::map<uintptr_t, Buffer> buffers;  // by the address
size_t used;
const char* (*describe_code)();

const size_t ALIGNMENT = 256;  // as cuMemAlloc's buffers have it

// Pages that nobody may touch lie at both ends, and the buffer at one of them: by default at the
// end, so that one index too far is caught; "before" catches what lies before its start.
Buffer guarded(size_t size, char*& start) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t whole = (size + page - 1) / page * page, mapped = whole + 2 * page;
    void* mapping =
        mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) return {0, nullptr, 0};
    char* inner = (char*)mapping + page;
    if (mprotect(inner, whole, PROT_READ | PROT_WRITE)) return {0, nullptr, 0};
    memset(inner, 0xff, whole);
    start = setting("GUARD", "after") == "before" ? inner : inner + whole - size;
    return {size, (char*)mapping, mapped};
}

// The buffer that an address out of bounds lies beside; for the message, in a process that ends.
void on_fault(int number, siginfo_t* info, void*) {
    const uintptr_t address = (uintptr_t)info->si_addr;
    for (auto& each : buffers) {
        const Buffer& b = each.second;
        const uintptr_t from = (uintptr_t)b.mapping;
        if (!b.mapping || address < from || address >= from + b.mapped) continue;
        const long beyond = (long)(address - each.first);
        report("%s: an access at byte %ld of a buffer of %zu bytes", describe_code(), beyond, b.size);
        fprintf(stderr, "emulated CUDA: %s: an access at byte %ld of a buffer of %zu bytes\n",
                describe_code(), beyond, b.size);
    }
    signal(number, SIG_DFL);  // the access is made again, and ends the process
}

}  // namespace

size_t device_memory() { return (size_t)number("MEMORY", 8192) << 20; }
size_t memory_in_use() { return used; }

char* allocate(size_t size) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (size > device_memory() - used) return nullptr;
    char* start = nullptr;
    Buffer buffer = {size, nullptr, 0};
    if (number("STRICT", 0)) {
        buffer = guarded(size, start);
    } else if (!posix_memalign((void**)&start, ALIGNMENT, size)) {
        memset(start, 0xff, size);  // NaN
    }
    if (!start) return nullptr;
    buffers[(uintptr_t)start] = buffer;
    used += size;
    return start;
}

bool release(char* start) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    auto found = buffers.find((uintptr_t)start);
    if (found == buffers.end()) return false;
    used -= found->second.size;
    if (found->second.mapping)
        munmap(found->second.mapping, found->second.mapped);
    else
        free(start);
    buffers.erase(found);
    return true;
}

bool is_on_device(const void* bytes, size_t size) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    auto next = buffers.upper_bound((uintptr_t)bytes);
    if (next == buffers.begin()) return false;
    --next;
    return (uintptr_t)bytes + size <= next->first + next->second.size;
}

void name_faults(const char* (*describe)()) {
    describe_code = describe;
    if (!number("STRICT", 0)) return;
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
}
