// What kernels that work row by row share: packs of 16 bytes, and teams of threads that hold a row in their registers.

// As many entries as a load of 16 bytes brings.
template <typename T>
struct alignas(16) Pack {
    T at[16 / sizeof(T)];
};

#define PACK(T) ((int)(16 / sizeof(T)))

// Whether these rows of n entries can be read and written pack by pack.
static __device__ __forceinline__ bool aligned(const void* a) { return ((u64)a & 15) == 0; }

// Entries i, i + step, .. of a row of n, a pack of them or fewer: `fill` stands for the others. The step is 1 where rows are whole packs.
template <typename T, typename I>
static __device__ __forceinline__ Pack<T> load(const T* row, I i, I n, bool whole, T fill, int step = 1) {
    if (whole) return *(const Pack<T>*)(row + i);
    Pack<T> pack;
#pragma unroll
    for (int j = 0; j < PACK(T); ++j) pack.at[j] = i + j * step < n ? row[i + j * step] : fill;
    return pack;
}

template <typename T, typename I>
static __device__ __forceinline__ void store(T* row, I i, I n, bool whole, const Pack<T>& pack, int step = 1) {
    if (whole) {
        *(Pack<T>*)(row + i) = pack;
        return;
    }
#pragma unroll
    for (int j = 0; j < PACK(T); ++j) {
        if (i + j * step < n) row[i + j * step] = pack.at[j];
    }
}

template <typename T>
static __device__ __forceinline__ T larger_or_nan(T a, T b) { return (b > a || b != b) ? b : a; }

struct Plus {
    template <typename T>
    static __device__ __forceinline__ T of(T a, T b) { return a + b; }
};

// NaN on either side is the result.
struct Larger {
    template <typename T>
    static __device__ __forceinline__ T of(T a, T b) { return larger_or_nan(a, b); }
};

// NaN is passed over.
struct LargerNumber {
    template <typename T>
    static __device__ __forceinline__ T of(T a, T b) { return b > a ? b : a; }
};

// Teams of W threads: a warp, or a whole block. Every thread gets the same result, to the last bit. A block has to come here as one.
template <int W, typename Join, typename T>
static __device__ __forceinline__ T joined_by_all(T mine) {
#pragma unroll
    for (int half = 16; half > 0; half /= 2) mine = Join::of(mine, __shfl_xor_sync(0xffffffffu, mine, half));
    if (W > 32) {
        __shared__ T parts[W > 32 ? W / 32 : 1];
        if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = mine;
        __syncthreads();
        mine = parts[threadIdx.x % (W / 32)];
#pragma unroll
        for (int half = W / 64; half > 0; half /= 2) mine = Join::of(mine, __shfl_xor_sync(0xffffffffu, mine, half));
        __syncthreads();
    }
    return mine;
}

template <int W, typename T>
static __device__ __forceinline__ T sum_of_all(T mine) { return joined_by_all<W, Plus>(mine); }

// A thread's number in its team, the team's first row, and how far it is to its next one. Blocks have 256 threads (8 teams of a warp),
// or are a team.
template <int W>
static __device__ __forceinline__ int member() { return W == 32 ? (int)(threadIdx.x % 32) : (int)threadIdx.x; }
template <int W>
static __device__ __forceinline__ i64 first_row() { return W == 32 ? (i64)blockIdx.x * 8 + threadIdx.x / 32 : (i64)blockIdx.x; }
template <int W>
static __device__ __forceinline__ i64 row_step() { return W == 32 ? (i64)gridDim.x * 8 : (i64)gridDim.x; }

static __device__ __forceinline__ float exponential(float x) { return expf(x); }
static __device__ __forceinline__ double exponential(double x) { return exp(x); }
static __device__ __forceinline__ float logarithm(float x) { return logf(x); }
static __device__ __forceinline__ double logarithm(double x) { return log(x); }
static __device__ __forceinline__ float root(float x) { return sqrtf(x); }
static __device__ __forceinline__ double root(double x) { return sqrt(x); }

template <typename T>
static __device__ __forceinline__ T minus_infinity() { return (T)-__longlong_as_double(0x7ff0000000000000LL); }

