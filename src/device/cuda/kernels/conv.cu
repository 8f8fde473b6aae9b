// Columns of a convolution (im2col) and what their gradients add up to, maxima over windows, and sums of few neighbours.

// The entries that each of the outputs `first .. first + count` sees, for cuBLAS to multiply: [group][output][tap][channel]. `width` packs of
// N channels make a group. Fewer than 2^31 packs.
template <typename T, int N>
static __device__ void columns_of(const T* x, T* out, i64 first, i64 count, i64 groups, i64 width, const Images& g) {
    typedef Pack<T, N> P;
    const P* from = (const P*)x;
    P* to = (P*)out;
    const u32 w = (u32)width, n = (u32)count, taps = (u32)(g.kernel[0] * g.kernel[1] * g.kernel[2]);
    const u32 len = (u32)groups * n * taps * w;
    for (u32 e = (u32)FIRST; e < len; e += (u32)STEP) {
        const u32 a = e / w, channel = e - a * w;
        const u32 b = a / taps, tap = a - b * taps;
        const u32 group = b / n, position = b - group * n;
        const Place o = place_of(first + position, g.output);
        const u32 k01 = tap / (u32)g.kernel[2], k2 = tap - k01 * (u32)g.kernel[2];
        const u32 k0 = k01 / (u32)g.kernel[1], k1 = k01 - k0 * (u32)g.kernel[1];
        const int d = seen(g, 0, o.at[0], (int)k0), h = seen(g, 1, o.at[1], (int)k1), v = seen(g, 2, o.at[2], (int)k2);
        P value;
        for (int i = 0; i < N; ++i) value.of[i] = (T)0;
        if (d >= 0 && h >= 0 && v >= 0) {
            const i64 row = ((o.image * g.input[0] + d) * g.input[1] + h) * g.input[2] + v;
            value = from[(row * groups + group) * width + channel];
        }
        to[e] = value;
    }
}

// The gradient by the input from that of the columns of the outputs `first .. first + count`, for `images` images from `image` on: each
// entry gathers from the outputs that saw it. It starts from what is there (`accumulate`), a bias, or zero.
template <typename T, int N>
static __device__ void gather_columns(const T* columns, const T* bias, T* out, i64 first, i64 count, i64 image, i64 images, i64 groups,
                                      i64 width, i64 accumulate, const Images& g) {
    typedef Pack<T, N> P;
    const P* from = (const P*)columns;
    P* to = (P*)out;
    const i64 c = groups * width, taps = (i64)g.kernel[0] * g.kernel[1] * g.kernel[2];
    const i64 len = images * g.input[0] * g.input[1] * g.input[2] * c;
    for (i64 e = FIRST; e < len; e += STEP) {
        const i64 position = e < 0x7fffffffLL ? (i64)((u32)e / (u32)c) : e / c;
        const int channel = (int)(e - position * c);
        const int group = channel / (int)width;
        const Place i = place_of(position, g.input);
        const i64 base = (image + i.image) * g.output[0];
        const P* group_from = from + group * count * taps * width + (channel - group * (int)width);
        const i64 at = image * g.input[0] * g.input[1] * g.input[2] * c + e;
        P sum;
        if (accumulate) {
            sum = to[at];
        } else if (bias) {
            sum = ((const P*)bias)[channel];
        } else {
            for (int j = 0; j < N; ++j) sum.of[j] = (T)0;
        }
        i64 tap = 0;
        for (int k0 = 0; k0 < g.kernel[0]; ++k0) {
            const int d = seer(g, 0, i.at[0], k0);
            for (int k1 = 0; k1 < g.kernel[1]; ++k1) {
                const int h = d < 0 ? -1 : seer(g, 1, i.at[1], k1);
                for (int k2 = 0; k2 < g.kernel[2]; ++k2, ++tap) {
                    const int v = h < 0 ? -1 : seer(g, 2, i.at[2], k2);
                    if (v < 0) continue;
                    const i64 o = ((base + d) * g.output[1] + h) * g.output[2] + v - first;
                    if (o < 0 || o >= count) continue;
                    const P term = group_from[(o * taps + tap) * width];
                    for (int j = 0; j < N; ++j) sum.of[j] += term.of[j];
                }
            }
        }
        to[at] = sum;
    }
}

// What PyTorch counts as larger: a number above the best so far, and NaN.
template <typename T>
static __device__ __forceinline__ bool beats(T x, T best) {
    return x > best || x != x;
}

// The largest entry of a window, and its position in the image, in rows of channels.
template <typename T>
static __device__ __forceinline__ T window_max(const T* image, int d0, int h0, int v0, i64 channels, const Images& g, i64& place) {
    T best = (T)0;
    place = -1;
    for (int k0 = 0; k0 < g.kernel[0]; ++k0) {
        const int d = seen(g, 0, d0, k0);
        if (d < 0) continue;
        for (int k1 = 0; k1 < g.kernel[1]; ++k1) {
            const int h = seen(g, 1, h0, k1);
            if (h < 0) continue;
            for (int k2 = 0; k2 < g.kernel[2]; ++k2) {
                const int v = seen(g, 2, v0, k2);
                if (v < 0) continue;
                const i64 at = ((i64)d * g.input[1] + h) * g.input[2] + v;
                const T x = image[at * channels];
                if (place < 0 || beats(x, best)) {
                    best = x;
                    place = at;
                }
            }
        }
    }
    return best;
}

