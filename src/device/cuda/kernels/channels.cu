// Sums and scales by channel of [groups, rows, channels], channels side by side in memory.
//
// A block of 256 threads works on a piece of the rows of one group: `lanes` threads (a power of two, at most 32) along the channels, each
// with a pack of P channels, and 256 / lanes rows at a time. Work item = (group * pieces + piece) * tiles + tile, a tile being lanes * P
// channels. What a block has summed is a row of `partial`, which `fold` in reduce.cu adds up.

#define BLOCK 256

// Where a block works: everything but the row is the same for a thread's whole piece.
struct Place {
    i64 group, piece, channel, first, end, step;
    bool inside;
};

template <int P>
static __device__ __forceinline__ Place place(i64 item, i64 rows, i64 channels, i64 pieces, int lanes) {
    const i64 tiles = (channels + lanes * P - 1) / (lanes * P);
    const i64 stretch = (rows + pieces - 1) / pieces;
    const int lane = threadIdx.x % lanes;
    Place here;
    here.channel = item % tiles * (lanes * P) + lane * P;
    here.piece = item / tiles % pieces;
    here.group = item / tiles / pieces;
    here.first = here.piece * stretch + threadIdx.x / lanes;
    here.end = (here.piece + 1) * stretch < rows ? (here.piece + 1) * stretch : rows;
    here.step = BLOCK / lanes;
    here.inside = here.channel < channels;
    return here;
}

static __device__ __forceinline__ i64 items(i64 groups, i64 channels, i64 pieces, int width) {
    return groups * pieces * ((channels + width - 1) / width);
}

// P entries side by side: one, or a pack.
template <typename T, int P>
struct alignas(sizeof(T) * P) Few {
    T at[P];
};

template <typename T, int P>
static __device__ __forceinline__ Few<T, P> take(const T* from) { return *(const Few<T, P>*)from; }

template <typename T, int P>
static __device__ __forceinline__ void give(T* to, const Few<T, P>& few) { *(Few<T, P>*)to = few; }

// The same number P times where there is no vector.
template <typename T, int P>
static __device__ __forceinline__ Few<T, P> take_or(const T* from, i64 at, T otherwise) {
    Few<T, P> few;
#pragma unroll
    for (int j = 0; j < P; ++j) few.at[j] = otherwise;
    return from ? take<T, P>(from + at) : few;
}

// Adds up over the rows of a block; every thread gets the sums of its channels. The whole block comes here.
template <typename T, int P>
static __device__ __forceinline__ void over_rows(Few<T, P>& mine, int lanes) {
    __shared__ Few<T, P> sums[BLOCK];
    sums[threadIdx.x] = mine;
    __syncthreads();
    for (int half = BLOCK / 2; half >= lanes; half /= 2) {
        if ((int)threadIdx.x < half) {
            const Few<T, P> other = sums[threadIdx.x + half];
#pragma unroll
            for (int j = 0; j < P; ++j) mine.at[j] += other.at[j];
            sums[threadIdx.x] = mine;
        }
        __syncthreads();
    }
    mine = sums[threadIdx.x % lanes];
    __syncthreads();
}

// partial[piece, group, channel] = sum of squares
template <typename T, int P>
static __device__ __forceinline__ void squares(const T* x, T* partial, i64 groups, i64 rows, i64 channels, i64 pieces, int lanes) {
    for (i64 item = blockIdx.x; item < items(groups, channels, pieces, lanes * P); item += gridDim.x) {
        const Place here = place<P>(item, rows, channels, pieces, lanes);
        Few<T, P> sum = {};
        if (here.inside) {
            const T* from = x + here.group * rows * channels + here.channel;
#pragma unroll 4
            for (i64 row = here.first; row < here.end; row += here.step) {
                const Few<T, P> few = take<T, P>(from + row * channels);
#pragma unroll
                for (int j = 0; j < P; ++j) sum.at[j] += few.at[j] * few.at[j];
            }
        }
        over_rows(sum, lanes);
        if (here.inside && (int)threadIdx.x < lanes) give(partial + (here.piece * groups + here.group) * channels + here.channel, sum);
    }
}

