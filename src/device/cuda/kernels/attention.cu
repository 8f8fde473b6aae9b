// What attention does with rows of scores between its matrix products: a warp a row. Blocks have 256 threads.
//
// Terms that are added to the scores lie anywhere: `terms` has the sizes [batch, heads, queries, keys] and the strides of two of them; a null
// term is none. The rows of a launch are those of `pairs` x `queries`, where a pair is a batch entry and a head.

#define WARP 32

// Which rows a launch is about: batch entries from `batch` on with `heads` heads from `head` on, and `rows` queries from `row` on.
struct Rows {
    i64 batch, head, heads, row, rows, count;
};

// Where a row of the launch lies among all: its place in [batch, heads, queries], and what the terms begin with.
struct Row {
    i64 position, first, second;
};

static __device__ __forceinline__ Row row_of(i64 i, const Rows& r, const Nest& terms) {
    const i64 pair = i / r.rows, row = r.row + (i - pair * r.rows);
    const i64 b = r.batch + pair / r.heads, h = r.head + pair % r.heads;
    Row found;
    found.position = (b * terms.size[1] + h) * terms.size[2] + row;
    found.first = b * terms.stride[0][0] + h * terms.stride[0][1] + row * terms.stride[0][2];
    found.second = b * terms.stride[1][0] + h * terms.stride[1][1] + row * terms.stride[1][2];
    return found;
}

template <typename T>
static __device__ __forceinline__ T with_terms(T score, i64 j, const Row& row, const T* one, const T* two, const Nest& terms) {
    if (one) score += one[row.first + j * terms.stride[0][3]];
    if (two) score += two[row.second + j * terms.stride[1][3]];
    return score;
}

template <typename T>
static __device__ __forceinline__ T factor_of(u64 seed, u64 step, u64 least, T factor, u64 position) {
    return philox_word(seed, step, position) < (u32)least ? (T)0 : factor;
}