template <typename T>
static __device__ void max_pool(const T* x, T* out, i64 len, i64 channels, const Images& g) {
    const i64 image = (i64)g.input[0] * g.input[1] * g.input[2] * channels;
    for (i64 e = FIRST; e < len; e += STEP) {
        const i64 position = e / channels;
        const Place o = place_of(position, g.output);
        i64 place;
        out[e] = window_max(x + o.image * image + (e - position * channels), o.at[0], o.at[1], o.at[2], channels, g, place);
    }
}

// Each input entry asks every window that sees it whether it is the first of the largest there.
template <typename T>
static __device__ void max_pool_back(const T* x, const T* dy, T* out, i64 len, i64 channels, const Images& g) {
    const i64 image = (i64)g.input[0] * g.input[1] * g.input[2] * channels;
    for (i64 e = FIRST; e < len; e += STEP) {
        const i64 position = e / channels, channel = e - position * channels;
        const Place i = place_of(position, g.input);
        const i64 own = ((i64)i.at[0] * g.input[1] + i.at[1]) * g.input[2] + i.at[2];
        const T* from = x + i.image * image + channel;
        T sum = (T)0;
        // Taps from the last to the first: outputs in ascending order, as on the host.
        for (int k0 = g.kernel[0] - 1; k0 >= 0; --k0) {
            const int d = seer(g, 0, i.at[0], k0);
            if (d < 0) continue;
            for (int k1 = g.kernel[1] - 1; k1 >= 0; --k1) {
                const int h = seer(g, 1, i.at[1], k1);
                if (h < 0) continue;
                for (int k2 = g.kernel[2] - 1; k2 >= 0; --k2) {
                    const int v = seer(g, 2, i.at[2], k2);
                    if (v < 0) continue;
                    i64 place;
                    window_max(from, d, h, v, channels, g, place);
                    if (place == own) sum += dy[(((i.image * g.output[0] + d) * g.output[1] + h) * g.output[2] + v) * channels + channel];
                }
            }
        }
        out[e] = sum;
    }
}

// y[b, i, c] = sum_j m0[i0, j0] m1[i1, j1] m2[i2, j2] x[b, j, c]. `starts` says for the result entries of the three modes, one after the other, where
// their terms begin (and after each mode where they end); `places` and `weights` are the terms of all.
template <typename T>
static __device__ void resample(const T* x, T* out, const i64* starts, const i64* places, const T* weights, i64 len, i64 channels,
                                i64 source0, i64 source1, i64 source2, i64 result0, i64 result1, i64 result2) {
    const int sizes[3] = {(int)result0, (int)result1, (int)result2};
    const i64 *starts1 = starts + result0 + 1, *starts2 = starts1 + result1 + 1;
    for (i64 e = FIRST; e < len; e += STEP) {
        const i64 position = e / channels;
        const Place o = place_of(position, sizes);
        const T* from = x + o.image * source0 * source1 * source2 * channels + (e - position * channels);
        T sum = (T)0;
        for (i64 a = starts[o.at[0]]; a < starts[o.at[0] + 1]; ++a) {
            for (i64 b = starts1[o.at[1]]; b < starts1[o.at[1] + 1]; ++b) {
                const T factor = weights[a] * weights[b];
                const T* line = from + (places[a] * source1 + places[b]) * source2 * channels;
                for (i64 c = starts2[o.at[2]]; c < starts2[o.at[2] + 1]; ++c) sum += factor * weights[c] * line[places[c] * channels];
            }
        }
        out[e] = sum;
    }
}

#define COLUMNS(stem, name, T, N)                                                                                                \
    extern "C" __global__ void stem##columns_of_##name(const T* x, T* out, i64 first, i64 count, i64 groups, i64 width, Images g) { \
        columns_of<T, N>(x, out, first, count, groups, width, g);                                                                \
    }                                                                                                                            \
    extern "C" __global__ void stem##gather_columns_##name(const T* columns, const T* bias, T* out, i64 first, i64 count, i64 image, \
                                                          i64 images, i64 groups, i64 width, i64 accumulate, Images g) {         \
        gather_columns<T, N>(columns, bias, out, first, count, image, images, groups, width, accumulate, g);                     \
    }

// One channel a thread, and 16 bytes of them.
COLUMNS(, f32, float, 1)
COLUMNS(, f64, double, 1)
COLUMNS(wide_, f32, float, 4)
COLUMNS(wide_, f64, double, 2)

#define WINDOWS(name, T)                                                                                                         \
    extern "C" __global__ void max_pool_##name(const T* x, T* out, i64 len, i64 channels, Images g) {                            \
        max_pool<T>(x, out, len, channels, g);                                                                                   \
    }                                                                                                                            \
    extern "C" __global__ void max_pool_back_##name(const T* x, const T* dy, T* out, i64 len, i64 channels, Images g) {          \
        max_pool_back<T>(x, dy, out, len, channels, g);                                                                          \
    }                                                                                                                            \
    extern "C" __global__ void resample_##name(const T* x, T* out, const i64* starts, const i64* places, const T* weights, i64 len, \
                                               i64 channels, i64 source0, i64 source1, i64 source2, i64 result0, i64 result1,    \
                                               i64 result2) {                                                                    \
        resample<T>(x, out, starts, places, weights, len, channels, source0, source1, source2, result0, result1, result2);       \
    }

WINDOWS(f32, float)
WINDOWS(f64, double)
