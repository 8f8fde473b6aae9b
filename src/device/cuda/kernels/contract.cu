// Contractions that are no matrix product: columnwise ones, and what Gram matrices need around cuBLAS.

// Z[i, k, r] = sum_j Y[i, j, k, r] B[j, r]: a thread an entry of Z; neighbours read neighbouring entries of Y.
template <typename T>
static __device__ void columns(const T* y, const T* b, T* out, i64 before, i64 n, i64 after, i64 rank, i64 b_rows, i64 b_cols) {
    const i64 plane = after * rank;
    for (i64 o = FIRST; o < before * plane; o += STEP) {
        const T* from = y + o / plane * n * plane + o % plane;
        const T* factor = b + o % rank * b_cols;
        T sum = 0;
        for (i64 j = 0; j < n; ++j) sum += from[j * plane] * factor[j * b_rows];
        out[o] = sum;
    }
}

// Fibres `from .. from + width` of a mode as a block in the working precision: n x width, or width x n where the entries of a fibre
// are neighbours (`by_fibre`). Fibres past `count` are zeros. `others` are the loops over fibres.
template <typename T, typename W>
static __device__ void gather(const T* x, W* block, i64 n, i64 from, i64 width, i64 count, i64 stride, i64 by_fibre, const Nest& others, double scale) {
    for (i64 o = FIRST; o < n * width; o += STEP) {
        const i64 row = by_fibre ? o % n : o / width;
        const i64 fibre = from + (by_fibre ? o / n : o % width);
        block[o] = fibre < count ? (W)((double)x[at(others, fibre) + row * stride] * scale) : (W)0;
    }
}

// Adds up `pieces` n x n products in doubles, of which only one triangle is read, so that the sum is symmetric to the last bit.
template <typename W>
static __device__ void gather_sum(const W* products, double* out, i64 n, i64 pieces, i64 accumulate) {
    for (i64 o = FIRST; o < n * n; o += STEP) {
        const i64 row = o / n, col = o % n;
        const i64 place = row >= col ? row * n + col : col * n + row;
        double sum = accumulate ? out[o] : 0.0;
        for (i64 p = 0; p < pieces; ++p) sum += (double)products[p * n * n + place];
        out[o] = sum;
    }
}

#define CONTRACTIONS(name, T)                                                                                                    \
    extern "C" __global__ void columns_##name(const T* y, const T* b, T* out, i64 before, i64 n, i64 after, i64 rank,            \
                                              i64 b_rows, i64 b_cols) {                                                          \
        columns<T>(y, b, out, before, n, after, rank, b_rows, b_cols);                                                           \
    }                                                                                                                            \
    extern "C" __global__ void gather_sum_##name(const T* products, double* out, i64 n, i64 pieces, i64 accumulate) {             \
        gather_sum<T>(products, out, n, pieces, accumulate);                                                                     \
    }

CONTRACTIONS(f32, float)
CONTRACTIONS(f64, double)

#define GATHER(from_name, T, to_name, W)                                                                                         \
    extern "C" __global__ void gather_##from_name##_##to_name(const T* x, W* block, i64 n, i64 from, i64 width, i64 count,       \
                                                              i64 stride, i64 by_fibre, Nest others, double scale) {             \
        gather<T, W>(x, block, n, from, width, count, stride, by_fibre, others, scale);                                          \
    }

GATHER(f32, float, f32, float)
GATHER(f32, float, f64, double)
GATHER(f64, double, f32, float)
GATHER(f64, double, f64, double)

// The addresses of the three operands of a product at each of `len` steps, one operand after the other. Strides are in bytes.
extern "C" __global__ void addresses(u64 a, u64 b, u64 c, u64* out, i64 len, Nest ab, Nest cc) {
    for (i64 i = FIRST; i < len; i += STEP) {
        i64 p, q;
        at(ab, i, p, q);
        out[i] = a + p;
        out[len + i] = b + q;
        out[2 * len + i] = c + at(cc, i);
    }
}
