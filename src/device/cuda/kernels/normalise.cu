// Layer norm and RMS norm (centre = 0). Both directions read a row once into registers; the way back also keeps its columns' sums of
// the weight's and the bias's gradient there, one row after another, and leaves them as a row of `partial` for each block.

// y = (x - mean) scale w + b and the row's (mean, scale). Weight and bias may be null.
template <typename T, int W, int K>
static __device__ __forceinline__ void normalise(const T* x, const T* weight, const T* bias, T* y, T* statistics, i64 rows, int n,
                                                 bool centre, T eps) {
    const bool whole = n % PACK(T) == 0 && aligned(x) && aligned(y) && aligned(weight) && aligned(bias);
    const T share = (T)1 / (T)n;
    for (i64 row = first_row<W>(); row < rows; row += row_step<W>()) {
        const T* from = x + row * n;
        Pack<T> held[K];
        T sum = 0, squares = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
            if (i < n) {
                held[k] = load(from, i, n, whole, (T)0);
#pragma unroll
                for (int j = 0; j < PACK(T); ++j) sum += held[k].at[j];
            }
        }
        const T mean = centre ? sum_of_all<W>(sum) * share : (T)0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
#pragma unroll
            for (int j = 0; j < PACK(T); ++j) {
                if (i + j < n) {
                    const T apart = held[k].at[j] - mean;
                    squares += apart * apart;
                }
            }
        }
        const T scale = (T)1 / root(sum_of_all<W>(squares) * share + eps);
        if (member<W>() == 0) {
            statistics[2 * row] = mean;
            statistics[2 * row + 1] = scale;
        }
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
            if (i < n) {
                Pack<T> factor, term;
                if (weight) factor = load(weight, i, n, whole, (T)0);
                if (bias) term = load(bias, i, n, whole, (T)0);
#pragma unroll
                for (int j = 0; j < PACK(T); ++j) {
                    const T normal = (held[k].at[j] - mean) * scale;
                    held[k].at[j] = (weight ? normal * factor.at[j] : normal) + (bias ? term.at[j] : (T)0);
                }
                store(y + row * n, i, n, whole, held[k]);
            }
        }
    }
}

#define NORMALISE(suffix, T, W, K)                                                                                               \
    extern "C" __global__ void __launch_bounds__(256)                                                                            \
        normalise_##suffix(const T* x, const T* weight, const T* bias, T* y, T* statistics, i64 rows, i64 n, i64 centre, T eps) { \
        normalise<T, W, K>(x, weight, bias, y, statistics, rows, (int)n, centre, eps);                                           \
    }

FOR_ROWS(NORMALISE)

// With g = w dy and x^ = (x - mean) scale: dx = scale (g - mean(g) - x^ mean(g x^)). partial is [blocks, 2, n].
template <typename T, int W, int K>
static __device__ __forceinline__ void normalise_back(const T* x, const T* statistics, const T* weight, const T* dy, T* dx, T* partial,
                                                      i64 rows, int n, bool centre) {
    const bool whole = n % PACK(T) == 0 && aligned(x) && aligned(dy) && aligned(dx) && aligned(weight);
    const T share = (T)1 / (T)n;
    Pack<T> dw[K], db[K];
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int j = 0; j < PACK(T); ++j) dw[k].at[j] = db[k].at[j] = 0;
    }
    for (i64 row = first_row<W>(); row < rows; row += row_step<W>()) {
        const i64 start = row * n;
        const T mean = statistics[2 * row], scale = statistics[2 * row + 1];
        Pack<T> normal[K], above[K];
        T sum = 0, dot = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
            if (i < n) {
                normal[k] = load(x + start, i, n, whole, (T)0);
                above[k] = load(dy + start, i, n, whole, (T)0);
            }
        }
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
            if (i < n) {
                Pack<T> factor;
                if (weight) factor = load(weight, i, n, whole, (T)0);
#pragma unroll
                for (int j = 0; j < PACK(T); ++j) {
                    if (i + j < n) {
                        normal[k].at[j] = (normal[k].at[j] - mean) * scale;
                        const T up = above[k].at[j];
                        dw[k].at[j] += up * normal[k].at[j];
                        db[k].at[j] += up;
                        const T g = weight ? up * factor.at[j] : up;
                        above[k].at[j] = g;
                        sum += g;
                        dot += g * normal[k].at[j];
                    }
                }
            }
        }
        const T shift = centre ? sum_of_all<W>(sum) * share : (T)0;
        const T slope = sum_of_all<W>(dot) * share;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
            if (i < n) {
#pragma unroll
                for (int j = 0; j < PACK(T); ++j) above[k].at[j] = scale * ((above[k].at[j] - shift) - normal[k].at[j] * slope);
                store(dx + start, i, n, whole, above[k]);
            }
        }
    }
    T* own = partial + (i64)blockIdx.x * 2 * n;
    if constexpr (W > 32) {
        const bool packs = n % PACK(T) == 0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const int i = (k * W + member<W>()) * PACK(T);
            if (i < n) {
                store(own, i, n, packs, dw[k]);
                store(own + n, i, n, packs, db[k]);
            }
        }
    } else {
        // The eight warps of the block, one after another.
        __shared__ Pack<T> sums[2][K * 32];
        for (int warp = 0; warp < 8; ++warp) {
            if ((int)threadIdx.x / 32 == warp) {
#pragma unroll
                for (int k = 0; k < K; ++k) {
                    const int pack = k * 32 + member<32>();
                    Pack<T> w = {}, b = {};
                    if (warp > 0) {
                        w = sums[0][pack];
                        b = sums[1][pack];
                    }
#pragma unroll
                    for (int j = 0; j < PACK(T); ++j) {
                        w.at[j] += dw[k].at[j];
                        b.at[j] += db[k].at[j];
                    }
                    sums[0][pack] = w;
                    sums[1][pack] = b;
                }
            }
            __syncthreads();
        }
        for (int i = threadIdx.x; i < n; i += 256) {
            own[i] = sums[0][i / PACK(T)].at[i % PACK(T)];
            own[n + i] = sums[1][i / PACK(T)].at[i % PACK(T)];
        }
    }
}

