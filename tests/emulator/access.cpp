// Finds, whatever the order in which threads happen to run:
//
// - memory of the block or of the device that one thread writes and another one accesses, without a barrier between them (of one warp:
//   without __syncwarp; shuffles and votes order nothing). Between blocks of a launch nothing is ordered; atomic operations agree with
//   each other;
// - shared memory that is read before a thread of the block has written it;
// - accesses beside the device's blocks, beside the shared memory, and such that are not aligned as their type asks.
//
// What is wrong is said once for each pair of places, with their files and lines where addr2line is found; a process that has complained
// ends with status 66.
#include "access.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <unistd.h>
#include <utility>

namespace emulator {
namespace {

constexpr size_t PAGE = 4096, RECENT = 16384, MOST_PAGES = 16384;

// ---- Complaints ----

std::atomic<size_t> complaints{0}, all_looked_at{0};

struct AtTheEnd {
    ~AtTheEnd() {
        if (!checking()) return;
        if (all_looked_at > 0) fprintf(stderr, "emulated: %zu accesses were looked at\n", all_looked_at.load());
        if (complaints == 0) return;
        fprintf(stderr, "emulated: %zu places access memory as they may not\n", complaints.load());
        fflush(nullptr);
        _exit(66);
    }
} at_the_end;

}  // namespace

// ---- Order ----

// Whether all that this stands for has happened when `now` does.
bool Accesses::Access::before(const Access& now) const {
    if (who == Who::Nobody) return true;
    if (who == Who::Blocks || block != now.block) return false;
    if (barriers < now.barriers) return true;
    if (who == Who::Warps || thread / WARP != now.thread / WARP) return false;
    return orders < now.orders || (who == Who::Thread && thread == now.thread);
}

// Adds a reading. What is ordered before it need not be kept: whatever is ordered after it is ordered after both.
void Accesses::Access::join(const Access& now) {
    if (before(now)) {
        *this = now;
    } else if (who == Who::Blocks || block != now.block) {
        who = Who::Blocks;
    } else if (who == Who::Warps || thread / WARP != now.thread / WARP) {
        who = Who::Warps;
    } else {
        who = Who::Warp;
    }
}

// ---- Memory ----

Accesses::Accesses(const Block& block) : Onlooker(block), recent(RECENT) {}

void Accesses::begin(const Function& of) {
    Onlooker::begin(of);
    ++launch;
}

void Accesses::end() {
    all_looked_at += std::exchange(looked_at, 0);
    if (pages.size() <= MOST_PAGES) return;
    pages.clear();
    std::fill(recent.begin(), recent.end(), nullptr);
}

Accesses::Page& Accesses::page(uintptr_t byte, bool of_shared) {
    const uintptr_t number = byte / PAGE;
    Page*& slot = recent[number % RECENT];
    if (slot && slot->number == number && slot->launch == launch) return *slot;
    auto& known = pages[number];
    if (!known) known = std::make_unique<Page>();
    if (known->launch != launch) {
        known->number = number;
        known->launch = launch;
        known->shift = 2;
        known->cells.assign(PAGE / 4, {});
        // No two blocks of the device share a page.
        known->block = of_shared ? Range{} : block_at(byte);
    }
    slot = known.get();
    return *slot;
}

void Accesses::see(const Thread& thread, const void* to, size_t bytes, int how, const void* from) {
    const uintptr_t at = (uintptr_t)to;
    ++looked_at;
    const Access now{from, number(), thread.barriers, thread.orders, (uint16_t)thread.flat, Who::Thread, (how & ATOMIC) != 0};
    const bool writes = how & WRITES;
    const auto complain = [&](const char* why, const Access* other) { this->complain(now, writes, at, bytes, why, other); };
    if (how & MISALIGNED) return complain("which is not aligned", nullptr);
    const bool of_shared = is_shared(at, bytes);
    if (!of_shared && is_constant(at)) {
        if (writes) complain("which is constant", nullptr);
        return;
    }
    for (uintptr_t byte = at; byte < at + bytes;) {
        Page& in = page(byte, of_shared);
        const uintptr_t end = std::min(at + bytes, (byte / PAGE + 1) * PAGE);
        if (!of_shared && !in.block.holds(byte, end - byte)) {
            complain("which is beside every block of the device", nullptr);
            return;
        }
        if (in.shift == 2 && (byte % 4 != 0 || end % 4 != 0)) {
            std::vector<Cell> fine(PAGE);
            for (size_t i = 0; i < PAGE; ++i) fine[i] = in.cells[i / 4];
            in.cells = std::move(fine);
            in.shift = 0;
        }
        for (; byte < end; byte += (uintptr_t)1 << in.shift) {
            Cell& cell = in.cells[byte % PAGE >> in.shift];
            if (of_shared && cell.write.who != Who::Nobody && cell.write.block != now.block) cell = {};
            if (!(cell.write.atomic && now.atomic) && !cell.write.before(now)) {
                complain("unordered with a write", &cell.write);
            } else if (writes && !cell.read.before(now)) {
                complain("unordered with a read", &cell.read);
            } else if (of_shared && !writes && cell.write.who == Who::Nobody) {
                complain("which no thread of the block has written", nullptr);
            }
            if (writes) {
                cell = {now, {}};
            } else {
                cell.read.join(now);
            }
        }
    }
}

void Accesses::complain(const Access& now, bool writes, uintptr_t at, size_t bytes, const char* why, const Access* other) {
    static std::mutex lock;
    static std::set<std::pair<const void*, const void*>> known;
    std::lock_guard<std::mutex> guard(lock);
    if (!known.insert({now.from, other ? other->from : nullptr}).second) return;
    ++complaints;
    const auto line = [&](const Access& of) { return line_of(*function->object, of.from); };
    fprintf(stderr, "emulated: %s: thread %u of block %u %s %zu bytes of %s (%s), %s", function->name.c_str(), now.thread, now.block,
            writes ? "writes" : "reads", bytes, is_shared(at, bytes) ? "shared memory" : "memory", line(now).c_str(), why);
    if (other) fprintf(stderr, " by thread %u of block %u (%s)", other->thread, other->block, line(*other).c_str());
    fprintf(stderr, "\n");
}

}  // namespace emulator
