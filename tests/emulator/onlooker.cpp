// Kernels are compiled with -fsanitize=thread,alignment, which puts a call before each access; kernel.h sends it here instead of to the compiler's
// library, which knows nothing of blocks and warps.
#include "access.h"
#include "traffic.h"

#include <algorithm>
#include <cstring>
#include <link.h>

// Of the C library: where the calling thread has the memory of a module that each thread has for itself.
extern "C" void* __tls_get_addr(size_t*);

namespace emulator {
namespace {

// Looks for the object whose path is that of `to`.
int visit(dl_phdr_info* of, size_t, void* to) {
    Object& object = *(Object*)to;
    if (object.path != of->dlpi_name) return 0;
    object.first = of->dlpi_addr;
    for (int i = 0; i < of->dlpi_phnum; ++i) {
        const auto& part = of->dlpi_phdr[i];
        if (part.p_type == PT_LOAD) object.last = std::max<uintptr_t>(object.last, of->dlpi_addr + part.p_vaddr + part.p_memsz);
        if (part.p_type == PT_TLS) object.shared = part.p_memsz, object.shared_module = of->dlpi_tls_modid;
    }
    return 1;
}

}  // namespace

Object object_of(const char* path) {
    Object object{path};
    dl_iterate_phdr(visit, &object);
    return object;
}

std::string line_of(const Object& object, const void* from) {
    char command[512], text[1024];
    const size_t offset = (uintptr_t)from - 1 - object.first;
    snprintf(command, sizeof command, "addr2line -i -s -e %s 0x%zx 2>/dev/null", object.path.c_str(), offset);
    std::string lines;
    if (FILE* out = popen(command, "r")) {
        while (fgets(text, sizeof text, out)) {
            text[strcspn(text, " \n")] = 0;
            if (text[0] != '?') lines += (lines.empty() ? "" : " < ") + std::string(text);
        }
        pclose(out);
    }
    return lines.empty() ? "an unknown line" : lines;
}

std::unique_ptr<Onlooker> onlooker(const Block& block) {
    if (checking()) return std::make_unique<Accesses>(block);
    if (counting()) return std::make_unique<Traffic>(block);
    return nullptr;
}

void Onlooker::begin(const Function& of) {
    function = &of;
    // Where the calling thread of the host has it.
    size_t place[] = {of.object->shared_module, 0};
    shared = of.object->shared ? Range{(uintptr_t)__tls_get_addr(place), of.object->shared} : Range{};
}

bool Onlooker::is_shared(uintptr_t at, size_t bytes) const {
    return shared.holds(at, bytes) || Range{(uintptr_t)block.dynamic, block.dynamic_bytes}.holds(at, bytes);
}

bool Onlooker::is_constant(uintptr_t at) const { return at - function->object->first < function->object->last - function->object->first; }

}  // namespace emulator