// first[piece, group, channel] = sum of dy, second[piece, ..] = sum of dy (x - shift), a piece `apart` from the one before; the shift may be null.
template <typename T, int P>
static __device__ __forceinline__ void sums(const T* x, const T* shift, const T* dy, T* first, T* second, i64 apart, i64 groups, i64 rows,
                                            i64 channels, i64 pieces, int lanes) {
    for (i64 item = blockIdx.x; item < items(groups, channels, pieces, lanes * P); item += gridDim.x) {
        const Place here = place<P>(item, rows, channels, pieces, lanes);
        Few<T, P> plain = {}, weighted = {};
        if (here.inside) {
            const i64 start = here.group * rows * channels + here.channel;
            const Few<T, P> moved = take_or<T, P>(shift, here.channel, (T)0);
#pragma unroll 4
            for (i64 row = here.first; row < here.end; row += here.step) {
                const Few<T, P> few = take<T, P>(x + start + row * channels), up = take<T, P>(dy + start + row * channels);
#pragma unroll
                for (int j = 0; j < P; ++j) {
                    plain.at[j] += up.at[j];
                    weighted.at[j] += up.at[j] * (few.at[j] - moved.at[j]);
                }
            }
        }
        over_rows(plain, lanes);
        over_rows(weighted, lanes);
        if (here.inside && (int)threadIdx.x < lanes) {
            const i64 to = here.piece * apart + here.group * channels + here.channel;
            give(first + to, plain);
            give(second + to, weighted);
        }
    }
}

// Joins mean and sum of square deviations of b rows to those of a rows (Chan, Golub, LeVeque 1983).
template <typename T>
static __device__ __forceinline__ void join(T& mean, T& square, i64 a, T b_mean, T b_square, i64 b) {
    if (b == 0) return;
    const double all = (double)(a + b);
    const T apart = b_mean - mean;
    mean += apart * (T)((double)b / all);
    square += b_square + apart * apart * (T)((double)a * (double)b / all);
}

// Rows that a thread holds while their own mean is taken.
#define HELD 8

// partial[piece, 0, channel] = mean, partial[piece, 1, channel] = sum of square deviations of the piece's rows; one group.
template <typename T, int P>
static __device__ __forceinline__ void moments(const T* x, T* partial, i64 rows, i64 channels, i64 pieces, int lanes) {
    for (i64 item = blockIdx.x; item < items(1, channels, pieces, lanes * P); item += gridDim.x) {
        const Place here = place<P>(item, rows, channels, pieces, lanes);
        Few<T, P> mean = {}, square = {};
        i64 count = 0;
        const i64 start = here.first - threadIdx.x / lanes;
        const T* from = x + here.channel;
        for (i64 base = start; base < here.end; base += HELD * here.step) {
            const i64 rest = here.end - base;
            const i64 size = rest < HELD * here.step ? rest : HELD * here.step;
            Few<T, P> held[HELD], sum = {}, own = {};
#pragma unroll
            for (int h = 0; h < HELD; ++h) {
                const i64 row = base + threadIdx.x / lanes + h * here.step;
                if (here.inside && row < here.end) {
                    held[h] = take<T, P>(from + row * channels);
#pragma unroll
                    for (int j = 0; j < P; ++j) sum.at[j] += held[h].at[j];
                }
            }
            over_rows(sum, lanes);
#pragma unroll
            for (int j = 0; j < P; ++j) sum.at[j] *= (T)1 / (T)size;
#pragma unroll
            for (int h = 0; h < HELD; ++h) {
                const i64 row = base + threadIdx.x / lanes + h * here.step;
                if (here.inside && row < here.end) {
#pragma unroll
                    for (int j = 0; j < P; ++j) {
                        const T apart = held[h].at[j] - sum.at[j];
                        own.at[j] += apart * apart;
                    }
                }
            }
            over_rows(own, lanes);
#pragma unroll
            for (int j = 0; j < P; ++j) join(mean.at[j], square.at[j], count, sum.at[j], own.at[j], size);
            count += size;
        }
        if (here.inside && (int)threadIdx.x < lanes) {
            T* to = partial + here.piece * 2 * channels + here.channel;
            give(to, mean);
            give(to + channels, square);
        }
    }
}

// Joins the pieces of `moments`: mean, and mean square deviation. Blocks of 32 x 32: 32 channels, and 32 stretches of the pieces.
template <typename T>
static __device__ __forceinline__ void moments_finish(const T* partial, T* mean, T* square, i64 rows, i64 channels, i64 pieces) {
    __shared__ T means[32][33], squares[32][33];
    __shared__ i64 counts[32];
    const i64 stretch = (rows + pieces - 1) / pieces;
    const i64 share = (pieces + 31) / 32;
    for (i64 tile = blockIdx.x; tile * 32 < channels; tile += gridDim.x) {
        const i64 channel = tile * 32 + threadIdx.x;
        const i64 last = (threadIdx.y + 1) * share < pieces ? (threadIdx.y + 1) * share : pieces;
        T m = 0, s = 0;
        i64 count = 0;
        for (i64 piece = threadIdx.y * share; piece < last; ++piece) {
            const i64 end = (piece + 1) * stretch < rows ? (piece + 1) * stretch : rows;
            const i64 size = end > piece * stretch ? end - piece * stretch : 0;
            if (channel < channels) join(m, s, count, partial[piece * 2 * channels + channel], partial[(piece * 2 + 1) * channels + channel], size);
            count += size;
        }
        means[threadIdx.y][threadIdx.x] = m;
        squares[threadIdx.y][threadIdx.x] = s;
        if (threadIdx.x == 0) counts[threadIdx.y] = count;
        __syncthreads();
        if (threadIdx.y == 0 && channel < channels) {
            for (int y = 1; y < 32; ++y) {
                join(m, s, count, means[y][threadIdx.x], squares[y][threadIdx.x], counts[y]);
                count += counts[y];
            }
            mean[channel] = m;
            square[channel] = s / (T)count;
        }
        __syncthreads();
    }
}

