// The emulator's own test: what kernels may use and none of the crate's does yet, and the faults that it has to find.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void**, int);
int cuCtxSetCurrent(void*);
int cuStreamSynchronize(void*);
int cuStreamWaitEvent(void*, void*, unsigned);
int cuEventCreate(void**, unsigned);
int cuEventRecord(void*, void*);
int cuEventQuery(void*);
int cuMemAllocHost_v2(void**, size_t);
int cuMemFreeHost(void*);
int cuMemAlloc_v2(uint64_t*, size_t);
int cuMemFree_v2(uint64_t);
int cuMemcpyHtoDAsync_v2(uint64_t, const void*, size_t, void*);
int cuMemcpyDtoHAsync_v2(void*, uint64_t, size_t, void*);
int cuModuleLoadData(void**, const void*);
int cuModuleGetFunction(void**, void*, const char*);
int cuFuncSetAttribute(void*, int, int);
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
int nvrtcCreateProgram(void**, const char*, const char*, int, const char* const*, const char* const*);
int nvrtcCompileProgram(void*, int, const char* const*);
int nvrtcGetCUBINSize(void*, size_t*);
int nvrtcGetCUBIN(void*, char*);
int nvrtcGetPTXSize(void*, size_t*);
int nvrtcGetPTX(void*, char*);
}

#define CHECK(what)                                                     \
    do {                                                                \
        if (!(what)) {                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);  \
            exit(1);                                                    \
        }                                                               \
    } while (0)

namespace {

const char* SOURCE = R"(
struct Two { double a, b; };
// 3 blocks of 70 threads: the last warp has 6.
extern "C" __global__ void __launch_bounds__(70) meetings(int* out, int* total, Two two) {
    const int t = threadIdx.x, at = (blockIdx.x * 70 + t) * 8;
    const unsigned all = 0xffffffffu;
    out[at] = (int)__ballot_sync(all, t % 2);
    out[at + 1] = __any_sync(all, t == 69) + 2 * __all_sync(all, t < 64);
    out[at + 2] = __syncthreads_or(t == 69) + 2 * __syncthreads_and(t < 69);
    out[at + 3] = __syncthreads_count(t % 7 == 0);
    out[at + 4] = __shfl_sync(all, t, 3);
    out[at + 5] = __shfl_up_sync(all, t, 1);
    out[at + 6] = (int)(two.a + two.b);
    atomicAdd(total, 1);
    // Sums of neighbours through the shared memory whose size the launch gives.
    extern __shared__ int tile[];
    tile[t] = t;
    __syncthreads();
    out[at + 7] = tile[(t + 1) % 70];
    __syncwarp();
}
extern "C" __global__ void no_barrier(int* out) {
    __shared__ int tile[64];
    tile[threadIdx.x] = threadIdx.x + 1;
    out[threadIdx.x] = tile[63 - threadIdx.x];
    tile[threadIdx.x] = 0;
}
extern "C" __global__ void some_leave() { if (threadIdx.x > 3) __syncthreads(); }
extern "C" __global__ void some_shuffle() { if (threadIdx.x > 3) __shfl_xor_sync(0xffffffffu, 1, 1); }
extern "C" __global__ void put(int* out, long long at) { out[at] = 1; }
extern "C" __global__ void deep(int* out) { volatile char room[260000]; room[0] = 1; out[0] = room[0]; }
extern "C" __global__ void fail() { __trap(); }
)";