// A kernel for each way to hold a row: in the registers of a warp or of a block, by how many packs a thread has; or read again from
// memory each time, for rows of any length. `launch::row_kernel` chooses among them.
#define FOR_ROWS(KERNEL)                                                                                                         \
    KERNEL(warp1_f32, float, 32, 1)                                                                                              \
    KERNEL(warp2_f32, float, 32, 2)                                                                                              \
    KERNEL(warp3_f32, float, 32, 3)                                                                                              \
    KERNEL(warp4_f32, float, 32, 4)                                                                                              \
    KERNEL(warp6_f32, float, 32, 6)                                                                                              \
    KERNEL(warp8_f32, float, 32, 8)                                                                                              \
    KERNEL(block2_f32, float, 256, 2)                                                                                            \
    KERNEL(block3_f32, float, 256, 3)                                                                                            \
    KERNEL(block4_f32, float, 256, 4)                                                                                            \
    KERNEL(block8_f32, float, 256, 8)                                                                                            \
    KERNEL(warp1_f64, double, 32, 1)                                                                                             \
    KERNEL(warp2_f64, double, 32, 2)                                                                                             \
    KERNEL(warp3_f64, double, 32, 3)                                                                                             \
    KERNEL(warp4_f64, double, 32, 4)                                                                                             \
    KERNEL(warp6_f64, double, 32, 6)                                                                                             \
    KERNEL(warp8_f64, double, 32, 8)                                                                                             \
    KERNEL(block2_f64, double, 256, 2)                                                                                           \
    KERNEL(block3_f64, double, 256, 3)                                                                                           \
    KERNEL(block4_f64, double, 256, 4)                                                                                           \
    KERNEL(block8_f64, double, 256, 8)

// Rows that no registers hold are read again, by a block of 1024 threads each. Packs that a thread asks for before it looks at the first of
// them: loads that wait together. Where rows are not whole packs, the entries of a pack are 1024 apart, so that neighbours ask for neighbours.
#define DEEP 4
#define LONG_STEP(whole) ((whole) ? 1 : 1024)
#define FIRST_LONG(T, whole) ((i64)threadIdx.x * ((whole) ? PACK(T) : 1))
#define EACH_LONG(T, i, n, whole) for (i64 i = FIRST_LONG(T, whole); i < n; i += 1024 * PACK(T))

// A pack of a long row, with a term added where there is one.
template <typename T>
static __device__ __forceinline__ Pack<T> load_long(const T* row, const T* term, i64 along, i64 i, i64 n, bool whole) {
    const int step = LONG_STEP(whole);
    Pack<T> pack = load(row, i, n, whole, minus_infinity<T>(), step);
    if (term) {
#pragma unroll
        for (int j = 0; j < PACK(T); ++j) {
            if (i + j * step < n) pack.at[j] += term[(i + j * step) * along];
        }
    }
    return pack;
}

// What softmax and its kin have to know of a long row, from one reading: the largest x, the sum of e^(x - largest), and, where it is asked
// for, that of largest - x. A NaN makes all of them NaN.
template <typename T>
struct Softened {
    T most, sum, apart;

    // The sums of so many entries, seen from a larger one.
    __device__ __forceinline__ void raise(T to, i64 count) {
        if (to == most) return;
        sum *= exponential(most - to);
        if (count > 0) apart += (T)count * (to - most);
        most = to;
    }
};

template <typename T>
static __device__ __forceinline__ Softened<T> softened(const T* row, const T* term, i64 along, i64 n, bool whole, bool apart) {
    const T nothing = minus_infinity<T>();
    const int step = LONG_STEP(whole);
    Softened<T> found = {nothing, (T)0, (T)0};
    i64 count = 0;
    for (i64 first = FIRST_LONG(T, whole); first < n; first += 1024 * DEEP * PACK(T)) {
        Pack<T> held[DEEP];
        T most = found.most;
#pragma unroll
        for (int k = 0; k < DEEP; ++k) {
            const i64 i = first + k * 1024 * PACK(T);
            if (i < n) held[k] = load_long(row, term, along, i, n, whole);
        }
#pragma unroll
        for (int k = 0; k < DEEP; ++k) {
            if (first + k * 1024 * PACK(T) < n) {
#pragma unroll
                for (int j = 0; j < PACK(T); ++j) most = larger_or_nan(most, held[k].at[j]);
            }
        }
        found.raise(most, count);
        // So far there is nothing but -infinity, as far from what may come as can be.
        const bool none = most == nothing;
#pragma unroll
        for (int k = 0; k < DEEP; ++k) {
            const i64 i = first + k * 1024 * PACK(T);
#pragma unroll
            for (int j = 0; j < PACK(T); ++j) {
                if (i + j * step < n) {
                    ++count;
                    if (none) continue;
                    found.sum += exponential(held[k].at[j] - most);
                    found.apart += most - held[k].at[j];
                }
            }
        }
    }
    found.raise(joined_by_all<1024, Larger>(found.most), count);
    found.sum = sum_of_all<1024>(found.sum);
    if (apart) found.apart = sum_of_all<1024>(found.apart);
    return found;
}
