// Sums over entries, in doubles, in an order that only the length fixes: each thread adds up its entries, a block its threads by a
// tree, and a last block the blocks. Blocks have 256 threads.

#define THREADS 256

// The numbers are those of `code` in reduce.rs: 0 sum, 1 squares, 2 absolute values, 3 largest absolute value, 4 min, 5 max.
static __device__ __forceinline__ double empty_of(i64 operation) {
    const double infinity = __longlong_as_double(0x7ff0000000000000LL);
    return operation == 4 ? infinity : operation == 5 ? -infinity : 0.0;
}

static __device__ __forceinline__ double mapped(i64 operation, double x) {
    return operation == 1 ? x * x : operation == 2 || operation == 3 ? fabs(x) : x;
}

// NaN on either side is the result of min and max.
static __device__ __forceinline__ double joined(i64 operation, double a, double b) {
    if (operation <= 2) return a + b;
    if (operation == 4) return (a != a || a < b) ? a : b;
    return (a != a || a > b) ? a : b;
}

static __device__ double block_join(i64 operation, double mine) {
    __shared__ double lanes[THREADS];
    lanes[threadIdx.x] = mine;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) lanes[threadIdx.x] = joined(operation, lanes[threadIdx.x], lanes[threadIdx.x + half]);
        __syncthreads();
    }
    const double all = lanes[0];
    __syncthreads();
    return all;
}

