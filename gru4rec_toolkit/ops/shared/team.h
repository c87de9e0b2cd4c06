// A team of threads that runs one function at a time, each thread on its own share.
//
// A training step consists of some thirty short pieces of work, so what matters is how threads
// wait for each other. They pause a little (nothing is lost on a quiet machine), then sleep: a
// sleeping thread's core is free for one of the team that another process has pushed aside, which a
// thread that waits in a loop would keep waiting. A share whose thread has not come in time is the
// caller's, and a thread that finds itself on another's core moves to one of its own.
#pragma once

namespace team {

// Number of threads, 1 to 256. Only one caller at a time may use the team.
int size();
void resize(int n_threads);

// A function of a share's number and the number of shares, and what it works on.
struct Job {
    void (*function)(const void* work, int t, int n);
    const void* work;
};
void run(const Job& job);

// Calls work(t, n) once for each t = 0 .. n - 1, on the team's threads; returns when all are done.
template <class Work>
void run(const Work& work) {
    // not a std::function: its header takes longer to compile than most kernels
    run(Job{[](const void* w, int t, int n) { (*static_cast<const Work*>(w))(t, n); }, &work});
}

// How many threads are the fastest for work on so many floats: all of them, or one.
inline int size_for(long n_floats) { return n_floats < 8192 ? 1 : size(); }

// The same by as many threads.
template <class Work>
void run(long n_floats, const Work& work) {
    if (size_for(n_floats) == 1) return work(0, 1);
    run(work);
}

// The t-th of n shares of `total` things, in multiples of `unit`: [begin, end).
struct Share {
    long begin, end;
};
Share share(long total, int t, int n, long unit = 1);

// Calls work(first row, row after the last) for shares of m rows of `width` numbers.
template <class Work>
void run_by_rows(long m, long width, const Work& work) {
    run(m * width, [&](int t, int n) {
        const Share s = share(m, t, n);
        work(s.begin, s.end);
    });
}

}  // namespace team
