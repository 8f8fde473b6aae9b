// Memory moves in sectors of 32 bytes, and a warp's request takes as many as its lanes touch; shared memory answers a request in as many turns as
// the busiest of its 32 banks has different words for it. For each kernel and for each line of it this counts what its requests take
// beside the least that would do for what they ask, and the sectors that its launches touch at all: what memory has to move if all that
// is asked for again is found in a cache. A process says it at its end, the most wasteful kernels first.
//
// Kernels are compiled without optimisation, so that a load of 16 bytes stays one. Something that is read twice is counted twice even where the GPU's
// compiler would keep it. Lanes that go through a loop a different number of times are taken to be together from its beginning.
#include "traffic.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <tuple>

namespace emulator {
namespace {

constexpr size_t SECTOR = 32, PAGE = 4096, BANKS = 32;

// ---- Of all launches ----

struct Line {
    std::string text;
    bool shared, writes;

    bool operator<(const Line& other) const { return std::tie(text, shared, writes) < std::tie(other.text, other.shared, other.writes); }
};
struct Kernel {
    size_t launches = 0, read = 0, written = 0;
    std::map<Line, Traffic::Count> lines;

    Traffic::Count all(bool shared) const {
        Traffic::Count sum;
        for (auto& [line, count] : lines) {
            if (line.shared == shared) sum.add(count);
        }
        return sum;
    }
};

double ratio(const Traffic::Count& count) { return count.least ? (double)count.moved / count.least : 1; }

struct All {
    std::mutex lock;
    std::map<std::string, Kernel> kernels;
    std::map<std::pair<std::string, uintptr_t>, std::string> lines;

    ~All() {
        std::vector<std::pair<size_t, const std::string*>> order;
        for (auto& [name, kernel] : kernels) order.push_back({kernel.all(false).moved - kernel.all(false).least, &name});
        std::sort(order.rbegin(), order.rend());
        for (auto& [excess, name] : order) say(*name, kernels[*name]);
    }

