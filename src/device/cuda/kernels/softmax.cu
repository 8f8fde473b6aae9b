// Softmax and its logarithm. A row is read once into registers and written once; rows beyond them are read twice.

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

// Rows of any length, in two readings: `pieces` blocks of 1024 threads to a row, each for a stretch of it in whole lines of 128 bytes; the last ones
// may have none. Where there are several, a launch before has left in `parts` what each of them finds in its stretch.
struct Stretch {
    i64 row, first, count;
};

template <typename T>
static __device__ __forceinline__ Stretch stretch(i64 item, i64 pieces, i64 n) {
    const i64 line = 8 * PACK(T), each = ((n + line - 1) / line + pieces - 1) / pieces * line;
    const i64 first = item % pieces * each, rest = n > first ? n - first : 0;
    return {item / pieces, first, rest < each ? rest : each};
}

// The largest entry and the sum of each stretch, two numbers.
template <typename T>
static __device__ __forceinline__ void soften_parts(const T* x, i64 rows, i64 n, const T* mask, const Nest& head, i64 along, T* parts,
                                                    i64 pieces) {
    const bool whole = n % PACK(T) == 0 && aligned(x);
    for (i64 item = blockIdx.x; item < rows * pieces; item += gridDim.x) {
        const Stretch here = stretch<T>(item, pieces, n);
        const T* term = mask ? mask + at(head, here.row) + here.first * along : mask;
        const Softened<T> found = softened(x + here.row * n + here.first, term, along, here.count, whole, false);
        if (threadIdx.x == 0) {
            parts[2 * item] = found.most;
            parts[2 * item + 1] = found.sum;
        }
    }
}

template <typename T>
static __device__ __forceinline__ Softened<T> joined(const T* parts, i64 pieces) {
    Softened<T> all = {minus_infinity<T>(), (T)0, (T)0};
    for (i64 i = 0; i < pieces; ++i) all.most = larger_or_nan(all.most, parts[2 * i]);
    for (i64 i = 0; i < pieces; ++i) all.sum += parts[2 * i + 1] * exponential(parts[2 * i] - all.most);
    return all;
}

template <typename T>
static __device__ __forceinline__ void soften_long(const T* x, T* y, i64 rows, i64 n, bool log, const T* mask, const Nest& head, i64 along,
                                                   const T* parts, i64 pieces) {
    const T nothing = minus_infinity<T>();
    const bool whole = n % PACK(T) == 0 && aligned(x) && aligned(y);
    for (i64 item = blockIdx.x; item < rows * pieces; item += gridDim.x) {
        const Stretch here = stretch<T>(item, pieces, n);
        const i64 start = here.row * n + here.first;
        const T* term = mask ? mask + at(head, here.row) + here.first * along : mask;
        const Softened<T> all = pieces > 1 ? joined(parts + 2 * here.row * pieces, pieces) : softened(x + start, term, along, n, whole, false);
        const bool empty = all.most == nothing;
        const T last = log ? logarithm(all.sum) : (T)1 / all.sum;
        EACH_LONG(T, i, here.count, whole) {
            Pack<T> pack = load_long(x + start, term, along, i, here.count, whole);
#pragma unroll
            for (int j = 0; j < PACK(T); ++j) {
                const T apart = pack.at[j] - all.most;
                pack.at[j] = empty ? (log ? nothing : (T)0) : log ? apart - last : exponential(apart) * last;
            }
            store(y + start, i, here.count, whole, pack, LONG_STEP(whole));
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

// What dy says along n entries: sum(y dy), or sum(dy) for the logarithm. Of all threads of a block of 1024.
template <typename T>
static __device__ __forceinline__ T slope(const T* y, const T* dy, i64 n, bool log, bool whole) {
    T sum = 0;
    EACH_LONG(T, i, n, whole) {
        const Pack<T> up = load(dy, i, n, whole, (T)0, LONG_STEP(whole));
        Pack<T> here = up;
        if (!log) here = load(y, i, n, whole, (T)0, LONG_STEP(whole));
#pragma unroll
        for (int j = 0; j < PACK(T); ++j) sum += log ? up.at[j] : here.at[j] * up.at[j];
    }
    return sum_of_all<1024>(sum);
}

template <typename T>
static __device__ __forceinline__ void soften_back_parts(const T* y, const T* dy, i64 rows, i64 n, bool log, T* parts, i64 pieces) {
    const bool whole = n % PACK(T) == 0 && aligned(y) && aligned(dy);
    for (i64 item = blockIdx.x; item < rows * pieces; item += gridDim.x) {
        const Stretch here = stretch<T>(item, pieces, n);
        const i64 start = here.row * n + here.first;
        const T sum = slope(y + start, dy + start, here.count, log, whole);
        if (threadIdx.x == 0) parts[item] = sum;
    }
}

template <typename T>
static __device__ __forceinline__ void soften_back_long(const T* y, const T* dy, T* dx, i64 rows, i64 n, bool log, const T* parts, i64 pieces) {
    const bool whole = n % PACK(T) == 0 && aligned(y) && aligned(dy) && aligned(dx);
    for (i64 item = blockIdx.x; item < rows * pieces; item += gridDim.x) {
        const Stretch here = stretch<T>(item, pieces, n);
        const i64 start = here.row * n + here.first;
        T sum = 0;
        if (pieces > 1) {
            for (i64 i = 0; i < pieces; ++i) sum += parts[here.row * pieces + i];
        } else {
            sum = slope(y + start, dy + start, n, log, whole);
        }
        EACH_LONG(T, i, here.count, whole) {
            Pack<T> made = load(y + start, i, here.count, whole, (T)0, LONG_STEP(whole));
            const Pack<T> up = load(dy + start, i, here.count, whole, (T)0, LONG_STEP(whole));
#pragma unroll
            for (int j = 0; j < PACK(T); ++j) {
                made.at[j] = log ? up.at[j] - exponential(made.at[j]) * sum : made.at[j] * (up.at[j] - sum);
            }
            store(dx + start, i, here.count, whole, made, LONG_STEP(whole));
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
        softmax_parts_##name(const T* x, i64 rows, i64 n, const T* mask, Nest head, i64 along, T* parts, i64 pieces) {            \
        soften_parts<T>(x, rows, n, mask, head, along, parts, pieces);                                                           \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024)                                                                           \
        softmax_long_##name(const T* x, T* y, i64 rows, i64 n, i64 log, const T* mask, Nest head, i64 along, const T* parts,      \
                            i64 pieces) {                                                                                        \
        soften_long<T>(x, y, rows, n, log, mask, head, along, parts, pieces);                                                    \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024)                                                                           \
        softmax_back_parts_##name(const T* y, const T* dy, i64 rows, i64 n, i64 log, T* parts, i64 pieces) {                      \
        soften_back_parts<T>(y, dy, rows, n, log, parts, pieces);                                                                \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024)                                                                           \
        softmax_back_long_##name(const T* y, const T* dy, T* dx, i64 rows, i64 n, i64 log, const T* parts, i64 pieces) {          \
        soften_back_long<T>(y, dy, dx, rows, n, log, parts, pieces);                                                             \
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
