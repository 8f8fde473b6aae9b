// Convolutions of every channel with a kernel of its own. A warp's lanes are 32 neighbouring channels, so every read and write is of whole lines.
//
// For square kernels of 3, 5 and 7 with neighbouring taps, a thread computes a tile of TALL x WIDE results of its channel: the kernel and the
// sums stay in registers, and each source entry is read once for the tile. The gradient by the input is the same with the kernel turned
// around (`flipped`). Blocks are 32 channels x 8 tiles.

#define LANES 32
#define TILES 8
#define TALL 4

// The stack of planes that source and result are, and where the first result's kernel begins in the source.
struct Planes {
    i64 count;
    int rows, cols, out_rows, out_cols, before_rows, before_cols, channels;
};

// Which tile: its plane, its first row and column.
template <int WIDE>
static __device__ __forceinline__ void tile_at(i64 tile, const Planes& p, i64& plane, int& row, int& col) {
    const int across = (p.out_cols + WIDE - 1) / WIDE, down = (p.out_rows + TALL - 1) / TALL;
    const i64 line = tile / across;
    plane = line / down;
    col = (int)(tile - line * across) * WIDE;
    row = (int)(line - plane * down) * TALL;
}

// A row of the source as a tile sees it: zeros outside of the image. `all` says that no column lies outside.
template <typename T, int N>
static __device__ __forceinline__ void read_row(const T* line, int col, bool all, const Planes& p, T* row) {
    if (all) {
#pragma unroll
        for (int j = 0; j < N; ++j) row[j] = line[(i64)(col + j) * p.channels];
    } else {
#pragma unroll
        for (int j = 0; j < N; ++j) row[j] = (u32)(col + j) < (u32)p.cols ? line[(i64)(col + j) * p.channels] : (T)0;
    }
}

template <typename T, int K, int WIDE>
static __device__ __forceinline__ void depthwise(const T* x, const T* w, const T* bias, T* out, i64 flipped, const Planes& p) {
    __shared__ T kernels[LANES * K * K];
    const int groups = (p.channels + LANES - 1) / LANES;
    const int first = (int)(blockIdx.x % groups) * LANES;
    const int c = first + (int)threadIdx.x;
    // K K is odd, so lanes read different banks.
    const int have = (p.channels - first < LANES ? p.channels - first : LANES) * K * K;
    for (int i = threadIdx.y * LANES + threadIdx.x; i < have; i += LANES * TILES) kernels[i] = w[(i64)first * K * K + i];
    __syncthreads();
    if (c >= p.channels) return;
    T taps[K * K];
#pragma unroll
    for (int t = 0; t < K * K; ++t) taps[t] = kernels[threadIdx.x * K * K + (flipped ? K * K - 1 - t : t)];
    const T start = bias ? bias[c] : (T)0;
    const i64 across = (p.out_cols + WIDE - 1) / WIDE, down = (p.out_rows + TALL - 1) / TALL;
    const i64 tiles = p.count * across * down;
    const i64 step = (i64)(gridDim.x / groups) * TILES;
    for (i64 tile = (i64)(blockIdx.x / groups) * TILES + threadIdx.y; tile < tiles; tile += step) {
        i64 plane;
        int row, col;
        tile_at<WIDE>(tile, p, plane, row, col);
        const T* image = x + plane * p.rows * p.cols * p.channels + c;
        const int from_row = row - p.before_rows, from_col = col - p.before_cols;
        const bool all = from_col >= 0 && from_col + WIDE + K - 1 <= p.cols;
        T sums[TALL][WIDE];
#pragma unroll
        for (int r = 0; r < TALL; ++r) {
#pragma unroll
            for (int j = 0; j < WIDE; ++j) sums[r][j] = start;
        }
#pragma unroll
        for (int i = 0; i < TALL + K - 1; ++i) {
            if ((u32)(from_row + i) >= (u32)p.rows) continue;
            T line[WIDE + K - 1];
            read_row<T, WIDE + K - 1>(image + (i64)(from_row + i) * p.cols * p.channels, from_col, all, p, line);
#pragma unroll
            for (int k = 0; k < K; ++k) {
                const int r = i - k;
                if (r < 0 || r >= TALL) continue;
#pragma unroll
                for (int l = 0; l < K; ++l) {
#pragma unroll
                    for (int j = 0; j < WIDE; ++j) sums[r][j] += line[j + l] * taps[k * K + l];
                }
            }
        }
        T* to = out + ((plane * p.out_rows + row) * p.out_cols + col) * p.channels + c;
#pragma unroll
        for (int r = 0; r < TALL; ++r) {
            if (row + r >= p.out_rows) continue;
#pragma unroll
            for (int j = 0; j < WIDE; ++j) {
                if (col + j < p.out_cols) to[((i64)r * p.out_cols + j) * p.channels] = sums[r][j];
            }
        }
    }
}

