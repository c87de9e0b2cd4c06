#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#define PAUSE() _mm_pause()
#else
#define PAUSE() std::atomic_signal_fence(std::memory_order_seq_cst)
#endif

namespace team {
namespace {

constexpr int PAUSES = 500, YIELDS = 20000;
constexpr long SLEEP_NANOSECONDS = 50000;

int n_threads = 1;
int n_started = 0;  // threads beside the caller's
std::atomic<long> call{0};
std::atomic<int> n_running{0};
const std::function<void(int, int)>* job = nullptr;

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

void worker(int t, long seen) {
    for (;;) {
        wait_until([&] { return call.load(std::memory_order_acquire) != seen; });
        seen++;
        if (t < n_threads) (*job)(t, n_threads);
        n_running.fetch_sub(1, std::memory_order_acq_rel);
    }
}

// The threads do not exist in a forked process: it starts its own.
void forget_threads() {
    n_started = 0;
    n_running = 0;
}

void start_threads() {
    static bool registered = false;
    if (!registered) pthread_atfork(nullptr, nullptr, forget_threads);
    registered = true;
    while (n_started < n_threads - 1) std::thread(worker, ++n_started, call.load()).detach();
}

}  // namespace

int size() { return n_threads; }

void resize(int n) { n_threads = std::max(n, 1); }

void run(const std::function<void(int, int)>& work) {
    if (n_threads == 1) return work(0, 1);
    start_threads();
    job = &work;
    n_running.store(n_started, std::memory_order_relaxed);
    call.fetch_add(1, std::memory_order_release);
    work(0, n_threads);
    wait_until([] { return n_running.load(std::memory_order_acquire) == 0; });
}

Share share(long total, int t, int n, long unit) {
    const long units = (total + unit - 1) / unit;
    return {std::min(total, unit * (units * t / n)), std::min(total, unit * (units * (t + 1) / n))};
}

}  // namespace team
