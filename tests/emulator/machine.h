// Runs the blocks of a kernel, one after the other.
#pragma once

#include "thread.h"

#include <atomic>
#include <string>

namespace emulator {

struct Function {
    std::string name;
    void (*call)(void** args);
    // Every second block of all its launches runs backwards.
    std::atomic<unsigned> blocks{0};
    // The most shared memory that a launch may ask for, until an attribute raises it.
    size_t dynamic = 48 << 10;
};

// False where a thread has trapped. Ends the process where threads wait for what never comes.
bool run(Function& function, Index blocks, Index threads, size_t dynamic, void** args);

}  // namespace emulator