// The gradient by the kernel: a thread sums its tiles' products of source and gradient in registers, a block its threads in their order; blocks are
// added up by `depthwise_finish`. partial: [block of tiles][tap][channel].
template <typename T, int K, int WIDE>
static __device__ __forceinline__ void depthwise_weights(const T* x, const T* dy, T* partial, const Planes& p) {
    __shared__ T together[K * K * LANES];
    const int groups = (p.channels + LANES - 1) / LANES;
    const int c = (int)(blockIdx.x % groups) * LANES + (int)threadIdx.x;
    const i64 part = blockIdx.x / groups;
    T sums[K * K];
#pragma unroll
    for (int t = 0; t < K * K; ++t) sums[t] = (T)0;
    const i64 across = (p.out_cols + WIDE - 1) / WIDE, down = (p.out_rows + TALL - 1) / TALL;
    const i64 tiles = c < p.channels ? p.count * across * down : 0;
    const i64 step = (i64)(gridDim.x / groups) * TILES;
    for (i64 tile = part * TILES + threadIdx.y; tile < tiles; tile += step) {
        i64 plane;
        int row, col;
        tile_at<WIDE>(tile, p, plane, row, col);
        const T* image = x + plane * p.rows * p.cols * p.channels + c;
        const T* slopes = dy + ((plane * p.out_rows + row) * p.out_cols + col) * p.channels + c;
        const int from_row = row - p.before_rows, from_col = col - p.before_cols;
        const bool all = from_col >= 0 && from_col + WIDE + K - 1 <= p.cols;
        T own[TALL][WIDE];
#pragma unroll
        for (int r = 0; r < TALL; ++r) {
#pragma unroll
            for (int j = 0; j < WIDE; ++j) {
                own[r][j] = row + r < p.out_rows && col + j < p.out_cols ? slopes[((i64)r * p.out_cols + j) * p.channels] : (T)0;
            }
        }
#pragma unroll
        for (int i = 0; i < TALL + K - 1; ++i) {
            if ((u32)(from_row + i) >= (u32)p.rows) continue;
            T line[WIDE + K - 1];
            read_row<T, WIDE + K - 1>(image + (i64)(from_row + i) * p.cols * p.channels, from_col, all, p, line);
#pragma unroll
            for (int k = 0; k < K; ++k) {
                const int r = i - k;
                if (r < 0 || r >= TALL) continue;
#pragma unroll
                for (int l = 0; l < K; ++l) {
#pragma unroll
                    for (int j = 0; j < WIDE; ++j) sums[k * K + l] += line[j + l] * own[r][j];
                }
            }
        }
    }
    for (int y = 0; y < TILES; ++y) {
        if (threadIdx.y == y) {
#pragma unroll
            for (int t = 0; t < K * K; ++t) {
                T& sum = together[t * LANES + threadIdx.x];
                sum = y == 0 ? sums[t] : sum + sums[t];
            }
        }
        __syncthreads();
    }
    if (c >= p.channels) return;
    for (int t = threadIdx.y; t < K * K; t += TILES) partial[(part * K * K + t) * p.channels + c] = together[t * LANES + threadIdx.x];
}

