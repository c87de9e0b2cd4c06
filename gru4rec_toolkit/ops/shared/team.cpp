#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <atomic>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() asm volatile("yield")
#else
#define PAUSE() std::atomic_signal_fence(std::memory_order_seq_cst)
#endif

namespace team {
namespace {

// some 50 and 100 microseconds; the parts of a step that one thread does alone are shorter
constexpr int PAUSES = 2000, YIELDS = 200;
constexpr long SLEEP_NANOSECONDS = 50000;
constexpr int MOST_THREADS = 256;

std::atomic<int> n_threads{1};
int n_started = 0;  // threads beside the caller's
int n_wanted = 0;   // at most, after some could not be started
Job job;
std::atomic<long> call{0};
std::atomic<int> n_left{0};  // shares of the present call that are not done
// per share: the latest call in which a thread took it; call - 1 while it can still be taken
std::atomic<long> taken[MOST_THREADS];

template <class Condition>
void wait_until(Condition condition) {
    for (int tries = 0; !condition(); tries++) {
        if (tries < PAUSES) {
            PAUSE();
        } else if (tries < PAUSES + YIELDS) {
            sched_yield();
        } else {
            struct timespec nap = {0, SLEEP_NANOSECONDS};
            nanosleep(&nap, nullptr);
        }
    }
}

// Does share t of a call unless another thread has taken it.
void try_share(int t, long of_call) {
    long before = of_call - 1;
    // a thread that comes too late for a call fails here: the share is of that call or a later one
    if (!taken[t].compare_exchange_strong(before, of_call, std::memory_order_acq_rel)) return;
    job.function(job.work, t, n_threads);
    n_left.fetch_sub(1, std::memory_order_acq_rel);
}

// One of the threads beside the caller's, and the latest call that it has nothing to do with.
struct Worker {
    int t;
    long seen;
};

void* work_on(void* argument) {
    auto [t, seen] = *static_cast<Worker*>(argument);
    delete static_cast<Worker*>(argument);
    for (;;) {
        wait_until([&] { return call.load(std::memory_order_acquire) != seen; });
        seen = call.load(std::memory_order_acquire);
        if (t < n_threads) try_share(t, seen);
    }
    return nullptr;
}

// The threads do not exist in a forked process: it starts its own.
void forget_threads() { n_started = 0; }

void start_threads() {
    static bool registered = false;
    if (!registered) pthread_atfork(nullptr, nullptr, forget_threads);
    registered = true;
    for (; n_started < n_wanted; n_started++) {
        pthread_t thread;
        auto* worker = new Worker{n_started + 1, call.load()};
        if (pthread_create(&thread, nullptr, work_on, worker)) {
            // a limit on processes or memory: the caller does more
            delete worker;
            n_wanted = n_started;
            return;
        }
        pthread_detach(thread);
    }
}

}  // namespace

int size() { return n_threads; }

void resize(int n) {
    n_threads = std::clamp(n, 1, MOST_THREADS);
    n_wanted = n_threads - 1;
    for (auto& share : taken) share = call.load();
}

void run(const Job& work) {
    if (n_threads == 1) return work.function(work.work, 0, 1);
    start_threads();
    job = work;
    n_left.store(n_threads, std::memory_order_relaxed);
    const long present = call.load(std::memory_order_relaxed) + 1;
    call.store(present, std::memory_order_release);
    // each thread has its own share, which its cache knows; those whose thread has not come by now
    // (another process has its core) are the caller's
    for (int t = 0; t < n_threads; t++) try_share(t, present);
    wait_until([] { return n_left.load(std::memory_order_acquire) == 0; });
}

Share share(long total, int t, int n, long unit) {
    const long units = (total + unit - 1) / unit;
    return {std::min(total, unit * (units * t / n)), std::min(total, unit * (units * (t + 1) / n))};
}

}  // namespace team