    static void say(const std::string& name, const Kernel& kernel) {
        const auto memory = kernel.all(false), shared = kernel.all(true);
        fprintf(stderr, "emulated: %s, launches: %zu. Memory: %zu bytes read and %zu written, %zu asked for, %zu moved (%.2f)", name.c_str(),
                kernel.launches, kernel.read, kernel.written, memory.least, memory.moved, ratio(memory));
        if (shared.requests) fprintf(stderr, ". Shared memory: %zu turns, %zu at least (%.2f)", shared.moved, shared.least, ratio(shared));
        fprintf(stderr, "\n");
        std::vector<std::pair<size_t, const Line*>> order;
        for (auto& [line, count] : kernel.lines) {
            if (count.moved > count.least) order.push_back({count.moved - count.least, &line});
        }
        std::sort(order.rbegin(), order.rend());
        for (auto& [excess, line] : order) {
            const auto& count = kernel.lines.at(*line);
            fprintf(stderr, "emulated:     %s %s at %s: requests: %zu, %s: %zu, %zu at least (%.2f)\n", line->writes ? "writes" : "reads",
                    line->shared ? "shared memory" : "memory", line->text.c_str(), count.requests, line->shared ? "turns" : "bytes",
                    count.moved, count.least, ratio(count));
        }
    }
} all;

}  // namespace

// ---- Of one launch ----

bool Traffic::Turn::operator==(const Turn& other) const {
    return block == other.block && warp == other.warp && barriers == other.barriers && orders == other.orders && shows == other.shows &&
           votes == other.votes;
}

void Traffic::begin(const Function& of) {
    Onlooker::begin(of);
    places.clear();
    pages.clear();
    last = {};
    last_page = {};
}

void Traffic::see(const Thread& thread, const void* to, size_t bytes, int how, const void* from) {
    const uintptr_t at = (uintptr_t)to;
    if (how & MISALIGNED) return;
    const bool shared = is_shared(at, bytes);
    if (!shared && is_constant(at)) return;
    const Turn now{number(), thread.flat / WARP, thread.barriers, thread.orders, thread.shows, thread.votes};
    if (!(now == turn)) {
        finish();
        turn = now;
    }
    if (last.first != from) last = {from, &places[from]};
    Place& place = *last.second;
    if (place.requests.empty()) asked.push_back(&place);
    place.shared = shared;
    place.writes = how & WRITES;
    const unsigned lane = thread.flat % WARP, time = place.times[lane]++;
    if (place.requests.size() <= time) place.requests.resize(time + 1);
    Request& request = place.requests[time];
    request.at[lane] = at;
    request.lanes |= 1u << lane;
    request.bytes = std::max<size_t>(request.bytes, bytes);
}

void Traffic::finish() {
    for (Place* place : asked) {
        for (const auto& request : place->requests) place->shared ? of_shared(*place, request) : of_memory(*place, request);
        place->requests.clear();
        std::fill(place->times, place->times + WARP, 0);
    }
    asked.clear();
}

void Traffic::of_memory(Place& place, const Request& request) {
    uintptr_t at[WARP];
    size_t lanes = 0, bytes = 0, sectors = 0;
    for (unsigned lane = 0; lane < WARP; ++lane) {
        if (request.lanes >> lane & 1) at[lanes++] = request.at[lane];
    }
    if (!std::is_sorted(at, at + lanes)) std::sort(at, at + lanes);
    uintptr_t counted = 0, next = 0;  // the first byte and the first sector that have not been counted
    for (size_t i = 0; i < lanes; ++i) {
        const uintptr_t end = at[i] + request.bytes, first = std::max(at[i], counted);
        if (end <= first) continue;
        bytes += end - first;
        counted = end;
        for (uintptr_t sector = std::max(first / SECTOR, next); sector <= (end - 1) / SECTOR; ++sector) {
            ++sectors;
            next = sector + 1;
            const uintptr_t page = sector / (PAGE / SECTOR), bit = sector % (PAGE / SECTOR);
            if (!last_page.second || last_page.first != page) last_page = {page, &pages[page]};
            (place.writes ? last_page.second->written : last_page.second->read)[bit / 64] |= (uint64_t)1 << bit % 64;
        }
    }
    place.count.add({1, (bytes + SECTOR - 1) / SECTOR * SECTOR, sectors * SECTOR});
}

void Traffic::of_shared(Place& place, const Request& request) {
    // Lanes that ask for 8 or 16 bytes come in two or four groups.
    const unsigned groups = request.bytes <= 4 ? 1 : std::min<unsigned>(request.bytes / 4, WARP), lanes = WARP / groups;
    Count count{1};
    for (unsigned group = 0; group < groups; ++group) {
        std::vector<uintptr_t> words[BANKS];
        size_t all = 0, turns = 0;
        for (unsigned lane = group * lanes; lane < (group + 1) * lanes; ++lane) {
            if (!(request.lanes >> lane & 1)) continue;
            for (uintptr_t word = request.at[lane] / 4; word <= (request.at[lane] + request.bytes - 1) / 4; ++word) {
                auto& bank = words[word % BANKS];
                if (std::find(bank.begin(), bank.end(), word) != bank.end()) continue;
                bank.push_back(word);
                ++all;
                turns = std::max(turns, bank.size());
            }
        }
        count.least += (all + BANKS - 1) / BANKS;
        count.moved += turns;
    }
    place.count.add(count);
}

void Traffic::end() {
    finish();
    std::lock_guard<std::mutex> guard(all.lock);
    Kernel& kernel = all.kernels[function->name];
    ++kernel.launches;
    for (auto& [number, page] : pages) {
        for (int half = 0; half < 2; ++half) {
            kernel.read += SECTOR * __builtin_popcountll(page.read[half]);
            kernel.written += SECTOR * __builtin_popcountll(page.written[half]);
        }
    }
    for (auto& [from, place] : places) {
        const Object& object = *function->object;
        auto& line = all.lines[{object.path, (uintptr_t)from - object.first}];
        if (line.empty()) line = line_of(object, from);
        kernel.lines[{line, place.shared, place.writes}].add(place.count);
    }
}

}  // namespace emulator