// What may be done to memory, and what may not.
const char* ACCESSES = R"(
#define TILE __shared__ int tile[64]; const int t = threadIdx.x; int* own = out + blockIdx.x * 64
#define KERNEL(name) extern "C" __global__ void name
KERNEL(good_barrier)(int* out) {
    TILE;
    for (int turn = 0; turn < 2; ++turn) {
        tile[t] = turn;
        __syncthreads();
        own[t] = tile[63 - t];
        __syncthreads();
    }
}
// The next turn writes what others still read.
KERNEL(bad_barrier)(int* out) {
    TILE;
    for (int turn = 0; turn < 2; ++turn) {
        tile[t] = turn;
        __syncthreads();
        own[t] = tile[63 - t];
    }
}
KERNEL(good_warp)(int* out) {
    TILE;
    tile[t] = 1;
    __syncwarp();
    own[t] = tile[t ^ 1];
}
// A shuffle meets, but it does not order memory.
KERNEL(bad_warp)(int* out) {
    TILE;
    tile[t] = 1;
    __shfl_xor_sync(0xffffffffu, 1, 1);
    own[t] = tile[t ^ 1];
}
// What a warp agrees on says nothing to other warps.
KERNEL(bad_warps)(int* out) {
    TILE;
    tile[t] = 1;
    __syncwarp();
    own[t] = tile[t ^ 32];
}
KERNEL(good_blocks)(int* out) {
    out[blockIdx.x * 64 + threadIdx.x] = 1;
    out[blockIdx.x * 64 + threadIdx.x] += out[1000];
}
KERNEL(bad_blocks)(int* out) { out[blockIdx.x + threadIdx.x] = 1; }
// Two blocks read what a third one writes.
KERNEL(bad_reads)(int* out) {
    if (threadIdx.x == 0) out[blockIdx.x == 2 ? 0 : 1 + blockIdx.x] = blockIdx.x == 2 ? 1 : out[0];
}
KERNEL(good_atomic)(int* out) { atomicAdd(out + threadIdx.x % 2, 1); }
KERNEL(bad_atomic)(int* out) {
    atomicAdd(out + threadIdx.x % 2, 1);
    if (blockIdx.x == 0 && threadIdx.x == 5) out[64] = out[0];
}
KERNEL(good_bytes)(unsigned char* out) { out[blockIdx.x * 64 + threadIdx.x] = 1; }
KERNEL(bad_bytes)(unsigned char* out) { out[blockIdx.x * 64 + threadIdx.x / 2] = 1; }
KERNEL(good_wide)(float4* out) { if (blockIdx.x == 0) out[threadIdx.x] = float4{1, 2, 3, 4}; }
KERNEL(bad_wide)(float4* out) {
    if (blockIdx.x > 0) return;
    out[threadIdx.x] = float4{1, 2, 3, 4};
    if (threadIdx.x == 4) ((float*)out)[15] = 1;
}
KERNEL(bad_alignment)(float* out) { if (blockIdx.x == 0 && threadIdx.x == 0) *(float2*)(out + 1) = float2{1, 2}; }
KERNEL(bad_end)(int* out) { if (blockIdx.x == 0 && threadIdx.x == 0) out[COUNT] = 1; }
KERNEL(bad_empty)(int* out) {
    TILE;
    if (t < 63) tile[t] = 1;
    __syncthreads();
    own[t] = tile[t];
}
// What the last block left in its shared memory.
KERNEL(bad_left)(int* out) {
    TILE;
    if (blockIdx.x == 0) tile[t] = 1;
    __syncthreads();
    own[t] = tile[t];
}
KERNEL(good_dynamic)(int* out) {
    extern __shared__ int tile[];
    tile[threadIdx.x] = 1;
    __syncthreads();
    out[blockIdx.x * 64 + threadIdx.x] = tile[63 - threadIdx.x];
}
KERNEL(bad_dynamic)(int* out) {
    extern __shared__ int tile[];
    tile[threadIdx.x + 1] = 1;
}
__constant__ int table[64] = {1, 2, 3};
KERNEL(good_table)(int* out) { out[blockIdx.x * 64 + threadIdx.x] = table[threadIdx.x]; }
)";
const struct {
    const char *kernel, *complaint;
} FOUND[] = {
    {"good_barrier", nullptr},
    {"bad_barrier", "unordered with a read"},
    {"good_warp", nullptr},
    {"bad_warp", "unordered with a write"},
    {"bad_warps", "unordered with a write"},
    {"good_blocks", nullptr},
    {"bad_blocks", "unordered with a write"},
    {"bad_reads", "unordered with a read"},
    {"good_atomic", nullptr},
    {"bad_atomic", "unordered with a write"},
    {"good_bytes", nullptr},
    {"bad_bytes", "unordered with a write"},
    {"good_wide", nullptr},
    {"bad_wide", "unordered with a write"},
    {"bad_alignment", "which is not aligned"},
    {"bad_end", "which is beside every block of the device"},
    {"bad_empty", "which no thread of the block has written"},
    {"bad_left", "which no thread of the block has written"},
    {"good_dynamic", nullptr},
    {"bad_dynamic", "which is beside every block of the device"},
    {"good_table", nullptr},
};

