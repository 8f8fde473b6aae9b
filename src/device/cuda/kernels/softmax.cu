// Softmax and its logarithm. A row is read once into registers and written once; rows beyond them are read three times.

// y = softmax(x + mask) of each row of n entries, or (log) its logarithm. The mask may be null; `head` gives where the mask of a row
// begins, `along` how far its entries are apart.
template <typename T, int W, int K>
static __device__ __forceinline__ void soften(const T* x, T* y, i64 rows, int n, bool log, const T* mask, const Nest& head, i64 along) {
    const bool whole = n % PACK(T) == 0 && aligned(x) && aligned(y);
    const T nothing = minus_infinity<T>();
    for (i64 row = first_row<W>(); row < rows; row += row_step<W>()) {
        const T* from = x + row * n;
        T* to = y + row * n;
        const T* term = mask ? mask + at(head, row) : mask;
        Pack<T> held[K];
        T most = nothing;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
            if (i < n) held[k] = load(from, i, n, whole, nothing);
#pragma unroll
            for (int j = 0; j < PACK(T); ++j) {
                if (i >= n) held[k].at[j] = nothing;
                if (term && i + j < n) held[k].at[j] += term[(i + j) * along];
                most = larger_or_nan(most, held[k].at[j]);
            }
        }
        most = joined_by_all<W, Larger>(most);
        // A row of nothing but -infinity: all zeros, or -infinity for the logarithm.
        const bool empty = most == nothing;
        T sum = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
#pragma unroll
            for (int j = 0; j < PACK(T); ++j) {
                const T moved = held[k].at[j] - most;
                const T e = exponential(moved);
                sum += e;
                held[k].at[j] = log ? moved : e;
            }
        }
        sum = sum_of_all<W>(sum);
        const T last = log ? logarithm(sum) : (T)1 / sum;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
#pragma unroll
            for (int j = 0; j < PACK(T); ++j) {
                const T made = log ? held[k].at[j] - last : held[k].at[j] * last;
                held[k].at[j] = empty ? (log ? nothing : (T)0) : made;
            }
            if (i < n) store(to, i, n, whole, held[k]);
        }
    }
}

#define SOFTMAX(suffix, T, W, K)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256)                                                                            \
        softmax_##suffix(const T* x, T* y, i64 rows, i64 n, i64 log, const T* mask, Nest head, i64 along) {                       \
        soften<T, W, K>(x, y, rows, (int)n, log, mask, head, along);                                                             \
    }

FOR_ROWS(SOFTMAX)

// Rows of any length, a block of 1024 threads each, in two readings.
template <typename T>
static __device__ __forceinline__ void soften_long(const T* x, T* y, i64 rows, i64 n, bool log, const T* mask, const Nest& head, i64 along) {
    const T nothing = minus_infinity<T>();
    const bool whole = n % PACK(T) == 0 && aligned(x) && aligned(y);
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const T* from = x + row * n;
        const T* term = mask ? mask + at(head, row) : mask;
        const Softened<T> all = softened(from, term, along, n, whole, false);
        const bool empty = all.most == nothing;
        const T last = log ? logarithm(all.sum) : (T)1 / all.sum;
        EACH_LONG(T, i, n) {
            Pack<T> pack = load_long(from, term, along, i, n, whole);
#pragma unroll
            for (int j = 0; j < PACK(T); ++j) {
                const T here = pack.at[j] - all.most;
                pack.at[j] = empty ? (log ? nothing : (T)0) : log ? here - last : exponential(here) * last;
            }
            store(y + row * n, i, n, whole, pack);
        }
    }
}

// dx = y (dy - sum(y dy)), or dx = dy - e^y sum(dy) for the logarithm.
template <typename T, int W, int K>
static __device__ __forceinline__ void soften_back(const T* y, const T* dy, T* dx, i64 rows, int n, bool log) {
    const bool whole = n % PACK(T) == 0 && aligned(y) && aligned(dy) && aligned(dx);
    for (i64 row = first_row<W>(); row < rows; row += row_step<W>()) {
        const i64 start = row * n;
        Pack<T> result[K], above[K];
        T sum = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
            if (i < n) {
                result[k] = load(y + start, i, n, whole, (T)0);
                above[k] = load(dy + start, i, n, whole, (T)0);
#pragma unroll
                for (int j = 0; j < PACK(T); ++j) sum += log ? above[k].at[j] : result[k].at[j] * above[k].at[j];
            }
        }
        sum = sum_of_all<W>(sum);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
            if (i < n) {
#pragma unroll
                for (int j = 0; j < PACK(T); ++j) {
                    const T here = result[k].at[j], up = above[k].at[j];
                    result[k].at[j] = log ? up - exponential(here) * sum : here * (up - sum);
                }
                store(dx + start, i, n, whole, result[k]);
            }
        }
    }
}

