// Scores looked up by relative position, and the way back, whose sums are taken in the order of the positions.

// out[g, i, j] = scale (c2p[g, i, c2p_index[i, j]] + p2c[g, j, p2c_index[j, i]]); either may be null. Blocks of 32 x 8 threads take tiles of
// 32 x 32, in which p2c is looked up along i and written along j.
template <typename T>
static __device__ __forceinline__ void look_up(const T* c2p, const u32* c2p_index, i64 c2p_width, const T* p2c, const u32* p2c_index,
                                               i64 p2c_width, T* out, i64 groups, i64 n, i64 m, T scale) {
    __shared__ T tile[32][33];
    const i64 tile_rows = (n + 31) / 32, tile_columns = (m + 31) / 32;
    for (i64 t = blockIdx.x; t < groups * tile_rows * tile_columns; t += gridDim.x) {
        const i64 g = t / (tile_rows * tile_columns);
        const i64 i0 = t / tile_columns % tile_rows * 32, j0 = t % tile_columns * 32;
        if (p2c) {
            const i64 i = i0 + threadIdx.x;
            for (int y = threadIdx.y; y < 32; y += 8) {
                const i64 j = j0 + y;
                if (i < n && j < m) tile[y][threadIdx.x] = scale * p2c[(g * m + j) * p2c_width + p2c_index[j * n + i]];
            }
        }
        __syncthreads();
        const i64 j = j0 + threadIdx.x;
        for (int y = threadIdx.y; y < 32; y += 8) {
            const i64 i = i0 + y;
            if (i < n && j < m) {
                const T first = c2p ? scale * c2p[(g * n + i) * c2p_width + c2p_index[i * m + j]] : (T)0;
                out[(g * n + i) * m + j] = p2c ? first + tile[threadIdx.x][y] : first;
            }
        }
        __syncthreads();
    }
}

// For each of `rows` rows of an index of n numbers below `width`: where the numbers stand, sorted by number and in order within each
// (`order` [rows, n]), and where those of each number begin (`first` [rows, width + 1]).
extern "C" __global__ void invert_index(const u32* index, u32* first, u32* order, i64 rows, i64 n, i64 width) {
    const i64 items = width + 1 + n;
    for (i64 o = FIRST; o < rows * items; o += STEP) {
        const i64 row = o / items, item = o % items;
        const u32* numbers = index + row * n;
        u32 before = 0;
        if (item <= width) {
            for (i64 j = 0; j < n; ++j) before += numbers[j] < (u32)item;
            first[row * (width + 1) + item] = before;
        } else {
            const i64 here = item - width - 1;
            const u32 number = numbers[here];
            for (i64 j = 0; j < n; ++j) before += numbers[j] < number || (numbers[j] == number && j < here);
            order[row * n + before] = (u32)here;
        }
    }
}

// out[g, r, w] = scale times the sum of the entries of dy [groups, n, m] whose number is w: with r a row of dy (`step` 1 between the
// entries of a row, of which there are n), or a column (`step` m). Neighbouring threads take neighbouring w.
template <typename T>
static __device__ __forceinline__ void add_up(const T* dy, const u32* first, const u32* order, T* out, i64 groups, i64 rows, i64 count, i64 width,
                                              i64 row_step, i64 step, T scale) {
    for (i64 o = FIRST; o < groups * rows * width; o += STEP) {
        const i64 w = o % width, row = o / width % rows, g = o / width / rows;
        const T* from = dy + g * rows * count + row * row_step;
        const u32* starts = first + row * (width + 1) + w;
        T sum = 0;
        for (u32 k = starts[0]; k < starts[1]; ++k) sum += from[order[row * count + k] * step];
        out[o] = sum * scale;
    }
}

#define POSITIONS(name, T)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(256)                                                                            \
        look_up_##name(const T* c2p, const u32* c2p_index, i64 c2p_width, const T* p2c, const u32* p2c_index, i64 p2c_width,      \
                       T* out, i64 groups, i64 n, i64 m, T scale) {                                                              \
        look_up<T>(c2p, c2p_index, c2p_width, p2c, p2c_index, p2c_width, out, groups, n, m, scale);                              \
    }                                                                                                                            \
    extern "C" __global__ void add_up_##name(const T* dy, const u32* first, const u32* order, T* out, i64 groups, i64 rows,        \
                                             i64 count, i64 width, i64 row_step, i64 step, T scale) {                            \
        add_up<T>(dy, first, order, out, groups, rows, count, width, row_step, step, scale);                                     \
    }

POSITIONS(f32, float)
POSITIONS(f64, double)
