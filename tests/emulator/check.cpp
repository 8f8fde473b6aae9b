// The emulator's own test: what kernels may use and none of the crate's does yet, and the faults that it has to find.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void**, int);
int cuCtxSetCurrent(void*);
int cuStreamSynchronize(void*);
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

void *contexts[2], *module;

void launch(const char* name, unsigned blocks, unsigned threads, unsigned dynamic, std::vector<void*> args, int wanted = 0) {
    void* function;
    CHECK(cuModuleGetFunction(&function, module, name) == 0);
    CHECK(cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, dynamic, contexts[0], args.data(), nullptr) == wanted);
}

// Whether `work` ends a process by a signal.
template <typename F>
bool dies(F work) {
    const pid_t child = fork();
    if (child == 0) {
        work();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status);
}

}  // namespace

int main() {
    CHECK(cuInit(0) == 0);
    for (int i = 0; i < 2; ++i) CHECK(cuDevicePrimaryCtxRetain(&contexts[i], i) == 0);
    uint64_t block;
    CHECK(cuMemAlloc_v2(&block, 16) == 201);  // no context
    CHECK(cuCtxSetCurrent(contexts[0]) == 0);

    void* program;
    size_t size;
    CHECK(nvrtcCreateProgram(&program, SOURCE, "check.cu", 0, nullptr, nullptr) == 0);
    CHECK(nvrtcCompileProgram(program, 0, nullptr) == 0);
    CHECK(nvrtcGetPTXSize(program, &size) == 0);
    std::vector<char> text(size);
    CHECK(nvrtcGetPTX(program, text.data()) == 0);
    CHECK(strstr(text.data(), ".entry meetings(") && strstr(text.data(), "meetings_param_2[16]"));
    CHECK(nvrtcGetCUBINSize(program, &size) == 0);
    std::vector<char> image(size);
    CHECK(nvrtcGetCUBIN(program, image.data()) == 0);
    CHECK(cuModuleLoadData(&module, image.data()) == 0);

    constexpr int COUNT = 3 * 70 * 8;
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