// Any kernel, stride and dilation: a thread a result. w: [tap][channel].
template <typename T>
static __device__ void depthwise_any(const T* x, const T* w, const T* bias, T* out, i64 len, i64 channels, const Images& g) {
    const i64 image = (i64)g.input[0] * g.input[1] * g.input[2] * channels;
    for (i64 e = FIRST; e < len; e += STEP) {
        const i64 position = e / channels, c = e - position * channels;
        const Place o = place_of(position, g.output);
        const T* from = x + o.image * image + c;
        T sum = bias ? bias[c] : (T)0;
        for (int k0 = 0; k0 < g.kernel[0]; ++k0) {
            const int d = seen(g, 0, o.at[0], k0);
            if (d < 0) continue;
            for (int k1 = 0; k1 < g.kernel[1]; ++k1) {
                const int h = seen(g, 1, o.at[1], k1);
                if (h < 0) continue;
                const T* line = from + ((i64)d * g.input[1] + h) * g.input[2] * channels;
                const T* taps = w + ((i64)k0 * g.kernel[1] + k1) * g.kernel[2] * channels + c;
                for (int k2 = 0; k2 < g.kernel[2]; ++k2) {
                    const int v = seen(g, 2, o.at[2], k2);
                    if (v >= 0) sum += line[v * channels] * taps[k2 * channels];
                }
            }
        }
        out[e] = sum;
    }
}

template <typename T>
static __device__ void depthwise_any_back(const T* dy, const T* w, const T* bias, T* out, i64 len, i64 channels, const Images& g) {
    const i64 image = (i64)g.output[0] * g.output[1] * g.output[2] * channels;
    for (i64 e = FIRST; e < len; e += STEP) {
        const i64 position = e / channels, c = e - position * channels;
        const Place i = place_of(position, g.input);
        const T* from = dy + i.image * image + c;
        T sum = bias ? bias[c] : (T)0;
        for (int k0 = 0; k0 < g.kernel[0]; ++k0) {
            const int d = seer(g, 0, i.at[0], k0);
            if (d < 0) continue;
            for (int k1 = 0; k1 < g.kernel[1]; ++k1) {
                const int h = seer(g, 1, i.at[1], k1);
                if (h < 0) continue;
                const T* line = from + ((i64)d * g.output[1] + h) * g.output[2] * channels;
                const T* taps = w + ((i64)k0 * g.kernel[1] + k1) * g.kernel[2] * channels + c;
                for (int k2 = 0; k2 < g.kernel[2]; ++k2) {
                    const int v = seer(g, 2, i.at[2], k2);
                    if (v >= 0) sum += line[v * channels] * taps[k2 * channels];
                }
            }
        }
        out[e] = sum;
    }
}

// A thread sums one tap of one channel over a stretch of the outputs. partial: [stretch][tap][channel].
template <typename T>
static __device__ void depthwise_any_weights(const T* x, const T* dy, T* partial, i64 outputs, i64 parts, i64 channels, const Images& g) {
    const i64 taps = (i64)g.kernel[0] * g.kernel[1] * g.kernel[2];
    const i64 stretch = (outputs + parts - 1) / parts;
    for (i64 e = FIRST; e < parts * taps * channels; e += STEP) {
        const i64 rest = e / channels, c = e - rest * channels;
        const i64 part = rest / taps;
        const int tap = (int)(rest - part * taps);
        const int k2 = tap % g.kernel[2], k1 = tap / g.kernel[2] % g.kernel[1], k0 = tap / (g.kernel[2] * g.kernel[1]);
        const i64 start = part * stretch, end = start + stretch < outputs ? start + stretch : outputs;
        Place o = place_of(start, g.output);
        T sum = (T)0;
        for (i64 p = start; p < end; ++p) {
            const int d = seen(g, 0, o.at[0], k0), h = seen(g, 1, o.at[1], k1), v = seen(g, 2, o.at[2], k2);
            if (d >= 0 && h >= 0 && v >= 0) {
                sum += x[(((o.image * g.input[0] + d) * g.input[1] + h) * g.input[2] + v) * channels + c] * dy[p * channels + c];
            }
            if (++o.at[2] == g.output[2]) {
                o.at[2] = 0;
                if (++o.at[1] == g.output[1]) {
                    o.at[1] = 0;
                    if (++o.at[0] == g.output[0]) {
                        o.at[0] = 0;
                        ++o.image;
                    }
                }
            }
        }
        partial[e] = sum;
    }
}