#define NORMALISE_BACK(suffix, T, W, K)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256)                                                                            \
        normalise_back_##suffix(const T* x, const T* statistics, const T* weight, const T* dy, T* dx, T* partial, i64 rows,       \
                                i64 n, i64 centre) {                                                                             \
        normalise_back<T, W, K>(x, statistics, weight, dy, dx, partial, rows, (int)n, centre);                                   \
    }

FOR_ROWS(NORMALISE_BACK)

// Rows of any length, a block of 1024 threads each.
template <typename T>
static __device__ __forceinline__ void normalise_long(const T* x, const T* weight, const T* bias, T* y, T* statistics, i64 rows, i64 n,
                                                      bool centre, T eps) {
    const T share = (T)1 / (T)n;
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const T* from = x + row * n;
        T sum = 0, squares = 0;
        for (i64 i = threadIdx.x; i < n; i += 1024) sum += from[i];
        const T mean = centre ? sum_of_all<1024>(sum) * share : (T)0;
        for (i64 i = threadIdx.x; i < n; i += 1024) {
            const T apart = from[i] - mean;
            squares += apart * apart;
        }
        const T scale = (T)1 / root(sum_of_all<1024>(squares) * share + eps);
        if (threadIdx.x == 0) {
            statistics[2 * row] = mean;
            statistics[2 * row + 1] = scale;
        }
        for (i64 i = threadIdx.x; i < n; i += 1024) {
            const T normal = (from[i] - mean) * scale;
            y[row * n + i] = (weight ? normal * weight[i] : normal) + (bias ? bias[i] : (T)0);
        }
    }
}

template <typename T>
static __device__ __forceinline__ void normalise_back_long(const T* x, const T* statistics, const T* weight, const T* dy, T* dx, i64 rows,
                                                           i64 n, bool centre) {
    const T share = (T)1 / (T)n;
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const i64 start = row * n;
        const T mean = statistics[2 * row], scale = statistics[2 * row + 1];
        T sum = 0, dot = 0;
        for (i64 i = threadIdx.x; i < n; i += 1024) {
            const T g = weight ? dy[start + i] * weight[i] : dy[start + i];
            sum += g;
            dot += g * ((x[start + i] - mean) * scale);
        }
        const T shift = centre ? sum_of_all<1024>(sum) * share : (T)0;
        const T slope = sum_of_all<1024>(dot) * share;
        for (i64 i = threadIdx.x; i < n; i += 1024) {
            const T g = weight ? dy[start + i] * weight[i] : dy[start + i];
            dx[start + i] = scale * ((g - shift) - (x[start + i] - mean) * scale * slope);
        }
    }
}

// The sums over rows for long ones: a thread a column of a piece of the rows; partial is [pieces, 2, n].
template <typename T>
static __device__ __forceinline__ void normalise_columns(const T* x, const T* statistics, const T* dy, T* partial, i64 rows, i64 n, i64 pieces) {
    const i64 stretch = (rows + pieces - 1) / pieces;
    for (i64 item = FIRST; item < pieces * n; item += STEP) {
        const i64 piece = item / n, i = item % n;
        const i64 end = (piece + 1) * stretch < rows ? (piece + 1) * stretch : rows;
        T dw = 0, db = 0;
        for (i64 row = piece * stretch; row < end; ++row) {
            const T up = dy[row * n + i];
            dw += up * ((x[row * n + i] - statistics[2 * row]) * statistics[2 * row + 1]);
            db += up;
        }
        partial[piece * 2 * n + i] = dw;
        partial[piece * 2 * n + n + i] = db;
    }
}

#define NORMALISE_LONG(name, T)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(1024)                                                                           \
        normalise_long_##name(const T* x, const T* weight, const T* bias, T* y, T* statistics, i64 rows, i64 n, i64 centre,       \
                              T eps) {                                                                                           \
        normalise_long<T>(x, weight, bias, y, statistics, rows, n, centre, eps);                                                 \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024)                                                                           \
        normalise_back_long_##name(const T* x, const T* statistics, const T* weight, const T* dy, T* dx, i64 rows, i64 n,         \
                                   i64 centre) {                                                                                 \
        normalise_back_long<T>(x, statistics, weight, dy, dx, rows, n, centre);                                                  \
    }                                                                                                                            \
    extern "C" __global__ void normalise_columns_##name(const T* x, const T* statistics, const T* dy, T* partial, i64 rows, i64 n, \
                                                        i64 pieces) {                                                            \
        normalise_columns<T>(x, statistics, dy, partial, rows, n, pieces);                                                       \
    }

NORMALISE_LONG(f32, float)
NORMALISE_LONG(f64, double)
