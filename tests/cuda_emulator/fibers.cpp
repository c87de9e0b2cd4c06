#include "fibers.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <stdexcept>
#include <vector>

namespace {

// One fiber runs threads that meet no barrier one after the other. At a barrier it keeps its thread,
// and another fiber takes the next ones.
struct Fiber {
    jmp_buf state;
    ucontext_t context;
    unsigned thread = 0;
    int place = 0;
    bool waits = false, entered = false;
};

const size_t STACK = 256 << 10;
jmp_buf scheduler;
ucontext_t first_return;
Fiber* current;
std::vector<Fiber*> idle;

const Block* the_block;
unsigned n_started, n_ended, rotation;

unsigned in_order(unsigned i) {
    const unsigned n = the_block->n_threads;
    if (the_block->order == Order::backward) return n - 1 - i;
    return the_block->order == Order::rotated ? (i + rotation) % n : i;
}

// setjmp and longjmp are twenty times as fast as swapcontext, which asks the kernel for signals.
void back_to_scheduler() {
    if (!_setjmp(current->state)) _longjmp(scheduler, 1);
}

void fiber_main() {
    for (;;) {
        while (n_started < the_block->n_threads) {
            current->thread = in_order(n_started++);
            the_block->enter(current->thread);
            the_block->run();
            n_ended++;
            if (n_started == the_block->n_threads) break;
        }
        current->waits = false;
        back_to_scheduler();
    }
}

Fiber* new_fiber() {
    Fiber* fiber = new Fiber;
    void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) throw std::runtime_error("no memory for a fiber");
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = stack;
    fiber->context.uc_stack.ss_size = STACK;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, fiber_main, 0);
    return fiber;
}

void go_on(Fiber* fiber) {
    current = fiber;
    if (_setjmp(scheduler)) return;
    if (fiber->entered) _longjmp(fiber->state, 1);
    fiber->entered = true;
    swapcontext(&first_return, &fiber->context);
}

Fiber* take_idle() {
    if (idle.empty()) return new_fiber();
    Fiber* fiber = idle.back();
    idle.pop_back();
    return fiber;
}

std::string problem_of(const std::vector<Fiber*>& waiting) {
    if (n_ended)
        return std::to_string(waiting.size()) + " threads wait, " + std::to_string(n_ended) +
               " have ended";
    for (Fiber* fiber : waiting)
        if (fiber->place != waiting[0]->place)
            return "thread " + std::to_string(waiting[0]->thread) + " waits at barrier " +
                   std::to_string(waiting[0]->place) + ", thread " +
                   std::to_string(fiber->thread) + " at barrier " + std::to_string(fiber->place);
    return "";
}

void run_until_barrier(Fiber* fiber, std::vector<Fiber*>& waiting) {
    go_on(fiber);
    (fiber->waits ? waiting : idle).push_back(fiber);
}

}  // namespace

void wait_at_barrier(int place) {
    Fiber* self = current;
    self->place = place;
    self->waits = true;
    back_to_scheduler();
    the_block->enter(self->thread);
}

unsigned current_thread() { return current ? current->thread : 0; }

std::string run_block(const Block& block) {
    static unsigned random = 1;
    the_block = &block;
    n_started = n_ended = 0;
    std::string problem;
    std::vector<Fiber*> waiting, before;
    for (bool first = true; first || !before.empty(); first = false) {
        random = random * 1664525u + 1013904223u;
        waiting.clear();
        if (first) {
            rotation = (random >> 8) % block.n_threads;
            while (n_started < block.n_threads) run_until_barrier(take_idle(), waiting);
        } else {
            // the first phase has put them into the order of the block
            const size_t start = block.order == Order::rotated ? (random >> 8) % before.size() : 0;
            for (size_t i = 0; i < before.size(); i++)
                run_until_barrier(before[(i + start) % before.size()], waiting);
        }
        if (problem.empty() && !waiting.empty()) problem = problem_of(waiting);
        before.swap(waiting);
    }
    return problem;
}