// Adds up the parts of each tap in doubles; the result is [channel][tap].
template <typename T>
static __device__ void depthwise_finish(const T* partial, T* out, i64 parts, i64 taps, i64 channels) {
    for (i64 e = FIRST; e < taps * channels; e += STEP) {
        double sum = 0.0;
        for (i64 part = 0; part < parts; ++part) sum += (double)partial[part * taps * channels + e];
        out[e % channels * taps + e / channels] = (T)sum;
    }
}

#define PLANES                                                                                                                   \
    const Planes p = {count, (int)rows, (int)cols, (int)out_rows, (int)out_cols, (int)before_rows, (int)before_cols, (int)channels}

#define DEPTHWISE(K, WIDE, name, T, blocks)                                                                                      \
    extern "C" __global__ void __launch_bounds__(LANES* TILES, blocks)                                                           \
        depthwise_##K##x##WIDE##_##name(const T* x, const T* w, const T* bias, T* out, i64 flipped, i64 count, i64 rows, i64 cols, \
                                        i64 out_rows, i64 out_cols, i64 before_rows, i64 before_cols, i64 channels) {            \
        PLANES;                                                                                                                  \
        depthwise<T, K, WIDE>(x, w, bias, out, flipped, p);                                                                      \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(LANES* TILES, blocks)                                                           \
        depthwise_weights_##K##x##WIDE##_##name(const T* x, const T* dy, T* partial, i64 count, i64 rows, i64 cols, i64 out_rows, \
                                                i64 out_cols, i64 before_rows, i64 before_cols, i64 channels) {                  \
        PLANES;                                                                                                                  \
        depthwise_weights<T, K, WIDE>(x, dy, partial, p);                                                                        \
    }

#define ANY(name, T, blocks)                                                                                                     \
    DEPTHWISE(3, 4, name, T, blocks)                                                                                             \
    DEPTHWISE(5, 4, name, T, blocks)                                                                                             \
    DEPTHWISE(7, 4, name, T, blocks)                                                                                             \
    DEPTHWISE(3, 7, name, T, blocks)                                                                                             \
    DEPTHWISE(5, 7, name, T, blocks)                                                                                             \
    DEPTHWISE(7, 7, name, T, blocks)                                                                                             \
    extern "C" __global__ void depthwise_any_##name(const T* x, const T* w, const T* bias, T* out, i64 len, i64 channels, Images g) { \
        depthwise_any<T>(x, w, bias, out, len, channels, g);                                                                     \
    }                                                                                                                            \
    extern "C" __global__ void depthwise_any_back_##name(const T* dy, const T* w, const T* bias, T* out, i64 len, i64 channels, \
                                                         Images g) {                                                             \
        depthwise_any_back<T>(dy, w, bias, out, len, channels, g);                                                               \
    }                                                                                                                            \
    extern "C" __global__ void depthwise_any_weights_##name(const T* x, const T* dy, T* partial, i64 outputs, i64 parts,         \
                                                            i64 channels, Images g) {                                            \
        depthwise_any_weights<T>(x, dy, partial, outputs, parts, channels, g);                                                   \
    }                                                                                                                            \
    extern "C" __global__ void depthwise_finish_##name(const T* partial, T* out, i64 parts, i64 taps, i64 channels) {            \
        depthwise_finish<T>(partial, out, parts, taps, channels);                                                                \
    }

// Registers for two blocks a multiprocessor in singles, for one in doubles.
ANY(f32, float, 2)
ANY(f64, double, 1)