// y = (x - shift) scale + bias, with a scale for each group and channel; shift and bias may be null.
template <typename T, int P>
static __device__ __forceinline__ void affine(const T* x, const T* shift, const T* scale, const T* bias, T* y, i64 groups, i64 rows,
                                              i64 channels, i64 pieces, int lanes) {
    for (i64 item = blockIdx.x; item < items(groups, channels, pieces, lanes * P); item += gridDim.x) {
        const Place here = place<P>(item, rows, channels, pieces, lanes);
        if (!here.inside) continue;
        const i64 start = here.group * rows * channels + here.channel;
        const Few<T, P> moved = take_or<T, P>(shift, here.channel, (T)0), term = take_or<T, P>(bias, here.channel, (T)0);
        const Few<T, P> factor = take<T, P>(scale + here.group * channels + here.channel);
#pragma unroll 4
        for (i64 row = here.first; row < here.end; row += here.step) {
            Few<T, P> few = take<T, P>(x + start + row * channels);
#pragma unroll
            for (int j = 0; j < P; ++j) few.at[j] = (few.at[j] - moved.at[j]) * factor.at[j] + term.at[j];
            give(y + start + row * channels, few);
        }
    }
}

// dx = dy a + (x - shift) b + c, with a and b for each group and channel; shift and c may be null.
template <typename T, int P>
static __device__ __forceinline__ void combine(const T* x, const T* dy, const T* shift, const T* a, const T* b, const T* c, T* dx, i64 groups,
                                               i64 rows, i64 channels, i64 pieces, int lanes) {
    for (i64 item = blockIdx.x; item < items(groups, channels, pieces, lanes * P); item += gridDim.x) {
        const Place here = place<P>(item, rows, channels, pieces, lanes);
        if (!here.inside) continue;
        const i64 start = here.group * rows * channels + here.channel;
        const Few<T, P> moved = take_or<T, P>(shift, here.channel, (T)0), term = take_or<T, P>(c, here.channel, (T)0);
        const Few<T, P> factor = take<T, P>(a + here.group * channels + here.channel);
        const Few<T, P> slope = take<T, P>(b + here.group * channels + here.channel);
#pragma unroll 4
        for (i64 row = here.first; row < here.end; row += here.step) {
            Few<T, P> few = take<T, P>(x + start + row * channels);
            const Few<T, P> up = take<T, P>(dy + start + row * channels);
#pragma unroll
            for (int j = 0; j < P; ++j) few.at[j] = up.at[j] * factor.at[j] + ((few.at[j] - moved.at[j]) * slope.at[j] + term.at[j]);
            give(dx + start + row * channels, few);
        }
    }
}

#define CHANNELS(suffix, T, P)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(BLOCK) squares_##suffix(const T* x, T* partial, i64 groups, i64 rows,            \
                                                                         i64 channels, i64 pieces, i64 lanes) {                  \
        squares<T, P>(x, partial, groups, rows, channels, pieces, (int)lanes);                                                   \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(BLOCK) sums_##suffix(const T* x, const T* shift, const T* dy, T* first,          \
                                                                      T* second, i64 apart, i64 groups, i64 rows,                \
                                                                      i64 channels, i64 pieces, i64 lanes) {                     \
        sums<T, P>(x, shift, dy, first, second, apart, groups, rows, channels, pieces, (int)lanes);                              \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(BLOCK) moments_##suffix(const T* x, T* partial, i64 rows, i64 channels,          \
                                                                         i64 pieces, i64 lanes) {                                \
        moments<T, P>(x, partial, rows, channels, pieces, (int)lanes);                                                           \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(BLOCK) affine_##suffix(const T* x, const T* shift, const T* scale,               \
                                                                        const T* bias, T* y, i64 groups, i64 rows,               \
                                                                        i64 channels, i64 pieces, i64 lanes) {                   \
        affine<T, P>(x, shift, scale, bias, y, groups, rows, channels, pieces, (int)lanes);                                      \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(BLOCK) combine_##suffix(const T* x, const T* dy, const T* shift, const T* a,     \
                                                                         const T* b, const T* c, T* dx, i64 groups, i64 rows,    \
                                                                         i64 channels, i64 pieces, i64 lanes) {                  \
        combine<T, P>(x, dy, shift, a, b, c, dx, groups, rows, channels, pieces, (int)lanes);                                    \
    }