template <typename T>
static __device__ void total(const T* x, double* partial, i64 len, const Nest& nest, i64 operation, double scale) {
    double sum = empty_of(operation);
    for (i64 i = FIRST; i < len; i += STEP) {
        sum = joined(operation, sum, mapped(operation, (double)x[at(nest, i)] * scale));
    }
    sum = block_join(operation, sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <typename T>
static __device__ void dot(const T* x, const T* y, double* partial, i64 len, const Nest& nest) {
    double sum = 0.0;
    for (i64 i = FIRST; i < len; i += STEP) {
        i64 p, q;
        at(nest, i, p, q);
        sum += (double)x[p] * (double)y[q];
    }
    sum = block_join(0, sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: joins what the blocks of `total` or `dot` left.
extern "C" __global__ void total_finish(const double* partial, double* out, i64 count, i64 operation) {
    double sum = empty_of(operation);
    for (i64 i = threadIdx.x; i < count; i += THREADS) sum = joined(operation, sum, partial[i]);
    sum = block_join(operation, sum);
    if (threadIdx.x == 0) *out = sum;
}

static __device__ u64 block_min(u64 mine) {
    __shared__ u64 lanes[THREADS];
    lanes[threadIdx.x] = mine;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half && lanes[threadIdx.x + half] < lanes[threadIdx.x]) lanes[threadIdx.x] = lanes[threadIdx.x + half];
        __syncthreads();
    }
    const u64 least = lanes[0];
    __syncthreads();
    return least;
}

// The row-major position of the first entry that is NaN or infinite; all ones where there is none.
template <typename T>
static __device__ void nonfinite(const T* x, u64* partial, i64 len, const Nest& nest) {
    u64 found = ~0ULL;
    for (i64 i = FIRST; i < len; i += STEP) {
        const T value = x[at(nest, i)];
        if (!(value - value == (T)0)) {
            found = (u64)i;
            break;  // this thread's later entries lie further back
        }
    }
    found = block_min(found);
    if (threadIdx.x == 0) partial[blockIdx.x] = found;
}

extern "C" __global__ void nonfinite_finish(const u64* partial, u64* out, i64 count) {
    u64 found = ~0ULL;
    for (i64 i = threadIdx.x; i < count; i += THREADS) found = partial[i] < found ? partial[i] : found;
    found = block_min(found);
    if (threadIdx.x == 0) *out = found;
}

// Sums of rows whose entries lie close together: a block sums a stretch of one row. Work item = split * rows + row.
template <typename T>
static __device__ void rows_block(const T* x, double* partial, i64 rows, i64 inner, i64 splits, const Nest& head, const Nest& tail) {
    const i64 stretch = (inner + splits - 1) / splits;
    for (i64 item = blockIdx.x; item < rows * splits; item += gridDim.x) {
        const i64 row = item % rows;
        const i64 start = item / rows * stretch;
        const i64 end = start + stretch < inner ? start + stretch : inner;
        const i64 from = at(head, row);
        double sum = 0.0;
        for (i64 i = start + threadIdx.x; i < end; i += THREADS) sum += (double)x[from + at(tail, i)];
        sum = block_join(0, sum);
        if (threadIdx.x == 0) partial[item] = sum;
    }
}

// Sums of rows that lie side by side, or short ones: a thread sums a stretch of one row.
template <typename T>
static __device__ void rows_thread(const T* x, double* partial, i64 rows, i64 inner, i64 splits, const Nest& head, const Nest& tail) {
    const i64 stretch = (inner + splits - 1) / splits;
    for (i64 item = FIRST; item < rows * splits; item += STEP) {
        const i64 row = item % rows;
        const i64 start = item / rows * stretch;
        const i64 end = start + stretch < inner ? start + stretch : inner;
        const i64 from = at(head, row);
        double sum = 0.0;
        for (i64 i = start; i < end; ++i) sum += (double)x[from + at(tail, i)];
        partial[item] = sum;
    }
}

template <typename T>
static __device__ void rows_finish(const double* partial, T* out, i64 rows, i64 splits) {
    for (i64 row = FIRST; row < rows; row += STEP) {
        double sum = 0.0;
        for (i64 split = 0; split < splits; ++split) sum += partial[split * rows + row];
        out[row] = (T)sum;
    }
}

// out = factor times what the blocks of `total` left, for a number that stays on the GPU.
template <typename T>
static __device__ void total_scaled(const double* partial, T* out, i64 count, i64 operation, double factor) {
    double sum = empty_of(operation);
    for (i64 i = threadIdx.x; i < count; i += THREADS) sum = joined(operation, sum, partial[i]);
    sum = block_join(operation, sum);
    if (threadIdx.x == 0) *out = (T)(sum * factor);
}

// Adds up `pieces` rows of `columns` partial sums; the first `split` columns go to `first`, the others to `second`. Blocks of 32 x 32: 32
// columns, and every 32nd piece.
template <typename T>
static __device__ void fold(const T* partial, T* first, T* second, i64 pieces, i64 columns, i64 split) {
    __shared__ T sums[32][33];
    for (i64 tile = blockIdx.x; tile * 32 < columns; tile += gridDim.x) {
        const i64 column = tile * 32 + threadIdx.x;
        T sum = 0;
        if (column < columns) {
#pragma unroll 8
            for (i64 piece = threadIdx.y; piece < pieces; piece += 32) sum += partial[piece * columns + column];
        }
        sums[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        for (int half = 16; half > 0; half /= 2) {
            if ((int)threadIdx.y < half) sums[threadIdx.y][threadIdx.x] += sums[threadIdx.y + half][threadIdx.x];
            __syncthreads();
        }
        if (threadIdx.y == 0 && column < columns) {
            if (column < split) first[column] = sums[0][threadIdx.x];
            else second[column - split] = sums[0][threadIdx.x];
        }
        __syncthreads();
    }
}

#define REDUCTIONS(name, T)                                                                                                      \
    extern "C" __global__ void total_##name(const T* x, double* partial, i64 len, Nest nest, i64 operation, double scale) {       \
        total<T>(x, partial, len, nest, operation, scale);                                                                       \
    }                                                                                                                            \
    extern "C" __global__ void dot_##name(const T* x, const T* y, double* partial, i64 len, Nest nest) {                          \
        dot<T>(x, y, partial, len, nest);                                                                                        \
    }                                                                                                                            \
    extern "C" __global__ void nonfinite_##name(const T* x, u64* partial, i64 len, Nest nest) {                                   \
        nonfinite<T>(x, partial, len, nest);                                                                                     \
    }                                                                                                                            \
    extern "C" __global__ void rows_block_##name(const T* x, double* partial, i64 rows, i64 inner, i64 splits, Nest head,         \
                                                 Nest tail) {                                                                    \
        rows_block<T>(x, partial, rows, inner, splits, head, tail);                                                              \
    }                                                                                                                            \
    extern "C" __global__ void rows_thread_##name(const T* x, double* partial, i64 rows, i64 inner, i64 splits, Nest head,        \
                                                  Nest tail) {                                                                   \
        rows_thread<T>(x, partial, rows, inner, splits, head, tail);                                                             \
    }                                                                                                                            \
    extern "C" __global__ void rows_finish_##name(const double* partial, T* out, i64 rows, i64 splits) {                          \
        rows_finish<T>(partial, out, rows, splits);                                                                              \
    }                                                                                                                            \
    extern "C" __global__ void total_scaled_##name(const double* partial, T* out, i64 count, i64 operation, double factor) {      \
        total_scaled<T>(partial, out, count, operation, factor);                                                                 \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024) fold_##name(const T* partial, T* first, T* second, i64 pieces,             \
                                                                   i64 columns, i64 split) {                                     \
        fold<T>(partial, first, second, pieces, columns, split);                                                                 \
    }

REDUCTIONS(f32, float)
REDUCTIONS(f64, double)
