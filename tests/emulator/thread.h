// What the threads of a block share with the machine that runs them; also for kernels, which are compiled on their own.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

constexpr unsigned MOST_THREADS = 1024, WARP = 32;

struct Index {
    unsigned x, y, z;
};

enum class Meeting { Warp, Block };

struct Block {
    Index index, threads, blocks;
    unsigned count;  // of its threads
    void* machine;
    void (*wait)(Meeting);
    void (*trap)();
    // What the threads of a warp show each other, in two places by turns: who is late may still read the last.
    alignas(16) unsigned char shown[2][MOST_THREADS][16];
    // Of the block's votes: one that is read, one that is counted, one that is cleared.
    int votes[3];
    // The shared memory whose size a launch gives.
    unsigned char* dynamic;
};

struct Thread {
    Index index;
    unsigned flat;  // its number in the block
    unsigned shows, votes;
    Block* block;
};

// A thread is a fiber, which is known by the stack that it runs on. The stacks of all fibers of a machine lie side by side, from a multiple
// of their size on; the threads themselves follow them.
constexpr size_t STACK = 256 << 10, STACKS = MOST_THREADS * STACK;

inline __attribute__((always_inline)) Thread& self() {
    const uintptr_t here = (uintptr_t)__builtin_frame_address(0), first = here & ~(uintptr_t)(STACKS - 1);
    return ((Thread*)(first + STACKS))[(here - first) / STACK];
}

}  // namespace emulator