// What requests of warps take, beside the least for what they ask.
const char* REQUESTS = R"(
#define KERNEL(name) extern "C" __global__ void name
struct alignas(16) Four { float at[4]; };
static __device__ __forceinline__ Four load(const float* from) { return *(const Four*)from; }
KERNEL(side_by_side)(float* out) { out[blockIdx.x * 64 + threadIdx.x] = 1; }
KERNEL(backwards)(float* out) { out[blockIdx.x * 64 + 63 - threadIdx.x] = 1; }
KERNEL(in_fours)(float* out) { out[threadIdx.x] = load(out + 128 + 4 * threadIdx.x).at[3]; }
KERNEL(one_by_one)(float* out) {
    for (int j = 0; j < 4; ++j) out[blockIdx.x * 256 + 4 * threadIdx.x + j] = 1;
}
// Five sectors for the bytes of four.
KERNEL(askew)(float* out) { if (threadIdx.x < 32) out[blockIdx.x * 64 + threadIdx.x + 1] = 1; }
KERNEL(the_same)(float* out) { if (out[0] == 7) out[1] = 0; }
// A lane that goes on alone asks alone.
KERNEL(some_longer)(float* out) {
    for (int i = 0; i < (threadIdx.x % 32 == 31 ? 3 : 2); ++i) out[i * 192 + blockIdx.x * 64 + threadIdx.x] = 1;
}
KERNEL(columns)(float* out) {
    __shared__ float tile[32][32];
    if (threadIdx.x < 32) tile[threadIdx.x][0] = 1;
}
KERNEL(wider_columns)(float* out) {
    __shared__ float tile[32][33];
    if (threadIdx.x < 32) tile[threadIdx.x][0] = 1;
}
KERNEL(shared_fours)(float* out) {
    __shared__ Four tile[64];
    tile[threadIdx.x] = load(out + 128);
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x * 2 % 64].at[0];
}
)";
const struct {
    const char *kernel, *memory, *shared;
} TAKEN[] = {
    {"side_by_side", "0 bytes read and 768 written, 768 asked for, 768 moved (1.00)", nullptr},
    {"backwards", "0 bytes read and 768 written, 768 asked for, 768 moved (1.00)", nullptr},
    {"in_fours", "1024 bytes read and 256 written, 3840 asked for, 3840 moved (1.00)", nullptr},
    {"one_by_one", "0 bytes read and 3072 written, 3072 asked for, 12288 moved (4.00)", nullptr},
    {"askew", "0 bytes read and 480 written, 384 asked for, 480 moved (1.25)", nullptr},
    {"the_same", "32 bytes read and 0 written, 192 asked for, 192 moved (1.00)", nullptr},
    {"some_longer", "0 bytes read and 1728 written, 1728 asked for, 1728 moved (1.00)", nullptr},
    {"columns", "0 asked for, 0 moved (1.00)", "96 turns, 3 at least (32.00)"},
    {"wider_columns", "0 asked for, 0 moved (1.00)", "3 turns, 3 at least (1.00)"},
    {"shared_fours", "moved (1.00)", "72 turns, 30 at least (2.40)"},
};

void *contexts[2], *module;

constexpr int COUNT = 3 * 70 * 8;

void launch(const char* name, unsigned blocks, unsigned threads, unsigned dynamic, std::vector<void*> args, int wanted = 0) {
    void* function;
    CHECK(cuModuleGetFunction(&function, module, name) == 0);
    CHECK(cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, dynamic, contexts[0], args.data(), nullptr) == wanted);
}

