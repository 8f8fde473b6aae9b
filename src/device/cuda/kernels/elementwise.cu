// Copies, tiled transposes, and entrywise arithmetic.

template <typename T>
static __device__ void copy(const T* source, T* out, i64 len, const Nest& nest) {
    for (i64 i = FIRST; i < len; i += STEP) out[i] = source[at(nest, i)];
}

// The source runs along the rows' loop, the result along the columns' loop: 32 x 32 tiles through shared memory, so that both are
// read and written in whole lines. One block of 32 x 8 threads a tile; `rest` gives what source and result move by for each of
// the `batch` other steps.
template <typename T>
static __device__ void transpose(const T* source, T* out, i64 rows, i64 cols, i64 source_step, i64 out_step, i64 batch, const Nest& rest) {
    __shared__ T tile[32][33];
    const i64 tile_rows = (rows + 31) / 32;
    const i64 tile_cols = (cols + 31) / 32;
    const i64 tiles = tile_rows * tile_cols;
    for (i64 t = blockIdx.x; t < tiles * batch; t += gridDim.x) {
        i64 from, to;
        at(rest, t / tiles, from, to);
        const i64 row0 = (t % tiles) / tile_cols * 32;
        const i64 col0 = (t % tiles) % tile_cols * 32;
        const i64 row = row0 + threadIdx.x;
        for (int j = threadIdx.y; j < 32; j += 8) {
            const i64 col = col0 + j;
            if (row < rows && col < cols) tile[j][threadIdx.x] = source[from + row + col * source_step];
        }
        __syncthreads();
        const i64 col = col0 + threadIdx.x;
        for (int i = threadIdx.y; i < 32; i += 8) {
            const i64 row = row0 + i;
            if (row < rows && col < cols) out[to + row * out_step + col] = tile[threadIdx.x][i];
        }
        __syncthreads();
    }
}

#define COPIES(bytes, T)                                                                                                        \
    extern "C" __global__ void copy_##bytes(const T* source, T* out, i64 len, Nest nest) { copy<T>(source, out, len, nest); }     \
    extern "C" __global__ void transpose_##bytes(const T* source, T* out, i64 rows, i64 cols, i64 source_step, i64 out_step,        \
                                                 i64 batch, Nest rest) {                                                         \
        transpose<T>(source, out, rows, cols, source_step, out_step, batch, rest);                                               \
    }

COPIES(1, unsigned char)
COPIES(2, unsigned short)
COPIES(4, unsigned int)
COPIES(8, unsigned long long)

static __device__ __forceinline__ float root(float x) { return sqrtf(x); }
static __device__ __forceinline__ double root(double x) { return sqrt(x); }
static __device__ __forceinline__ float magnitude(float x) { return fabsf(x); }
static __device__ __forceinline__ double magnitude(double x) { return fabs(x); }

// The numbers of the operations are those of `code` in elementwise.rs.
template <typename T>
static __device__ __forceinline__ T one(i64 operation, T x, T operand) {
    switch (operation) {
        case 0: return x * operand;
        case 1: return x + operand;
        case 2: return magnitude(x);
        case 3: return root(x);
        case 4: return (T)1 / x;
        case 5: return x != x ? (T)0 : (T)1;
        default: return x != x ? (T)0 : x;
    }
}

template <typename T>
static __device__ __forceinline__ T two(i64 operation, T x, T y) {
    switch (operation) {
        case 0: return x + y;
        case 1: return x - y;
        case 2: return x * y;
        case 3: return x / y;
        case 4: return (x != x || x > y) ? x : y;
        case 5: return (x + x) * y;
        case 6: return x / (y + y);
        default: return y > 0 ? x : y < 0 ? -x : (T)0;
    }
}

template <typename T>
static __device__ void unary(const T* source, T* out, i64 len, const Nest& nest, i64 operation, T operand) {
    for (i64 i = FIRST; i < len; i += STEP) out[i] = one<T>(operation, source[at(nest, i)], operand);
}

template <typename T>
static __device__ void binary(const T* a, const T* b, T* out, i64 len, const Nest& nest, i64 operation) {
    for (i64 i = FIRST; i < len; i += STEP) {
        i64 p, q;
        at(nest, i, p, q);
        out[i] = two<T>(operation, a[p], b[q]);
    }
}

// out = source + beta out; a null source counts as zeros, and with beta = 0 the result is only written.
template <typename T>
static __device__ void blend(const T* source, T* out, i64 len, const Nest& nest, T beta) {
    for (i64 i = FIRST; i < len; i += STEP) {
        i64 p, q;
        at(nest, i, p, q);
        T x = source ? source[p] : (T)0;
        if (beta != (T)0) x += beta * out[q];
        out[q] = x;
    }
}

#define ARITHMETIC(name, T)                                                                                                      \
    extern "C" __global__ void unary_##name(const T* source, T* out, i64 len, Nest nest, i64 operation, T operand) {              \
        unary<T>(source, out, len, nest, operation, operand);                                                                    \
    }                                                                                                                            \
    extern "C" __global__ void binary_##name(const T* a, const T* b, T* out, i64 len, Nest nest, i64 operation) {                 \
        binary<T>(a, b, out, len, nest, operation);                                                                              \
    }                                                                                                                            \
    extern "C" __global__ void blend_##name(const T* source, T* out, i64 len, Nest nest, T beta) {                                \
        blend<T>(source, out, len, nest, beta);                                                                                  \
    }

ARITHMETIC(f32, float)
ARITHMETIC(f64, double)
