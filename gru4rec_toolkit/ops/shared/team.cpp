#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cmath>
#include <utility>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() asm volatile("yield")
#else
#define PAUSE() std::atomic_signal_fence(std::memory_order_seq_cst)
#endif

namespace team {
namespace {

// What a thread does while it waits, before it sleeps: pauses, and turns that it offers to others.
struct Patience {
    int pauses, yields;
};

// Some 0.3 ms, longer than what one thread does alone in a step. Whoever is offered a turn keeps the
// core for milliseconds, even at the lowest priority; so turns are offered only where the team's own
// threads are waiting for them, after some 50 microseconds.
constexpr Patience ON_OWN_CORES = {10000, 0}, ON_SHARED_CORES = {2000, 200};
constexpr long NAP_NANOSECONDS = 50000, BETWEEN_MOVES_NANOSECONDS = 1000000;
// naps of a thread before it sleeps until it is woken, which costs the caller more
constexpr int NAPS = 20;
constexpr int MOST_THREADS = 256;
// a team of so many shares out whatever is worth two threads
constexpr int SMALL_TEAM = 8;
// numbers for which one thread is the fastest
constexpr long FEW_NUMBERS = 8192;

std::atomic<int> n_threads{1};
int n_started = 0;  // threads beside the caller's
int n_wanted = 0;   // at most, after some could not be started
std::atomic<bool> own_cores{true};  // whether there are as many processors as threads
// the processor of each thread, when it last had something to do; the caller's is the first
std::atomic<int> processors[MOST_THREADS];
Job job;
// the present call: its number and how many shares it has, in one so that they are read together
constexpr long CALLS = 2 * MOST_THREADS;
std::atomic<long> call{0};
int shares_of(long of_call) { return of_call % CALLS; }
std::atomic<int> n_left{0};  // shares of the present call that are not done
bool simulated = false;
double saved = 0;  // nanoseconds
// per share: the latest call in which a thread took it; an earlier one while it can still be taken
std::atomic<long> taken[MOST_THREADS];

long nanoseconds() {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

// Returns whether the condition holds; false after so many naps.
template <class Condition>
bool wait_until(Condition condition, int most_naps) {
    const Patience patience = own_cores ? ON_OWN_CORES : ON_SHARED_CORES;
    for (int pauses = 0; pauses < patience.pauses; pauses++) {
        if (condition()) return true;
        PAUSE();
    }
    for (int yields = 0; yields < patience.yields; yields++) {
        if (condition()) return true;
        sched_yield();
    }
    for (int naps = 0; naps < most_naps; naps++) {
        if (condition()) return true;
        struct timespec nap = {0, NAP_NANOSECONDS};
        nanosleep(&nap, nullptr);
    }
    return condition();
}

// Threads that sleep until they are woken: all those of a process that does something else.
std::atomic<int> n_asleep{0};
pthread_mutex_t sleepers = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t woken = PTHREAD_COND_INITIALIZER;

void sleep_until_called(long seen) {
    pthread_mutex_lock(&sleepers);
    n_asleep++;  // before it looks at the call, as the caller looks after it has written it
    while (call.load() == seen) pthread_cond_wait(&woken, &sleepers);
    n_asleep--;
    pthread_mutex_unlock(&sleepers);
}

void wake_sleepers() {
    if (n_asleep.load() == 0) return;
    pthread_mutex_lock(&sleepers);
    pthread_cond_broadcast(&woken);
    pthread_mutex_unlock(&sleepers);
}

// Does share t of a call unless another thread has taken it; tells whether it did.
bool try_share(int t, long of_call) {
    long before = taken[t].load(std::memory_order_relaxed);
    // a thread that comes too late for a call fails here: no call ends before all of its shares are
    // taken
    if (before >= of_call) return false;
    if (!taken[t].compare_exchange_strong(before, of_call, std::memory_order_acq_rel)) return false;
    job.function(job.work, t, shares_of(of_call));
    n_left.fetch_sub(1, std::memory_order_acq_rel);
    return true;
}

// Says on which processor thread t is; writes only what is new, since all threads read it.
int note_processor(int t) {
    const int here = sched_getcpu();
    if (processors[t].load(std::memory_order_relaxed) != here)
        processors[t].store(here, std::memory_order_relaxed);
    return here;
}

// Moves thread t to another processor if it shares its own with another thread of the team.
//
// The scheduler leaves a thread that has slept on its processor, or puts it on that of the thread
// that wakes it, whenever no processor is idle: beside another process, even of the lowest priority,
// two threads of the team would stay on one core.
void leave_shared_core(int t) {
    static thread_local long moved = 0;
    const int here = note_processor(t);
    bool shared = false;
    for (int u = 0; u < t; u++) shared |= processors[u].load(std::memory_order_relaxed) == here;
    if (!shared) return;
    const long now = nanoseconds();
    if (now - moved < BETWEEN_MOVES_NANOSECONDS) return;
    moved = now;
    cpu_set_t allowed, others;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return;  // more processors than it holds
    others = allowed;
    for (int u = 0; u < n_threads; u++) {
        const int there = processors[u].load(std::memory_order_relaxed);
        if (u != t && there >= 0 && there < CPU_SETSIZE) CPU_CLR(there, &others);
    }
    if (CPU_COUNT(&others) == 0) return;
    // the first call moves it, the second lets it go wherever it may afterwards
    if (sched_setaffinity(0, sizeof others, &others)) return;
    sched_setaffinity(0, sizeof allowed, &allowed);
    note_processor(t);
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
        auto is_called = [&] { return call.load(std::memory_order_acquire) != seen; };
        if (!wait_until(is_called, NAPS)) sleep_until_called(seen);
        seen = call.load(std::memory_order_acquire);
        if (t >= shares_of(seen)) continue;
        // too late: something keeps it from its turn
        if (!try_share(t, seen)) leave_shared_core(t);
        note_processor(t);
    }
    return nullptr;
}

void simulate_run(int n_shares, const Job& work) {
    long longest = 0, sum = 0;
    for (int t = 0; t < n_shares; t++) {
        const long start = nanoseconds();
        work.function(work.work, t, n_shares);
        const long spent = nanoseconds() - start;
        longest = std::max(longest, spent);
        sum += spent;
    }
    saved += sum - longest - n_shares * NANOSECONDS_A_THREAD;
}

// The threads do not exist in a forked process: it starts its own.
void forget_threads() {
    n_started = 0;
    n_asleep = 0;
    sleepers = PTHREAD_MUTEX_INITIALIZER;
    woken = PTHREAD_COND_INITIALIZER;
}

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
    cpu_set_t allowed;
    own_cores = sched_getaffinity(0, sizeof allowed, &allowed) || n_threads <= CPU_COUNT(&allowed);
    for (auto& share : taken) share = call.load();
}

int size_for(double nanoseconds, double a_thread) {
    if (n_threads <= SMALL_TEAM) return n_threads;
    // n threads take nanoseconds / n + n * a_thread
    const double fastest = std::sqrt(nanoseconds / a_thread);
    return std::clamp(fastest, double(SMALL_TEAM), double(n_threads));
}

int size_for_numbers(long n, double a_thread) {
    return n < FEW_NUMBERS ? 1 : size_for(NANOSECONDS_A_NUMBER * n, a_thread);
}

void simulate(bool on) { simulated = on; }

double nanoseconds_saved() { return std::exchange(saved, 0); }

void run(int n_shares, const Job& work) {
    if (simulated) return simulate_run(n_shares, work);
    start_threads();
    note_processor(0);
    job = work;
    n_left.store(n_shares, std::memory_order_relaxed);
    const long before = call.load(std::memory_order_relaxed);
    const long present = before - shares_of(before) + CALLS + n_shares;
    call.store(present);
    wake_sleepers();
    // each thread has its own share, which its cache knows; those whose thread has not come by now
    // (another process has its core) are the caller's
    for (int t = 0; t < n_shares; t++) try_share(t, present);
    wait_until([] { return n_left.load(std::memory_order_acquire) == 0; }, INT_MAX);
}

Share share(long total, int t, int n, long unit) {
    const long units = (total + unit - 1) / unit;
    return {std::min(total, unit * (units * t / n)), std::min(total, unit * (units * (t + 1) / n))};
}

}  // namespace team
