// The threads of a block as fibers: they run one after the other and change places at barriers.
#pragma once
#include <functional>
#include <string>

enum class Order { forward, backward, rotated };

struct Block {
    unsigned n_threads;
    Order order;
    std::function<void(unsigned)> enter;  // is called whenever a thread starts or goes on
    std::function<void()> run;            // the thread that was entered last, to its end
};

// Run a block; returns what is wrong with its barriers, an empty text if nothing is.
std::string run_block(const Block& block);

// Wait, as the thread that runs, for all others.
void wait_at_barrier(int place);

// The thread that runs.
unsigned current_thread();
