// Runs the blocks of a kernel, one after the other.
#pragma once

#include "thread.h"

#include <atomic>
#include <string>
#include <vector>

namespace emulator {

// Where the code of a module lies.
struct Object {
    std::string path;
    uintptr_t first = 0, last = 0;
    size_t shared = 0, shared_module = 0;  // bytes of its shared memory, and the name that threads of the host have for it
};

struct Function {
    std::string name;
    void (*call)(void** args);
    const Object* object = nullptr;
    std::vector<size_t> parameters;  // their sizes
    // Every second block of all its launches runs backwards.
    std::atomic<unsigned> blocks{0};
    // The most shared memory that a launch may ask for, until an attribute raises it.
    size_t dynamic = 48 << 10;
};

// False where a thread has trapped. Ends the process where threads wait for what never comes.
bool run(Function& function, Index blocks, Index threads, size_t dynamic, void** args);

}  // namespace emulator
