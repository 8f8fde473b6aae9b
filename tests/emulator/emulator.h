// A GPU of the host: the functions of libcuda, libnvrtc, libcublas and libcusolver that the CUDA backend calls, for tests of its kernels
// and of what is around them on machines without a GPU. Kernels are compiled by the host's C++ compiler; the threads of a block are
// fibers that take turns and meet at barriers and shuffles. It is for numbers, not for speed. Everything has happened when a call returns,
// or, so that whoever does not wait shows, nothing before somebody waits for it (EMULATED_LATE=1).
//
//     EMULATED_DEVICES=n     how many devices there are (2)
//     EMULATED_MEMORY=bytes  the memory of each (8 GiB)
//     EMULATED_IDLE=1        kernels, products and factorisations are not executed: for counting memory and launches
//     EMULATED_TRACE=1       a line on the standard error for each launch, product, factorisation, transfer and wait
//     EMULATED_CHECK=1       every access to memory is looked at, some 30 times slower: see access.cpp
//     EMULATED_COUNT=1       what requests to memory take is counted, for each line of the kernels: see traffic.cpp
//     EMULATED_LATE=1        what goes into a stream is executed once somebody waits for it
//     EMULATED_KEEP=1        folders of kernels that do not compile stay in /tmp
//     CXX, EMULATED_CXXFLAGS the compiler of kernels, and its options (c++, -O1; -O0 for counting)
//
// What it finds beside wrong numbers: memory is NaN until it is written, and out of reach once it is freed; blocks of memory end where
// memory does, so that whatever goes past them ends in a fault; threads of a block run in the order of their numbers in one block and
// against it in the next, so that a barrier that is missing shows; a barrier or shuffle that some threads do not come to ends the process
// with the kernel's name; calls need the context, the stream and the blocks of one device.
//
//     machine.cpp   the threads of a block: thread.h is what they share with kernels, kernel.h what kernels see
//     driver.cpp    libcuda: devices, memory, copies, modules, launches
//     onlooker.cpp  who looks at accesses to memory: access.cpp for what threads may not do, traffic.cpp for what requests take
//     compiler.cpp  libnvrtc
//     blas.cpp      libcublas: matrix products
//     solver.cpp    libcusolver: textbook methods in doubles
//     check.cpp     its own test: `tests/emulator/check`
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>

#define API extern "C" __attribute__((visibility("default")))
#define TRACE(...)                                                       \
    do {                                                                 \
        if (emulator::tracing()) fprintf(stderr, "emulated: " __VA_ARGS__); \
    } while (0)

namespace emulator {

inline const char* setting(const char* name, const char* otherwise) {
    const char* value = getenv(name);
    return value && *value ? value : otherwise;
}
#define SWITCH(function, name)                               \
    inline bool function() {                                 \
        static const bool on = *setting(name, "0") == '1';   \
        return on;                                           \
    }
SWITCH(idle, "EMULATED_IDLE")
SWITCH(checking, "EMULATED_CHECK")
SWITCH(counting, "EMULATED_COUNT")
SWITCH(late, "EMULATED_LATE")
SWITCH(tracing, "EMULATED_TRACE")
inline bool looking() { return checking() || counting(); }

// ---- driver.cpp ----

// A device that was made ready; its address is also that of its one stream.
struct Device;

// The device of the calling thread; null where it has chosen none.
Device* current();
// The error that every call repeats after a kernel has failed; 0 before.
int failure();
// Does some work in the order of the stream of the calling thread's device: now, or once somebody waits for it. What the work says is
// what this does, as a CUresult or as the status of a library; of late work, which is over by then, that it failed is told by later calls.
int in_order(std::function<int()> work);
// Whether these bytes are in one block of the calling thread's device.
bool held(const void* from, size_t bytes);
// The block of the calling thread's device that has this byte; nothing, of size 0, where none has.
struct Range {
    uintptr_t first;
    size_t bytes;

    bool holds(uintptr_t at, size_t count) const {
        return first != 0 && at >= first && count <= bytes && at - first <= bytes - count;
    }
};
Range block_at(uintptr_t address);

// The handle of cuBLAS or cuSOLVER.
struct Library {
    Device* device;
};

}  // namespace emulator
