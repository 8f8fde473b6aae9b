// Who looks at each access of a kernel to memory: access.h for what is wrong, traffic.h for what it costs.
#pragma once

#include "emulator.h"
#include "machine.h"

#include <cstdint>
#include <memory>
#include <string>

namespace emulator {

// Of one launch at a time, whose blocks run one after the other.
class Onlooker {
public:
    explicit Onlooker(const Block& block) : block(block) {}
    virtual ~Onlooker() = default;
    virtual void begin(const Function& function);
    virtual void see(const Thread& thread, const void* at, size_t bytes, int how, const void* from) = 0;
    virtual void end() = 0;

protected:
    const Block& block;
    const Function* function = nullptr;

    uint32_t number() const { return (block.index.z * block.blocks.y + block.index.y) * block.blocks.x + block.index.x; }
    bool is_shared(uintptr_t at, size_t bytes) const;
    // What the module has beside its code: tables.
    bool is_constant(uintptr_t at) const;

private:
    Range shared{};  // whose size is known when a kernel is compiled
};

// The one that EMULATED_CHECK or EMULATED_COUNT asks for.
std::unique_ptr<Onlooker> onlooker(const Block& block);

// Where a module lies that was loaded from this file.
Object object_of(const char* path);
// The line of a kernel, and those that it was inlined to.
std::string line_of(const Object& object, const void* from);

}  // namespace emulator
