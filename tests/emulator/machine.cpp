#include "onlooker.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#if defined __x86_64__ && !defined EMULATOR_UCONTEXT
#define OWN_SWITCH
#else
#include <ucontext.h>
#endif

namespace emulator {
namespace {

// ---- From one stack to another ----

#ifdef OWN_SWITCH

using Place = void*;

extern "C" void emulator_switch(Place* from, Place to);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

void go(Place& from, Place& to) { emulator_switch(&from, to); }

void begin(Place& place, char* top_of_stack, char*, void (*main)()) {
    void** top = (void**)top_of_stack;
    *--top = nullptr;  // where a function finds who called it
    *--top = (void*)main;
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    place = top;
}

#else

// Slower, since it asks the system for the mask of signals, but of every processor.
using Place = ucontext_t;

void go(Place& from, Place& to) { swapcontext(&from, &to); }

void begin(Place& place, char* top_of_stack, char* stack, void (*main)()) {
    getcontext(&place);
    place.uc_stack.ss_sp = stack;
    place.uc_stack.ss_size = top_of_stack - stack;
    place.uc_link = nullptr;
    makecontext(&place, main, 0);
}

#endif

// ---- Fibers ----

enum class Status : char { Ready, AtWarp, AtBlock, Done };

void wait(Meeting meeting);
void trap();
void access(const Thread& thread, const void* at, size_t bytes, int how, const void* from);

// What runs a block: fibers for as many threads as a block may have. Used by one thread of the host at a time.
struct Machine {
    Block block{};
    void (*call)(void**) = nullptr;
    void** args = nullptr;
    bool backwards = false, trapped = false;
    std::vector<unsigned char> dynamic;
    std::unique_ptr<Onlooker> looks;

    Machine() {
        const size_t bytes = STACKS + MOST_THREADS * sizeof(Thread);
        void* all = mmap(nullptr, bytes + STACKS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (all == MAP_FAILED) {
            perror("emulated: stacks");
            abort();
        }
        stacks = (char*)(((uintptr_t)all + STACKS - 1) & ~(uintptr_t)(STACKS - 1));
        places.resize(MOST_THREADS);
        block.machine = this;
        block.wait = wait;
        block.trap = trap;
        block.access = access;
        looks = onlooker(block);
    }

    Thread& thread(unsigned t) { return ((Thread*)(stacks + STACKS))[t]; }

    const char* run_block();
    void leave(Status why);

private:
    char* stacks;
    unsigned made = 0;  // stacks that have been begun
    std::vector<Place> places;
    Place home{};  // where a block is run from
    std::vector<Status> status;
    // The warp that is running, and how many of its threads are at a meeting.
    unsigned first = 0, last = 0, met = 0;

    void make(unsigned t);
    Place& after(unsigned t);
};

// The one that runs the fiber at hand.
Machine& machine() { return *(Machine*)self().block->machine; }

void wait(Meeting meeting) { machine().leave(meeting == Meeting::Warp ? Status::AtWarp : Status::AtBlock); }

void trap() {
    machine().trapped = true;
    machine().leave(Status::Done);
}

void access(const Thread& thread, const void* at, size_t bytes, int how, const void* from) {
    ((Machine*)thread.block->machine)->looks->see(thread, at, bytes, how, from);
}

void fiber_main() {
    for (;;) {
        machine().call(machine().args);
        machine().leave(Status::Done);
    }
}

void Machine::make(unsigned t) {
    char* stack = stacks + t * STACK;
    // Who needs more stack than there is comes to a page that is out of reach.
    const size_t page = sysconf(_SC_PAGESIZE);
    mprotect(stack, page, PROT_NONE);
    thread(t).block = &block;
    // Stacks that all began at the same distance from each other would share a few sets of the caches.
    begin(places[t], stack + STACK - 64 - t * 5 % 256 * 64, stack + page, fiber_main);
}

// Where to go from thread `t`: to the next one of its warp that can go on; from the last of a meeting to the first; or home.
Place& Machine::after(unsigned t) {
    if (trapped) return home;
    if (backwards) {
        while (t-- > first) {
            if (status[t] == Status::Ready) return places[t];
        }
    } else {
        while (++t < last) {
            if (status[t] == Status::Ready) return places[t];
        }
    }
    if (met != last - first) return home;
    met = 0;
    std::fill(&status[first], &status[first] + (last - first), Status::Ready);
    return places[backwards ? last - 1 : first];
}

void Machine::leave(Status why) {
    const unsigned t = self().flat;
    status[t] = why;
    met += why == Status::AtWarp;
    Place& to = after(t);
    if (&to != &places[t]) go(places[t], to);
}

// What is wrong with how the threads wait; null where all have come to the end, or one has trapped.
const char* Machine::run_block() {
    const unsigned count = block.count, warps = (count + WARP - 1) / WARP;
    const Index size = block.threads;
    for (; made < count; ++made) make(made);
    for (unsigned t = 0; t < count; ++t) {
        Thread& me = thread(t);
        me.index = {t % size.x, t / size.x % size.y, t / size.x / size.y};
        me.flat = t;
        me.shows = me.votes = me.barriers = me.orders = 0;
    }
    memset(block.votes, 0, sizeof block.votes);
    for (;;) {
        status.assign(count, Status::Ready);
        for (unsigned i = 0; i < warps; ++i) {
            // Each warp until its threads are at the block's barrier or at their end.
            first = (backwards ? warps - 1 - i : i) * WARP;
            last = std::min(first + WARP, count);
            met = 0;
            go(home, places[backwards ? last - 1 : first]);
            if (trapped) return nullptr;
            if (met > 0) return "a shuffle, or another meeting of a warp, that not all of its threads come to";
        }
        const unsigned done = std::count(status.begin(), status.end(), Status::Done);
        if (done == count) return nullptr;
        if (done > 0) return "a barrier that some threads have left behind";
    }
}

std::mutex lock;
std::vector<std::unique_ptr<Machine>> waiting;

}  // namespace

bool run(Function& function, Index blocks, Index threads, size_t dynamic, void** args) {
    std::unique_ptr<Machine> m;
    {
        std::lock_guard<std::mutex> guard(lock);
        if (!waiting.empty()) {
            m = std::move(waiting.back());
            waiting.pop_back();
        }
    }
    if (!m) m = std::make_unique<Machine>();
    if (m->looks) m->looks->begin(function);
    m->call = function.call;
    m->args = args;
    m->block.threads = threads;
    m->block.blocks = blocks;
    m->block.count = threads.x * threads.y * threads.z;
    for (unsigned z = 0; z < blocks.z; ++z) {
        for (unsigned y = 0; y < blocks.y; ++y) {
            for (unsigned x = 0; x < blocks.x; ++x) {
                m->block.index = {x, y, z};
                m->dynamic.assign(dynamic, 0xff);
                m->block.dynamic = m->dynamic.data();
                m->block.dynamic_bytes = dynamic;
                m->backwards = function.blocks++ % 2 == 1;
                if (const char* complaint = m->run_block()) {
                    fprintf(stderr, "emulated: %s: %s\n", function.name.c_str(), complaint);
                    abort();
                }
                if (m->trapped) {
                    // Its fibers are where they were: it is not used again.
                    m.release();
                    return false;
                }
            }
        }
    }
    if (m->looks) m->looks->end();
    std::lock_guard<std::mutex> guard(lock);
    waiting.push_back(std::move(m));
    return true;
}

}  // namespace emulator