#define SOFTMAX_BACK(suffix, T, W, K)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                                            \
        softmax_back_##suffix(const T* y, const T* dy, T* dx, i64 rows, i64 n, i64 log) {                                         \
        soften_back<T, W, K>(y, dy, dx, rows, (int)n, log);                                                                      \
    }

FOR_ROWS(SOFTMAX_BACK)

template <typename T>
static __device__ __forceinline__ void soften_back_long(const T* y, const T* dy, T* dx, i64 rows, i64 n, bool log) {
    const bool whole = n % PACK(T) == 0 && aligned(y) && aligned(dy) && aligned(dx);
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const i64 start = row * n;
        T sum = 0;
        EACH_LONG(T, i, n) {
            const Pack<T> up = load(dy + start, i, n, whole, (T)0);
            Pack<T> here = up;
            if (!log) here = load(y + start, i, n, whole, (T)0);
#pragma unroll
            for (int j = 0; j < PACK(T); ++j) sum += log ? up.at[j] : here.at[j] * up.at[j];
        }
        sum = sum_of_all<1024>(sum);
        EACH_LONG(T, i, n) {
            Pack<T> here = load(y + start, i, n, whole, (T)0);
            const Pack<T> up = load(dy + start, i, n, whole, (T)0);
#pragma unroll
            for (int j = 0; j < PACK(T); ++j) {
                here.at[j] = log ? up.at[j] - exponential(here.at[j]) * sum : here.at[j] * (up.at[j] - sum);
            }
            store(dx + start, i, n, whole, here);
        }
    }
}

// Along the middle of [before, n, after]: a thread a column; neighbours read neighbouring entries.
template <typename T>
static __device__ void soften_columns(const T* x, T* y, i64 columns, i64 n, i64 after, bool log) {
    const T nothing = minus_infinity<T>();
    for (i64 column = FIRST; column < columns; column += STEP) {
        const i64 start = column / after * n * after + column % after;
        T most = nothing, sum = 0;
        for (i64 j = 0; j < n; ++j) most = larger_or_nan(most, x[start + j * after]);
        // A column of -infinity: subtracting 0 leaves it as it is.
        const T shift = most == nothing ? (T)0 : most;
        for (i64 j = 0; j < n; ++j) sum += exponential(x[start + j * after] - shift);
        const T last = sum == (T)0 ? (T)0 : log ? logarithm(sum) : (T)1 / sum;
        for (i64 j = 0; j < n; ++j) {
            const T moved = x[start + j * after] - shift;
            y[start + j * after] = log ? moved - last : exponential(moved) * last;
        }
    }
}

template <typename T>
static __device__ void soften_columns_back(const T* y, const T* dy, T* dx, i64 columns, i64 n, i64 after, bool log) {
    for (i64 column = FIRST; column < columns; column += STEP) {
        const i64 start = column / after * n * after + column % after;
        T sum = 0;
        for (i64 j = 0; j < n; ++j) sum += log ? dy[start + j * after] : y[start + j * after] * dy[start + j * after];
        for (i64 j = 0; j < n; ++j) {
            const T here = y[start + j * after], up = dy[start + j * after];
            dx[start + j * after] = log ? up - exponential(here) * sum : here * (up - sum);
        }
    }
}

#define SOFTMAX_REST(name, T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(1024)                                                                           \
        softmax_long_##name(const T* x, T* y, i64 rows, i64 n, i64 log, const T* mask, Nest head, i64 along) {                    \
        soften_long<T>(x, y, rows, n, log, mask, head, along);                                                                   \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024)                                                                           \
        softmax_back_long_##name(const T* y, const T* dy, T* dx, i64 rows, i64 n, i64 log) {                                      \
        soften_back_long<T>(y, dy, dx, rows, n, log);                                                                            \
    }                                                                                                                            \
    extern "C" __global__ void softmax_columns_##name(const T* x, T* y, i64 columns, i64 n, i64 after, i64 log) {                  \
        soften_columns<T>(x, y, columns, n, after, log);                                                                         \
    }                                                                                                                            \
    extern "C" __global__ void softmax_columns_back_##name(const T* y, const T* dy, T* dx, i64 columns, i64 n, i64 after,          \
                                                           i64 log) {                                                            \
        soften_columns_back<T>(y, dy, dx, columns, n, after, log);                                                               \
    }

SOFTMAX_REST(f32, float)
SOFTMAX_REST(f64, double)