// How a process ends that does `work`, and what it says if somebody wants to know.
template <typename F>
int status_of(F work, std::string* said = nullptr) {
    FILE* file = said ? tmpfile() : nullptr;
    const pid_t child = fork();
    if (child == 0) {
        if (file) dup2(fileno(file), STDERR_FILENO);
        work();
        exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (file) {
        char text[16384];
        rewind(file);
        said->assign(text, fread(text, 1, sizeof text, file));
        fclose(file);
    }
    return status;
}

// Whether `work` ends a process by a signal.
template <typename F>
bool dies(F work) {
    return WIFSIGNALED(status_of(work));
}

// Compiles and loads a source; what PTX says of it.
std::vector<char> load(const char* source) {
    void* program;
    size_t size;
    CHECK(nvrtcCreateProgram(&program, source, "check.cu", 0, nullptr, nullptr) == 0);
    CHECK(nvrtcCompileProgram(program, 0, nullptr) == 0);
    CHECK(nvrtcGetPTXSize(program, &size) == 0);
    std::vector<char> text(size);
    CHECK(nvrtcGetPTX(program, text.data()) == 0);
    CHECK(nvrtcGetCUBINSize(program, &size) == 0);
    std::vector<char> image(size);
    CHECK(nvrtcGetCUBIN(program, image.data()) == 0);
    CHECK(cuModuleLoadData(&module, image.data()) == 0);
    return text;
}

// 3 blocks of 64 threads on so many bytes of memory.
void launch_on(size_t bytes, const char* kernel) {
    uint64_t out;
    CHECK(cuMemAlloc_v2(&out, bytes) == 0);
    launch(kernel, 3, 64, 64 * 4, {&out});
}

// With EMULATED_CHECK=1: each kernel of ACCESSES in a process of its own.
int accesses() {
    CHECK(cuCtxSetCurrent(contexts[0]) == 0);
    const std::string text = "constexpr int COUNT = " + std::to_string(COUNT) + ";\n" + ACCESSES;
    load(text.c_str());
    for (const auto& [kernel, complaint] : FOUND) {
        std::string said;
        const int status = status_of([&, name = kernel] { launch_on(COUNT * 4, name); }, &said);
        const auto says = [&](const char* what) { return said.find(what) != std::string::npos; };
        const bool right = complaint ? says(complaint) && (says("check.cu:") || says("an unknown line")) : !says(kernel);
        if (!right || status != (complaint ? 66 : 0) << 8) fprintf(stderr, "%s ends with %x:\n%s", kernel, status, said.c_str()), exit(1);
    }
    puts("the emulator looks at accesses");
    return 0;
}

// With EMULATED_COUNT=1: each kernel of REQUESTS in a process of its own.
int requests() {
    CHECK(cuCtxSetCurrent(contexts[0]) == 0);
    load(REQUESTS);
    for (const auto& [kernel, memory, shared] : TAKEN) {
        std::string said;
        const int status = status_of([&, name = kernel] { launch_on(3 * 64 * 64, name); }, &said);
        const auto says = [&](const char* what) { return said.find(what) != std::string::npos; };
        const bool right = says(memory) && (shared ? says(shared) : !says("Shared"));
        if (!right || status != 0) fprintf(stderr, "%s ends with %x:\n%s", kernel, status, said.c_str()), exit(1);
    }
    puts("the emulator counts what requests take");
    return 0;
}

// With EMULATED_LATE=1: who does not wait meets what was there before, and who changes pinned memory too early changes what is copied.
int late() {
    CHECK(cuCtxSetCurrent(contexts[0]) == 0);
    load(SOURCE);
    uint64_t out;
    int* pinned;
    CHECK(cuMemAlloc_v2(&out, COUNT * 4) == 0 && cuMemAllocHost_v2((void**)&pinned, 4) == 0);
    const auto upload = [&](int* from, int value, int then) {
        *from = value;
        CHECK(cuMemcpyHtoDAsync_v2(out, from, 4, contexts[0]) == 0);
        *from = then;
        CHECK(cuStreamSynchronize(contexts[0]) == 0);
        int found;
        CHECK(cuMemcpyDtoHAsync_v2(&found, out, 4, contexts[0]) == 0);
        return found;
    };
    int own;
    CHECK(upload(&own, 5, 6) == 5 && upload(pinned, 5, 6) == 6);

    void* event;
    CHECK(cuEventCreate(&event, 0) == 0 && cuEventQuery(event) == 0);
    long long at = 0;
    launch("put", 1, 1, 0, {&out, &at});
    at = COUNT + 64;
    CHECK(cuMemcpyDtoHAsync_v2(pinned, out, 4, contexts[0]) == 0 && cuEventRecord(event, contexts[0]) == 0);
    CHECK(*pinned == 6 && cuEventQuery(event) == 600);
    // Another device waits for this one.
    CHECK(cuCtxSetCurrent(contexts[1]) == 0 && cuStreamWaitEvent(contexts[1], event, 0) == 0 && cuEventQuery(event) == 600);
    CHECK(cuStreamSynchronize(contexts[1]) == 0 && cuEventQuery(event) == 0 && *pinned == 1);

    CHECK(cuCtxSetCurrent(contexts[0]) == 0);
    CHECK(cuMemcpyHtoDAsync_v2(out, pinned, 4, contexts[0]) == 0 && cuMemFreeHost(pinned) == 0 && cuMemFreeHost(pinned) == 1);
    CHECK(cuMemcpyDtoHAsync_v2(&own, out, 4, contexts[0]) == 0 && own == -1);

    launch("fail", 1, 1, 0, {});
    CHECK(cuEventQuery(event) == 0 && cuStreamSynchronize(contexts[0]) == 719 && cuEventQuery(event) == 719);
    puts("the emulator is late");
    return 0;
}

bool on(const char* setting) {
    const char* value = getenv(setting);
    return value && *value == '1';
}

}  // namespace