// Scores become the probabilities that multiply the values, and `lse` the logarithms of the rows' sums of exponentials: plus infinity for a row
// that attends to nothing. `least` is 0 without dropout. Rows of up to 32 HELD keys stay in registers.
template <typename T, int HELD>
static __device__ __forceinline__ void soften(T* scores, T* lse, const T* one, const T* two, u64 seed, u64 step, u64 least, T factor,
                                              const Rows& r, const Nest& terms) {
    const T nothing = minus_infinity<T>();
    const int lane = threadIdx.x % WARP;
    const i64 m = terms.size[3];
    const i64 warps = (i64)gridDim.x * (blockDim.x / WARP);
    for (i64 i = (i64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP; i < r.count; i += warps) {
        const Row row = row_of(i, r, terms);
        T* own = scores + i * m;
        T held[HELD > 0 ? HELD : 1];
        T most = nothing;
        if (HELD > 0) {
#pragma unroll
            for (int k = 0; k < HELD; ++k) {
                const i64 j = lane + k * WARP;
                held[k] = j < m ? with_terms(own[j], j, row, one, two, terms) : nothing;
                most = larger_or_nan(most, held[k]);
            }
        } else {
            for (i64 j = lane; j < m; j += WARP) most = larger_or_nan(most, with_terms(own[j], j, row, one, two, terms));
        }
        most = joined_by_all<WARP, Larger>(most);
        if (most == nothing) {
            for (i64 j = lane; j < m; j += WARP) own[j] = (T)0;
            if (lane == 0) lse[row.position] = -nothing;
            continue;
        }
        T sum = (T)0;
        if (HELD > 0) {
#pragma unroll
            for (int k = 0; k < HELD; ++k) {
                held[k] = exponential(held[k] - most);
                sum += held[k];
            }
        } else {
            for (i64 j = lane; j < m; j += WARP) {
                own[j] = exponential(with_terms(own[j], j, row, one, two, terms) - most);
                sum += own[j];
            }
        }
        sum = sum_of_all<WARP>(sum);
        const T share = (T)1 / sum;
        const u64 start = (u64)row.position * (u64)m;
        if (HELD > 0) {
#pragma unroll
            for (int k = 0; k < HELD; ++k) {
                const i64 j = lane + k * WARP;
                if (j < m) own[j] = held[k] * share * (least ? factor_of(seed, step, least, factor, start + j) : (T)1);
            }
        } else {
            for (i64 j = lane; j < m; j += WARP) own[j] *= share * (least ? factor_of(seed, step, least, factor, start + j) : (T)1);
        }
        if (lane == 0) lse[row.position] = most + logarithm(sum);
    }
}

// Scores become the probabilities that multiplied the values, and slopes (dy v^T) the gradient of the scores. `out` and `dy` have the strides
// of `results`, whose sizes are [batch, heads, queries, width].
template <typename T>
static __device__ void soften_back(T* scores, T* slopes, const T* lse, const T* out, const T* dy, const T* one, const T* two, u64 seed,
                                   u64 step, u64 least, T factor, const Rows& r, const Nest& terms, const Nest& results) {
    const int lane = threadIdx.x % WARP;
    const i64 m = terms.size[3], width = results.size[3];
    const i64 warps = (i64)gridDim.x * (blockDim.x / WARP);
    for (i64 i = (i64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP; i < r.count; i += warps) {
        const Row row = row_of(i, r, terms), result = row_of(i, r, results);
        T mean = (T)0;
        for (i64 j = lane; j < width; j += WARP) {
            mean += out[result.first + j * results.stride[0][3]] * dy[result.second + j * results.stride[1][3]];
        }
        mean = sum_of_all<WARP>(mean);
        const T log_sum = lse[row.position];
        const u64 start = (u64)row.position * (u64)m;
        T *own = scores + i * m, *slope = slopes + i * m;
        for (i64 j = lane; j < m; j += WARP) {
            const T share = exponential(with_terms(own[j], j, row, one, two, terms) - log_sum);
            const T kept = least ? factor_of(seed, step, least, factor, start + j) : (T)1;
            own[j] = share * kept;
            slope[j] = share * (slope[j] * kept - mean);
        }
    }
}

#define ROWS const Rows r = {batch, head, heads, row, rows, count}

#define ATTENTION(name, T)                                                                                                       \
    extern "C" __global__ void soften_##name(T* scores, T* lse, const T* one, const T* two, i64 seed, i64 step, i64 least, T factor, \
                                             i64 batch, i64 head, i64 heads, i64 row, i64 rows, i64 count, Nest terms) {         \
        ROWS;                                                                                                                    \
        if (terms.size[3] <= 4 * WARP) {                                                                                         \
            soften<T, 4>(scores, lse, one, two, (u64)seed, (u64)step, (u64)least, factor, r, terms);                             \
        } else if (terms.size[3] <= 16 * WARP) {                                                                                 \
            soften<T, 16>(scores, lse, one, two, (u64)seed, (u64)step, (u64)least, factor, r, terms);                            \
        } else {                                                                                                                 \
            soften<T, 0>(scores, lse, one, two, (u64)seed, (u64)step, (u64)least, factor, r, terms);                             \
        }                                                                                                                        \
    }                                                                                                                            \
    extern "C" __global__ void soften_back_##name(T* scores, T* slopes, const T* lse, const T* out, const T* dy, const T* one,   \
                                                  const T* two, i64 seed, i64 step, i64 least, T factor, i64 batch, i64 head,    \
                                                  i64 heads, i64 row, i64 rows, i64 count, Nest terms, Nest results) {           \
        ROWS;                                                                                                                    \
        soften_back<T>(scores, slopes, lse, out, dy, one, two, (u64)seed, (u64)step, (u64)least, factor, r, terms, results);     \
    }

ATTENTION(f32, float)
ATTENTION(f64, double)
