// How much of what warps move is what their threads ask for (EMULATED_COUNT=1).
#pragma once

#include "onlooker.h"

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace emulator {

class Traffic : public Onlooker {
public:
    using Onlooker::Onlooker;
    void begin(const Function& function) override;
    void see(const Thread& thread, const void* at, size_t bytes, int how, const void* from) override;
    void end() override;

    // Of a place in a kernel, or of all of them.
    struct Count {
        size_t requests = 0;  // of warps
        size_t least = 0, moved = 0;  // bytes of sectors; of shared memory turns that a request takes

        void add(const Count& more) { requests += more.requests, least += more.least, moved += more.moved; }
    };

private:
    // What the lanes of a warp ask for with one instruction.
    struct Request {
        uintptr_t at[WARP];
        uint32_t lanes = 0;
        uint16_t bytes = 0;
    };
    // The requests from one place of the code since the warp last met: its lanes come one after the other, so that what the nth
    // lane asks for at the kth time belongs to the kth request.
    struct Place {
        std::vector<Request> requests;
        uint32_t times[WARP] = {};
        bool shared = false, writes = false;
        Count count;
    };
    struct Turn {
        uint32_t block, warp, barriers, orders, shows, votes;

        bool operator==(const Turn& other) const;
    };
    // Sectors of a page of memory, a bit each.
    struct Page {
        uint64_t read[2], written[2];
    };

    Turn turn{};
    std::unordered_map<const void*, Place> places;
    std::vector<Place*> asked;  // in this turn
    std::pair<const void*, Place*> last{};
    std::unordered_map<uintptr_t, Page> pages;
    std::pair<uintptr_t, Page*> last_page{};

    void finish();
    void of_memory(Place& place, const Request& request);
    void of_shared(Place& place, const Request& request);
};

}  // namespace emulator
