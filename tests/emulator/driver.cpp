#include "onlooker.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace emulator {

struct Device {
    int index;
    size_t used = 0;
    std::map<uint64_t, size_t> blocks;  // their sizes by their addresses
    // What its stream has not executed yet, and how much it was given and has executed.
    std::deque<std::function<int()>> waiting;
    uint64_t given = 0, done = 0;
};

// A place in a stream.
struct Event {
    Device* device = nullptr;
    uint64_t after = 0;
};

namespace {

// The numbers of CUresult.
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_FAILED = 719,
    UNKNOWN = 999,
};

constexpr int MOST_DEVICES = 16;
constexpr size_t MOST_DYNAMIC = 227 << 10;

Device all_devices[MOST_DEVICES];
std::mutex lock;  // of the blocks of all devices
std::atomic<int> failed{0};
thread_local Device* chosen = nullptr;
std::recursive_mutex executing;            // of all streams, where they are late
std::map<uint64_t, size_t> pinned;         // memory of the host that copies read and write when they are executed

int devices() { return std::clamp(atoi(setting("EMULATED_DEVICES", "2")), 0, MOST_DEVICES); }
size_t memory() { return strtoull(setting("EMULATED_MEMORY", "8589934592"), nullptr, 10); }
size_t page() { return sysconf(_SC_PAGESIZE); }

// What is wrong with a call on a stream; SUCCESS where nothing is.
int ready(const void* stream) {
    if (failed) return failed;
    if (!chosen) return INVALID_CONTEXT;
    return stream == chosen ? SUCCESS : INVALID_HANDLE;
}
int ready() { return ready(chosen); }

// Executes what a stream was given up to there.
void catch_up(Device& device, uint64_t until) {
    std::lock_guard<std::recursive_mutex> guard(executing);
    Device* before = std::exchange(chosen, &device);
    while (device.done < until) {
        const auto work = std::move(device.waiting.front());
        device.waiting.pop_front();
        ++device.done;
        if (work() != SUCCESS && !failed) failed = LAUNCH_FAILED;
    }
    chosen = before;
}

// Waits for all of a stream.
int finish(Device& device) { return catch_up(device, device.given), failed; }

// Which of these, by their first addresses, begins last before an address or there.
Range last_before(const std::map<uint64_t, size_t>& all, uint64_t address) {
    auto after = all.upper_bound(address);
    return after == all.begin() ? Range{} : Range{std::prev(after)->first, std::prev(after)->second};
}

bool is_pinned(const void* p, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    return last_before(pinned, (uint64_t)p).holds((uintptr_t)p, bytes);
}

// Holds `kept` until it is executed.
int copy(void* to, const void* from, size_t bytes, const void* stream, const void* on_device, std::shared_ptr<const void> kept = {}) {
    if (int error = ready(stream)) return error;
    if (!held(on_device, bytes)) return INVALID_VALUE;
    return in_order([=, kept = std::move(kept)] { return memmove(to, from, bytes), SUCCESS; });
}

}  // namespace

int in_order(std::function<int()> work) {
    if (!late()) return work();
    std::lock_guard<std::recursive_mutex> guard(executing);
    chosen->waiting.push_back(std::move(work));
    ++chosen->given;
    return SUCCESS;
}

Device* current() { return chosen; }
int failure() { return failed; }

Range block_at(uintptr_t address) {
    if (!chosen) return {};
    std::lock_guard<std::mutex> guard(lock);
    const Range block = last_before(chosen->blocks, address);
    return block.holds(address, 0) ? block : Range{};
}

bool held(const void* from, size_t bytes) { return block_at((uintptr_t)from).holds((uintptr_t)from, bytes); }

}  // namespace emulator

using namespace emulator;

// ---- Devices, streams, events ----

