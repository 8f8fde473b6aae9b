// Losses with their gradients. A row of logits is read once into registers; rows beyond them are read several times.

static __device__ __forceinline__ i64 label_at(const void* labels, i64 row, i64 bytes) {
    return bytes == 4 ? (i64)((const u32*)labels)[row] : ((const i64*)labels)[row];
}

// The loss of each row of n logits (0 where the label is `ignore`, if `ignoring`), in doubles, and its gradient divided by the number
// of rows that count, unless the gradient is null. All labels have been checked.
template <typename T, int W, int K>
static __device__ __forceinline__ void cross_entropy(const T* x, const void* labels, i64 label_bytes, double* losses, T* gradient, i64 rows,
                                                     int n, i64 ignoring, i64 ignore, double smoothing, double one) {
    const bool whole = n % PACK(T) == 0 && aligned(x) && aligned(gradient);
    const T nothing = minus_infinity<T>();
    const double on = 1.0 - smoothing, off = smoothing / (double)n;
    for (i64 row = first_row<W>(); row < rows; row += row_step<W>()) {
        const T* from = x + row * n;
        const i64 label = label_at(labels, row, label_bytes);
        const bool counts = !(ignoring && label == ignore);
        Pack<T> held[K];
        T most = nothing;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
            if (i < n) {
                held[k] = load(from, i, n, whole, nothing);
#pragma unroll
                for (int j = 0; j < PACK(T); ++j) most = LargerNumber::of(most, held[k].at[j]);
            }
        }
        most = joined_by_all<W, LargerNumber>(most);
        T total = 0, apart = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
#pragma unroll
            for (int j = 0; j < PACK(T); ++j) {
                if (i + j < n) {
                    apart += most - held[k].at[j];
                    held[k].at[j] = exponential(held[k].at[j] - most);
                    total += held[k].at[j];
                }
            }
        }
        total = sum_of_all<W>(total);
        if (smoothing > 0.0) apart = sum_of_all<W>(apart);
        if (member<W>() == 0) {
            double loss = 0.0;
            if (counts) {
                loss = ::log((double)total) + on * (double)(most - from[label]);
                if (smoothing > 0.0) loss += off * (double)apart;
            }
            losses[row] = loss;
        }
        if (gradient) {
            const T factor = (T)(one / (double)total), term = (T)(off * one), hit = (T)(on * one);
#pragma unroll
            for (int k = 0; k < K; ++k) {
                const int i = (k * W + member<W>()) * PACK(T);
                if (i < n) {
#pragma unroll
                    for (int j = 0; j < PACK(T); ++j) {
                        T made = held[k].at[j] * factor - term;
                        if (i + j == label) made -= hit;
                        held[k].at[j] = counts ? made : (T)0;
                    }
                    store(gradient + row * n, i, n, whole, held[k]);
                }
            }
        }
    }
}

#define CROSS_ENTROPY(suffix, T, W, K)                                                                                           \
    extern "C" __global__ void __launch_bounds__(256)                                                                            \
        cross_entropy_##suffix(const T* x, const void* labels, i64 label_bytes, double* losses, T* gradient, i64 rows, i64 n,     \
                               i64 ignoring, i64 ignore, double smoothing, double one) {                                         \
        cross_entropy<T, W, K>(x, labels, label_bytes, losses, gradient, rows, (int)n, ignoring, ignore, smoothing, one);        \
    }

FOR_ROWS(CROSS_ENTROPY)

template <typename T>
static __device__ __forceinline__ void cross_entropy_long(const T* x, const void* labels, i64 label_bytes, double* losses, T* gradient,
                                                          i64 rows, i64 n, i64 ignoring, i64 ignore, double smoothing, double one) {
    const bool whole = n % PACK(T) == 0 && aligned(x) && aligned(gradient);
    const double on = 1.0 - smoothing, off = smoothing / (double)n;
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const T* from = x + row * n;
        const i64 label = label_at(labels, row, label_bytes);
        const bool counts = !(ignoring && label == ignore);
        const Softened<T> all = softened(from, (const T*)0, 0, n, whole, smoothing > 0.0);
        if (threadIdx.x == 0) {
            double loss = 0.0;
            if (counts) {
                loss = ::log((double)all.sum) + on * (double)(all.most - from[label]);
                if (smoothing > 0.0) loss += off * (double)all.apart;
            }
            losses[row] = loss;
        }
        if (gradient) {
            const T factor = (T)(one / (double)all.sum), term = (T)(off * one), hit = (T)(on * one);
            EACH_LONG(T, i, n, whole) {
                Pack<T> pack = load(from, i, n, whole, (T)0, LONG_STEP(whole));
#pragma unroll
                for (int j = 0; j < PACK(T); ++j) {
                    T made = exponential(pack.at[j] - all.most) * factor - term;
                    if (i + j * LONG_STEP(whole) == label) made -= hit;
                    pack.at[j] = counts ? made : (T)0;
                }
                store(gradient + row * n, i, n, whole, pack, LONG_STEP(whole));
            }
        }
    }
}

// max(x, 0) - x t + ln(1 + e^-|x|) of each entry, summed in doubles by each block; and (1 / (1 + e^-x) - t) factor where the gradient is
// not null.
template <typename T>
static __device__ __forceinline__ void binary_cross_entropy(const T* x, const T* t, double* partial, T* gradient, i64 len, T factor) {
    double sum = 0.0;
    for (i64 i = FIRST; i < len; i += STEP) {
        const T here = x[i], target = t[i];
        const T e = exponential(here < (T)0 ? here : -here);
        const T u = (T)1 + e;
        // What rounding 1 + e lost comes back to first order.
        const T log = logarithm(u) - ((u - (T)1) - e) / u;
        sum += (double)((here > (T)0 ? here : (T)0) - here * target + log);
        if (gradient) gradient[i] = ((here < (T)0 ? e : (T)1) / u - target) * factor;
    }
    sum = sum_of_all<256>(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// x times the single number `by`; nothing is touched where that is 1.
template <typename T>
static __device__ __forceinline__ void scale_by(T* x, const T* by, i64 len) {
    const T factor = *by;
    if (factor == (T)1) return;
    for (i64 i = FIRST; i < len; i += STEP) x[i] *= factor;
}

#define LOSSES(name, T)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(1024)                                                                           \
        cross_entropy_long_##name(const T* x, const void* labels, i64 label_bytes, double* losses, T* gradient, i64 rows, i64 n,  \
                                  i64 ignoring, i64 ignore, double smoothing, double one) {                                      \
        cross_entropy_long<T>(x, labels, label_bytes, losses, gradient, rows, n, ignoring, ignore, smoothing, one);              \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                                            \
        binary_cross_entropy_##name(const T* x, const T* t, double* partial, T* gradient, i64 len, T factor) {                    \
        binary_cross_entropy<T>(x, t, partial, gradient, len, factor);                                                           \
    }                                                                                                                            \
    extern "C" __global__ void scale_by_##name(T* x, const T* by, i64 len) { scale_by<T>(x, by, len); }

LOSSES(f32, float)
LOSSES(f64, double)
