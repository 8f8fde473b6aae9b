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

// How memory is accessed: sums of these.
enum { WRITES = 1, ATOMIC = 2, MISALIGNED = 4 };

struct Thread;

struct Block {
    Index index, threads, blocks;
    unsigned count;  // of its threads
    void* machine;
    void (*wait)(Meeting);
    void (*trap)();
    // Every access of a kernel that is compiled for an onlooker: to where, from which place of the code, and how.
    void (*access)(const Thread& thread, const void* at, size_t bytes, int how, const void* from);
    // What the threads of a warp show each other, in two places by turns: who is late may still read the last.
    alignas(16) unsigned char shown[2][MOST_THREADS][16];
    // Of the block's votes: one that is read, one that is counted, one that is cleared.
    int votes[3];
    // The shared memory whose size a launch gives.
    unsigned char* dynamic;
    size_t dynamic_bytes;
};

struct Thread {
    Index index;
    unsigned flat;  // its number in the block
    unsigned shows, votes;
    // The barriers of the block, and the meetings that order the memory of its warp, that it has come to.
    unsigned barriers, orders;
    Block* block;
};

// A thread is a fiber, which is known by the stack that it runs on. The stacks of all fibers of a machine lie side by side, from a multiple
// of their size on; the threads themselves follow them.
constexpr size_t STACK = 256 << 10, STACKS = MOST_THREADS * STACK;

inline __attribute__((always_inline)) uintptr_t first_stack() { return (uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)(STACKS - 1); }
inline __attribute__((always_inline)) Thread& self() {
    const uintptr_t first = first_stack();
    return ((Thread*)(first + STACKS))[((uintptr_t)__builtin_frame_address(0) - first) / STACK];
}

}  // namespace emulator