API int cuInit(unsigned) { return devices() > 0 ? SUCCESS : NO_DEVICE; }
API int cuDeviceGetCount(int* count) { return *count = devices(), SUCCESS; }
API int cuDeviceGet(int* device, int index) {
    return index >= 0 && index < devices() ? (*device = index, SUCCESS) : INVALID_DEVICE;
}
API int cuDeviceGetAttribute(int* value, int which, int) {
    // Compute capability 9.0 and the multiprocessors of an H100.
    *value = which == 75 ? 9 : which == 76 ? 0 : which == 16 ? 132 : 0;
    return SUCCESS;
}
API int cuDevicePrimaryCtxRetain(Device** context, int index) {
    *context = &all_devices[index];
    (*context)->index = index;
    return failed;
}
API int cuCtxSetCurrent(Device* context) { return chosen = context, failed; }
API int cuStreamCreate(Device** stream, unsigned) { return *stream = chosen, ready(); }
API int cuStreamSynchronize(void* stream) {
    TRACE("wait\n");
    if (int error = ready(stream)) return error;
    return finish(*chosen);
}
API int cuStreamWaitEvent(void* stream, const Event* event, unsigned) {
    if (int error = ready(stream)) return error;
    if (!event->device) return SUCCESS;
    return in_order([at = *event] { return catch_up(*at.device, at.after), SUCCESS; });
}
API int cuEventCreate(Event** event, unsigned) { return *event = new Event, ready(); }
API int cuEventRecord(Event* event, const void* stream) {
    if (int error = ready(stream)) return error;
    std::lock_guard<std::recursive_mutex> guard(executing);
    *event = {chosen, chosen->given};
    return SUCCESS;
}
API int cuEventQuery(const Event* event) {
    std::lock_guard<std::recursive_mutex> guard(executing);
    return failed ? (int)failed : event->device && event->device->done < event->after ? NOT_READY : SUCCESS;
}
API int cuEventSynchronize(const Event* event) {
    if (event->device) catch_up(*event->device, event->after);
    return failed;
}

// ---- Memory ----

// A block ends where a page ends, and the next page is out of reach.
API int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    if (int error = ready()) return error;
    if (bytes == 0) return INVALID_VALUE;
    std::lock_guard<std::mutex> guard(lock);
    if (bytes > memory() - chosen->used) return OUT_OF_MEMORY;
    const size_t whole = (bytes + 255) / 256 * 256, pages = (whole + page() - 1) / page() * page();
    char* p = (char*)mmap(nullptr, pages + page(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p, pages, PROT_READ | PROT_WRITE) != 0) return OUT_OF_MEMORY;
    char* begin = p + pages - whole;
    // Whoever reads what nobody wrote gets NaN; of large blocks, at their beginning.
    if (!idle()) memset(begin, 0xff, std::min(bytes, (size_t)64 << 20));
    chosen->used += bytes;
    chosen->blocks[(uint64_t)begin] = bytes;
    *address = (uint64_t)begin;
    return SUCCESS;
}
// The addresses stay taken, so that whoever still uses them does not meet another block.
API int cuMemFree_v2(uint64_t address) {
    if (int error = ready()) return error;
    if (int error = finish(*chosen)) return error;
    std::lock_guard<std::mutex> guard(lock);
    auto found = chosen->blocks.find(address);
    if (found == chosen->blocks.end()) return INVALID_VALUE;
    const uint64_t first = address / page() * page(), end = address + (found->second + 255) / 256 * 256;
    mmap((void*)first, end - first, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    chosen->used -= found->second;
    chosen->blocks.erase(found);
    return SUCCESS;
}
API int cuMemGetInfo_v2(size_t* free, size_t* all) {
    if (int error = ready()) return error;
    std::lock_guard<std::mutex> guard(lock);
    *all = memory(), *free = memory() - chosen->used;
    return SUCCESS;
}
API int cuMemAllocHost_v2(void** p, size_t bytes) {
    if (int error = ready()) return error;
    *p = malloc(bytes);
    std::lock_guard<std::mutex> guard(lock);
    pinned[(uint64_t)*p] = bytes;
    return SUCCESS;
}
API int cuMemFreeHost(void* p) {
    std::lock_guard<std::mutex> guard(lock);
    auto found = pinned.find((uint64_t)p);
    if (found == pinned.end()) return INVALID_VALUE;
    // A copy that is still to be executed meets NaN.
    if (late()) memset(p, 0xff, found->second);
    else free(p);
    pinned.erase(found);
    return SUCCESS;
}
// Memory that is not pinned is read before the call returns, and written too.
API int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    TRACE("upload %zu\n", bytes);
    if (!late() || is_pinned(from, bytes)) return copy((void*)to, from, bytes, stream, (void*)to);
    const auto kept = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + bytes);
    return copy((void*)to, kept->data(), bytes, stream, (void*)to, kept);
}
API int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    TRACE("download %zu\n", bytes);
    if (int error = copy(to, (void*)from, bytes, stream, (void*)from)) return error;
    return is_pinned(to, bytes) ? SUCCESS : finish(*chosen);
}
API int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    if (!held((void*)from, bytes)) return failed ? (int)failed : INVALID_VALUE;
    return copy((void*)to, (void*)from, idle() ? 0 : bytes, stream, (void*)to);
}
API int cuMemsetD8Async(uint64_t to, unsigned char byte, size_t bytes, void* stream) {
    if (int error = ready(stream)) return error;
    if (!held((void*)to, bytes)) return INVALID_VALUE;
    return in_order([=] { return memset((void*)to, byte, bytes), SUCCESS; });
}

