// A team of threads that runs one function at a time, each thread on its own share.
//
// A training step consists of some thirty short pieces of work, so what matters is how threads
// wait for each other. They pause a little (nothing is lost on a quiet machine), then offer their
// core to others, then sleep: a sleeping thread's core is free for one of the team that another
// process has pushed aside, which a thread that waits in a loop would keep waiting. And a share
// whose thread has not come in time is the caller's.
#pragma once
#include <functional>

namespace team {

// Number of threads, 1 to 256. Only one caller at a time may use the team.
int size();
void resize(int n_threads);

// Calls work(t, n) once for each t = 0 .. n - 1, on the team's threads; returns when all are done.
void run(const std::function<void(int, int)>& work);

// The t-th of n shares of `total` things, in multiples of `unit`: [begin, end).
struct Share {
    long begin, end;
};
Share share(long total, int t, int n, long unit = 1);

}  // namespace team