CHANNELS(packs_f32, float, 4)
CHANNELS(single_f32, float, 1)
CHANNELS(packs_f64, double, 2)
CHANNELS(single_f64, double, 1)

#define CREW 1024

// What GRN does with the sums of squares; a block of 1024 threads a group. norms = sqrt(squares), mean = mean(norms) + eps,
// scale = 1 + gamma norms / mean.
template <typename T>
static __device__ __forceinline__ void respond(const T* squares, const T* gamma, T* norms, T* means, T* scale, i64 groups, i64 channels, T eps) {
    for (i64 group = blockIdx.x; group < groups; group += gridDim.x) {
        const i64 start = group * channels;
        T sum = 0;
        for (i64 c = threadIdx.x; c < channels; c += CREW) {
            const T norm = root(squares[start + c]);
            norms[start + c] = norm;
            sum += norm;
        }
        const T mean = sum_of_all<CREW>(sum) / (T)channels + eps;
        if (threadIdx.x == 0) means[group] = mean;
        for (i64 c = threadIdx.x; c < channels; c += CREW) scale[start + c] = gamma[c] * (norms[start + c] / mean) + (T)1;
    }
}

// And on the way back, with products = sum of dy x: slopes = (gamma products / mean - sum(gamma products norms) / (C mean^2)) / norms, 0
// where the norm is.
template <typename T>
static __device__ __forceinline__ void respond_back(const T* products, const T* norms, const T* means, const T* gamma, T* slopes, i64 groups,
                                                    i64 channels) {
    for (i64 group = blockIdx.x; group < groups; group += gridDim.x) {
        const i64 start = group * channels;
        const T mean = means[group];
        T sum = 0;
        for (i64 c = threadIdx.x; c < channels; c += CREW) sum += gamma[c] * products[start + c] * norms[start + c];
        const T through = sum_of_all<CREW>(sum) / ((T)channels * mean * mean);
        for (i64 c = threadIdx.x; c < channels; c += CREW) {
            const T norm = norms[start + c];
            slopes[start + c] = norm > (T)0 ? (gamma[c] * products[start + c] / mean - through) / norm : (T)0;
        }
    }
}

// dgamma = sum over groups of norms / mean products, dbeta = sum over groups of plain: a thread a channel.
template <typename T>
static __device__ __forceinline__ void respond_gains(const T* plain, const T* products, const T* norms, const T* means, T* dgamma, T* dbeta,
                                                     i64 groups, i64 channels) {
    for (i64 c = FIRST; c < channels; c += STEP) {
        T gain = 0, term = 0;
#pragma unroll 4
        for (i64 group = 0; group < groups; ++group) {
            gain += norms[group * channels + c] / means[group] * products[group * channels + c];
            term += plain[group * channels + c];
        }
        dgamma[c] = gain;
        dbeta[c] = term;
    }
}

#define RESPONSES(name, T)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(1024)                                                                           \
        moments_finish_##name(const T* partial, T* mean, T* square, i64 rows, i64 channels, i64 pieces) {                         \
        moments_finish<T>(partial, mean, square, rows, channels, pieces);                                                        \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(CREW)                                                                           \
        respond_##name(const T* squares, const T* gamma, T* norms, T* means, T* scale, i64 groups, i64 channels, T eps) {         \
        respond<T>(squares, gamma, norms, means, scale, groups, channels, eps);                                                  \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(CREW)                                                                           \
        respond_back_##name(const T* products, const T* norms, const T* means, const T* gamma, T* slopes, i64 groups,             \
                            i64 channels) {                                                                                      \
        respond_back<T>(products, norms, means, gamma, slopes, groups, channels);                                                \
    }                                                                                                                            \
    extern "C" __global__ void respond_gains_##name(const T* plain, const T* products, const T* norms, const T* means, T* dgamma,  \
                                                    T* dbeta, i64 groups, i64 channels) {                                        \
        respond_gains<T>(plain, products, norms, means, dgamma, dbeta, groups, channels);                                        \
    }

RESPONSES(f32, float)
RESPONSES(f64, double)