// ---- Modules and launches ----

namespace {
struct Module {
    void* handle = nullptr;
    Object object;
};
}  // namespace

// The image is a shared object, as compiler.cpp made it.
API int cuModuleLoadData(Module** module, const void* image) {
    if (int error = ready()) return error;
    const unsigned char* elf = (const unsigned char*)image;
    if (memcmp(elf, "\x7f" "ELF", 4) != 0) return INVALID_IMAGE;
    // It ends with the table of its sections.
    uint64_t table;
    uint16_t entry, count;
    memcpy(&table, elf + 40, 8);
    memcpy(&entry, elf + 58, 2);
    memcpy(&count, elf + 60, 2);
    const size_t bytes = table + (size_t)entry * count;
    // Stays open: modules are told apart by its name, and it says which lines are meant.
    const int file = memfd_create("kernels", 0);
    if (file < 0 || write(file, image, bytes) != (ssize_t)bytes) return UNKNOWN;
    const std::string path = "/proc/self/fd/" + std::to_string(file);
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) fprintf(stderr, "emulated: %s\n", dlerror());
    static std::deque<Module> loaded;
    if (handle) {
        std::lock_guard<std::mutex> guard(lock);
        *module = &loaded.emplace_back();
        (*module)->handle = handle;
        (*module)->object = object_of(path.c_str());
    }
    return handle ? SUCCESS : INVALID_IMAGE;
}
API int cuModuleGetFunction(Function** function, Module* module, const char* name) {
    if (int error = ready()) return error;
    auto call = (void (*)(void**))dlsym(module->handle, (std::string("emulated_call_") + name).c_str());
    if (!call) return NOT_FOUND;
    auto describe = (size_t (*)(size_t*))dlsym(module->handle, (std::string("emulated_sizes_") + name).c_str());
    size_t sizes[64];
    *function = new Function{name, call, &module->object, {sizes, sizes + describe(sizes)}};
    return SUCCESS;
}
API int cuFuncSetAttribute(Function* function, int which, int value) {
    if (int error = ready()) return error;
    if (which != 8 || value < 0 || (size_t)value > MOST_DYNAMIC) return INVALID_VALUE;
    function->dynamic = value;
    return SUCCESS;
}
API int cuLaunchKernel(Function* function, unsigned bx, unsigned by, unsigned bz, unsigned tx, unsigned ty, unsigned tz, unsigned dynamic,
                       void* stream, void** args, void**) {
    if (int error = ready(stream)) return error;
    const uint64_t threads = (uint64_t)tx * ty * tz;
    TRACE("launch %s, %u x %u x %u blocks of %llu\n", function->name.c_str(), bx, by, bz, (unsigned long long)threads);
    if (threads == 0 || threads > MOST_THREADS || tz > 64 || bx == 0 || bx > 0x7fffffff || by == 0 || by > 65535 || bz == 0 ||
        bz > 65535 || dynamic > function->dynamic) {
        return INVALID_VALUE;
    }
    if (idle()) return SUCCESS;
    // The arguments are copied: who launches may forget them at once.
    std::vector<std::vector<char>> kept;
    for (size_t i = 0; i < function->parameters.size(); ++i) kept.emplace_back((char*)args[i], (char*)args[i] + function->parameters[i]);
    return in_order([=]() mutable {
        std::vector<void*> places;
        for (auto& one : kept) places.push_back(one.data());
        // What a kernel did wrong is told by the next call, and by every one after it.
        if (!run(*function, {bx, by, bz}, {tx, ty, tz}, dynamic, places.data())) failed = LAUNCH_FAILED;
        return SUCCESS;
    });
}

// ---- Errors ----

namespace {
const struct {
    int error;
    const char *name, *text;
} ERRORS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};
}  // namespace

API int cuGetErrorName(int error, const char** text) {
    for (auto& known : ERRORS) if (known.error == error) return *text = known.name, SUCCESS;
    return *text = nullptr, INVALID_VALUE;
}
API int cuGetErrorString(int error, const char** text) {
    for (auto& known : ERRORS) if (known.error == error) return *text = known.text, SUCCESS;
    return *text = nullptr, INVALID_VALUE;
}
