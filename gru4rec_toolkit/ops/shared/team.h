// A team of threads that runs one function at a time, each thread on its own share.
//
// A training step consists of some thirty short pieces of work, so what matters is how threads
// wait for each other. They pause a little (nothing is lost on a quiet machine), then take naps: a
// sleeping thread's core is free for one of the team that another process has pushed aside, which a
// thread that waits in a loop would keep waiting. After a millisecond they sleep until they are
// woken: a process that does something else has no thread that runs. A share whose thread has not
// come in time is the caller's, and a thread that finds itself on another's core moves to one of its
// own.
#pragma once

namespace team {

// Number of threads, 1 to 256. Only one caller at a time may use the team.
int size();
void resize(int n_threads);

// What a thread more costs a call, and what the fastest loops take, on one thread, for a number that
// they compute and for a multiply-add of a matrix product.
constexpr double NANOSECONDS_A_THREAD = 100;
constexpr double NANOSECONDS_A_NUMBER = 0.25, NANOSECONDS_A_TERM = 0.02;

// How many threads are the fastest for work that takes one of them so many nanoseconds, where each
// more costs some: it has to be told and waited for, and what it has found may have to be added.
int size_for(double nanoseconds, double a_thread = NANOSECONDS_A_THREAD);

// The same for so many numbers to be computed; one thread for a few.
int size_for_numbers(long n, double a_thread = NANOSECONDS_A_THREAD);

// A function of a share's number and the number of shares, and what it works on.
struct Job {
    void (*function)(const void* work, int t, int n);
    const void* work;
};
void run(int n_shares, const Job& job);

// Calls work(t, n) once for each t = 0 .. n - 1, on n threads of the team; returns when all are done.
template <class Work>
void run(int n, const Work& work) {
    if (n == 1) return work(0, 1);
    // not a std::function: its header takes longer to compile than most kernels
    run(n, Job{[](const void* w, int t, int n) { (*static_cast<const Work*>(w))(t, n); }, &work});
}

// A model of more cores than there are: the caller does all shares, one after the other. Says how
// many nanoseconds threads on cores of their own would have saved since it was last asked, where a
// piece of work takes as long as its longest share and its threads cost what they do in `size_for`.
void simulate(bool on);
double nanoseconds_saved();

// The t-th of n shares of `total` things, in multiples of `unit`: [begin, end).
struct Share {
    long begin, end;
};
Share share(long total, int t, int n, long unit = 1);

// Calls work(first row, row after the last) for shares of m rows of `width` numbers.
template <class Work>
void run_by_rows(long m, long width, const Work& work) {
    run(size_for_numbers(m * width), [&](int t, int n) {
        const Share s = share(m, t, n);
        work(s.begin, s.end);
    });
}

}  // namespace team
