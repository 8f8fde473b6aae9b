// What the threads of a kernel do to memory, looked at one access after the other (EMULATED_CHECK=1).
#pragma once

#include "onlooker.h"

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace emulator {

class Accesses : public Onlooker {
public:
    explicit Accesses(const Block& block);
    void begin(const Function& function) override;
    void see(const Thread& thread, const void* at, size_t bytes, int how, const void* from) override;
    void end() override;

private:
    enum class Who : uint8_t { Nobody, Thread, Warp, Warps, Blocks };

    // An access, or the last ones of several threads between which nothing was ordered.
    struct Access {
        const void* from = nullptr;
        uint32_t block = 0, barriers = 0, orders = 0;
        uint16_t thread = 0;
        Who who = Who::Nobody;
        bool atomic = false;

        bool before(const Access& now) const;
        void join(const Access& now);
    };
    // What happened to some bytes: the last write, and what was read since.
    struct Cell {
        Access write, read;
    };
    struct Page {
        uintptr_t number;
        uint64_t launch = 0;
        Range block{};    // of the device's memory
        unsigned shift = 2;  // cells of 4 bytes, and of 1 once something smaller is accessed
        std::vector<Cell> cells;
    };

    uint64_t launch = 0;
    size_t looked_at = 0;
    std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
    std::vector<Page*> recent;

    Page& page(uintptr_t byte, bool of_shared);
    void complain(const Access& now, bool writes, uintptr_t at, size_t bytes, const char* why, const Access* other);
};

}  // namespace emulator
