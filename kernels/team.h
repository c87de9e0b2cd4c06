// A team of threads that runs one function at a time, each thread on its own share.
//
// A training step consists of some thirty short pieces of work, so what matters is how a thread
// waits for the next one: it pauses a little (nothing is lost on a quiet machine), then offers its
// core to others (a busy machine is not fought with), then sleeps (between training and idle).
#pragma once
#include <functional>

namespace team {

// Number of threads, 1 and more. Only one caller at a time may use the team.
int size();
void resize(int n_threads);

// Calls work(t, n) for t = 0 .. n - 1, one call a thread, and returns when all are done.
void run(const std::function<void(int, int)>& work);

// The t-th of n shares of `total` things, in multiples of `unit`: [begin, end).
struct Share {
    long begin, end;
};
Share share(long total, int t, int n, long unit = 1);

}  // namespace team