int main() {
    CHECK(cuInit(0) == 0);
    for (int i = 0; i < 2; ++i) CHECK(cuDevicePrimaryCtxRetain(&contexts[i], i) == 0);
    if (on("EMULATED_CHECK")) return accesses();
    if (on("EMULATED_COUNT")) return requests();
    if (on("EMULATED_LATE")) return late();
    uint64_t block;
    CHECK(cuMemAlloc_v2(&block, 16) == 201);  // no context
    CHECK(cuCtxSetCurrent(contexts[0]) == 0);

    const std::vector<char> text = load(SOURCE);
    CHECK(strstr(text.data(), ".entry meetings(") && strstr(text.data(), "meetings_param_2[16]"));

    uint64_t out, total;
    CHECK(cuMemAlloc_v2(&out, COUNT * 4) == 0 && cuMemAlloc_v2(&total, 4) == 0);
    int sum = 0;
    CHECK(cuMemcpyHtoDAsync_v2(total, &sum, 4, contexts[0]) == 0);
    struct {
        double a, b;
    } two = {3, 4};
    launch("meetings", 3, 70, 70 * 4, {&out, &total, &two});
    int found[COUNT];
    CHECK(cuMemcpyDtoHAsync_v2(found, out, sizeof found, contexts[0]) == 0);
    for (int i = 0; i < 3 * 70; ++i) {
        const int t = i % 70, *of = found + i * 8, first = t / 32 * 32;
        CHECK((unsigned)of[0] == (first == 64 ? 0x2au : 0xaaaaaaaau));
        CHECK(of[1] == (first == 64 ? 1 : 2));
        CHECK(of[2] == 1 && of[3] == 10 && of[4] == first + 3 && of[5] == (t == first ? t : t - 1));
        CHECK(of[6] == 7 && of[7] == (t + 1) % 70);
    }
    CHECK(cuMemcpyDtoHAsync_v2(&sum, total, 4, contexts[0]) == 0 && sum == 3 * 70);
    void* function;
    CHECK(cuModuleGetFunction(&function, module, "meetings") == 0);
    void* args[] = {&out, &total, &two};
    auto with = [&](unsigned bytes) { return cuLaunchKernel(function, 1, 1, 1, 70, 1, 1, bytes, contexts[0], args, nullptr); };
    CHECK(with(64 << 10) == 1 && cuFuncSetAttribute(function, 8, 64 << 10) == 0 && with(64 << 10) == 0);

    // Half of what is read has not been written yet.
    launch("no_barrier", 1, 64, 0, {&out});
    CHECK(cuMemcpyDtoHAsync_v2(found, out, 64 * 4, contexts[0]) == 0);
    int wrong = 0;
    for (int i = 0; i < 64; ++i) wrong += found[i] != 64 - i;
    CHECK(wrong > 0);
    for (const char* name : {"some_leave", "some_shuffle"}) CHECK(dies([&] { launch(name, 1, 32, 0, {}); }));
    CHECK(dies([&] { launch("deep", 1, 1, 0, {&out}); }));
    auto put = [&](uint64_t to, long long at) { launch("put", 1, 1, 0, {&to, &at}); };
    CHECK(!dies([&] { put(out, COUNT - 1); }));
    CHECK(dies([&] { put(out, COUNT + 64); }));
    CHECK(cuMemcpyDtoHAsync_v2(found, out + 4, sizeof found, contexts[0]) == 1);
    CHECK(cuMemFree_v2(out) == 0 && cuMemFree_v2(out) == 1);
    CHECK(dies([&] { put(out, 0); }));

    // Another device's stream and memory.
    CHECK(cuCtxSetCurrent(contexts[1]) == 0);
    CHECK(cuStreamSynchronize(contexts[0]) == 400);
    CHECK(cuMemcpyDtoHAsync_v2(&sum, total, 4, contexts[1]) == 1);
    CHECK(cuCtxSetCurrent(contexts[0]) == 0);

    launch("fail", 1, 1, 0, {});
    CHECK(cuStreamSynchronize(contexts[0]) == 719 && cuMemAlloc_v2(&out, 16) == 719);
    puts("the emulator works");
}
