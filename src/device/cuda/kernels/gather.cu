// Entries picked by index, and added up where they came from: by sorting the picks, in their order within each place, so that sums repeat.

static __device__ __forceinline__ i64 id_at(const void* ids, i64 i, i64 bytes) {
    return bytes == 4 ? (i64)((const u32*)ids)[i] : ((const i64*)ids)[i];
}

// The row-major position of the first index that is negative or not below `limit`; all ones where there is none.
extern "C" __global__ void __launch_bounds__(256) outside(const void* ids, i64 bytes, u64* partial, i64 len, Nest nest, i64 limit) {
    u64 found = ~0ULL;
    for (i64 i = FIRST; i < len; i += STEP) {
        const i64 id = id_at(ids, at(nest, i), bytes);
        if (id < 0 || id >= limit) {
            found = (u64)i;
            break;  // this thread's later entries lie further back
        }
    }
    __shared__ u64 lanes[256];
    lanes[threadIdx.x] = found;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if ((int)threadIdx.x < half && lanes[threadIdx.x + half] < lanes[threadIdx.x]) lanes[threadIdx.x] = lanes[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = lanes[0];
}

// out[i, :] = table[ids[i], :] for rows of `width` units of E's size.
template <typename E>
static __device__ __forceinline__ void take_rows(const E* table, const void* ids, i64 bytes, E* out, i64 count, i64 width) {
    for (i64 o = FIRST; o < count * width; o += STEP) {
        i64 row, column;
        if (count * width < 0x7fffffffLL) {
            row = (u32)o / (u32)width;
            column = (u32)o % (u32)width;
        } else {
            row = o / width;
            column = o % width;
        }
        out[o] = table[id_at(ids, row, bytes) * width + column];
    }
}

extern "C" __global__ void take_rows_4(const u32* table, const void* ids, i64 bytes, u32* out, i64 count, i64 width) {
    take_rows<u32>(table, ids, bytes, out, count, width);
}
extern "C" __global__ void take_rows_8(const u64* table, const void* ids, i64 bytes, u64* out, i64 count, i64 width) {
    take_rows<u64>(table, ids, bytes, out, count, width);
}
extern "C" __global__ void take_rows_16(const Pack<float>* table, const void* ids, i64 bytes, Pack<float>* out, i64 count, i64 width) {
    take_rows<Pack<float>>(table, ids, bytes, out, count, width);
}

// out[b, j, a] = x[b, index[b, j, a], a]
template <typename T>
static __device__ __forceinline__ void take_along(const T* x, const void* index, i64 bytes, T* out, i64 len, i64 n, i64 after, i64 count) {
    for (i64 o = FIRST; o < len; o += STEP) {
        const i64 block = o / (count * after), a = o % after;
        out[o] = x[(block * n + id_at(index, o, bytes)) * after + a];
    }
}

// out[b, index[b, j, a], a] += x[b, j, a] in the order of j, a thread for each (b, a); out is zeros.
template <typename T>
static __device__ __forceinline__ void add_along(const T* x, const void* index, i64 bytes, T* out, i64 columns, i64 n, i64 after, i64 count) {
    for (i64 column = FIRST; column < columns; column += STEP) {
        const i64 block = column / after, a = column % after;
        for (i64 j = 0; j < count; ++j) {
            const i64 pick = (block * count + j) * after + a;
            out[(block * n + id_at(index, pick, bytes)) * after + a] += x[pick];
        }
    }
}

// Where along the mode the largest entry stands: the first of equals, the first NaN where there is one.
template <typename T>
static __device__ __forceinline__ bool beats(T x, i64 i, T best, i64 place) {
    const bool nan = x != x, best_nan = best != best;
    if (nan || best_nan) return nan && (!best_nan || i < place);
    return x > best || (x == best && i < place);
}

// A warp for each row of n neighbours.
template <typename T>
static __device__ __forceinline__ void argmax_rows(const T* x, u32* out, i64 rows, i64 n) {
    for (i64 row = first_row<32>(); row < rows; row += row_step<32>()) {
        i64 place = threadIdx.x % 32;
        place = place < n ? place : 0;
        T best = x[row * n + place];
        for (i64 i = place + 32; i < n; i += 32) {
            const T here = x[row * n + i];
            if (beats(here, i, best, place)) {
                best = here;
                place = i;
            }
        }
        for (int half = 16; half > 0; half /= 2) {
            const T other = __shfl_xor_sync(0xffffffffu, best, half);
            const i64 other_place = __shfl_xor_sync(0xffffffffu, place, half);
            if (beats(other, other_place, best, place)) {
                best = other;
                place = other_place;
            }
        }
        if (threadIdx.x % 32 == 0) out[row] = (u32)place;
    }
}

// A thread for each column of [before, n, after].
template <typename T>
static __device__ __forceinline__ void argmax_columns(const T* x, u32* out, i64 columns, i64 n, i64 after) {
    for (i64 column = FIRST; column < columns; column += STEP) {
        const T* from = x + column / after * n * after + column % after;
        T best = from[0];
        i64 place = 0;
        for (i64 j = 1; j < n; ++j) {
            const T here = from[j * after];
            if (beats(here, j, best, place)) {
                best = here;
                place = j;
            }
        }
        out[column] = (u32)place;
    }
}

// A pick is sorted as (where it goes, its number): 32 bits each. What fills up to a power of two sorts last.
extern "C" __global__ void keys_rows(const void* ids, i64 bytes, u64* keys, i64 count, i64 padded) {
    for (i64 i = FIRST; i < padded; i += STEP) keys[i] = i < count ? (u64)id_at(ids, i, bytes) << 32 | (u64)i : ~0ULL;
}

extern "C" __global__ void keys_along(const void* index, i64 bytes, u64* keys, i64 len, i64 padded, i64 n, i64 after, i64 count) {
    for (i64 i = FIRST; i < padded; i += STEP) {
        u64 key = ~0ULL;
        if (i < len) {
            const i64 block = i / (count * after), a = i % after;
            key = (u64)((block * n + id_at(index, i, bytes)) * after + a) << 32 | (u64)i;
        }
        keys[i] = key;
    }
}

// Bitonic sort (Batcher 1968) of a power of two of keys: `size` is the length of the sequences being merged, `half` the distance compared.
static __device__ __forceinline__ void order(u64& low, u64& high, bool ascending) {
    if ((low > high) == ascending) {
        const u64 keep = low;
        low = high;
        high = keep;
    }
}

// Keys that a block of 256 threads sorts in its shared memory.
#define TILE 2048

// Sorts each tile, as a part of sequences that run up and down in turn (size = 0); or ends the merge of sequences of `size` keys, of which
// what is compared is less than a tile apart.
extern "C" __global__ void __launch_bounds__(256) sort_tiles(u64* keys, i64 count, i64 size) {
    __shared__ u64 tile[TILE];
    const i64 width = count < TILE ? count : TILE;
    for (i64 start = (i64)blockIdx.x * width; start < count; start += (i64)gridDim.x * width) {
        for (i64 i = threadIdx.x; i < width; i += 256) tile[i] = keys[start + i];
        __syncthreads();
        for (i64 merged = size ? size : 2; merged <= (size ? size : width); merged *= 2) {
            for (i64 half = (merged < width ? merged : width) / 2; half > 0; half /= 2) {
                for (i64 p = threadIdx.x; p < width / 2; p += 256) {
                    const i64 i = 2 * p - (p & (half - 1));
                    order(tile[i], tile[i + half], ((start + i) & merged) == 0);
                }
                __syncthreads();
            }
        }
        for (i64 i = threadIdx.x; i < width; i += 256) keys[start + i] = tile[i];
        __syncthreads();
    }
}

// One comparison of every key with the one `half` away, in sequences of `size`.
extern "C" __global__ void sort_step(u64* keys, i64 count, i64 size, i64 half) {
    for (i64 p = FIRST; p < count / 2; p += STEP) {
        const i64 i = 2 * p - (p & (half - 1));
        u64 low = keys[i], high = keys[i + half];
        order(low, high, (i & size) == 0);
        keys[i] = low;
        keys[i + half] = high;
    }
}

// Picks of a run that a block adds up.
#define RUN 32

static __device__ __forceinline__ u64 place_of(const u64* keys, i64 i) { return keys[i] >> 32; }

// Adds up rows of `source` (`width` long) by the place that their sorted keys name: RUN keys a block, whose runs of equal places are written
// to `out` where they lie inside, else to `partial` [tiles, 2, width], first the run that may have begun earlier. `skip` is left alone.
template <typename T>
static __device__ __forceinline__ void add_runs(const u64* keys, const T* source, T* out, T* partial, i64 count, i64 width, i64 tiles, i64 skip) {
    const i64 chunks = (width + 255) / 256;
    for (i64 item = blockIdx.x; item < tiles * chunks; item += gridDim.x) {
        const i64 tile = item / chunks, column = item % chunks * 256 + threadIdx.x;
        if (column >= width) continue;
        const i64 start = tile * RUN, end = start + RUN < count ? start + RUN : count;
        T sum = 0;
        i64 begin = start;
        for (i64 i = start; i < end; ++i) {
            sum += source[(i64)(u32)keys[i] * width + column];
            const u64 place = place_of(keys, i);
            const bool last = i + 1 == end;
            if (!last && place_of(keys, i + 1) == place) continue;
            const bool earlier = begin == start && start > 0 && place_of(keys, start - 1) == place;
            const bool later = last && end < count && place_of(keys, end) == place;
            if (earlier || later) partial[(tile * 2 + (begin == start ? 0 : 1)) * width + column] = sum;
            else if ((i64)place != skip) out[(i64)place * width + column] = sum;
            sum = 0;
            begin = i + 1;
        }
    }
}

// Joins the parts of runs that cross tiles: a block for the tile in which such a run begins.
template <typename T>
static __device__ __forceinline__ void join_runs(const u64* keys, const T* partial, T* out, i64 count, i64 width, i64 tiles, i64 skip) {
    const i64 chunks = (width + 255) / 256;
    for (i64 item = blockIdx.x; item < tiles * chunks; item += gridDim.x) {
        const i64 tile = item / chunks, column = item % chunks * 256 + threadIdx.x;
        const i64 start = tile * RUN, end = start + RUN;
        if (column >= width || end >= count) continue;
        const u64 place = place_of(keys, end - 1);
        if (place_of(keys, end) != place || (i64)place == skip) continue;
        const bool all = place_of(keys, start) == place;
        // Begun earlier: the block of that tile does it.
        if (all && start > 0 && place_of(keys, start - 1) == place) continue;
        T sum = partial[(tile * 2 + (all ? 0 : 1)) * width + column];
        for (i64 next = end; next < count && place_of(keys, next) == place; next += RUN) sum += partial[next / RUN * 2 * width + column];
        out[(i64)place * width + column] = sum;
    }
}

#define GATHERS(name, T)                                                                                                         \
    extern "C" __global__ void take_along_##name(const T* x, const void* index, i64 bytes, T* out, i64 len, i64 n, i64 after,      \
                                                 i64 count) {                                                                    \
        take_along<T>(x, index, bytes, out, len, n, after, count);                                                               \
    }                                                                                                                            \
    extern "C" __global__ void add_along_##name(const T* x, const void* index, i64 bytes, T* out, i64 columns, i64 n, i64 after,   \
                                                i64 count) {                                                                     \
        add_along<T>(x, index, bytes, out, columns, n, after, count);                                                            \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) argmax_rows_##name(const T* x, u32* out, i64 rows, i64 n) {                 \
        argmax_rows<T>(x, out, rows, n);                                                                                         \
    }                                                                                                                            \
    extern "C" __global__ void argmax_columns_##name(const T* x, u32* out, i64 columns, i64 n, i64 after) {                        \
        argmax_columns<T>(x, out, columns, n, after);                                                                            \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) add_runs_##name(const u64* keys, const T* source, T* out, T* partial,       \
                                                                      i64 count, i64 width, i64 tiles, i64 skip) {               \
        add_runs<T>(keys, source, out, partial, count, width, tiles, skip);                                                      \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) join_runs_##name(const u64* keys, const T* partial, T* out, i64 count,      \
                                                                       i64 width, i64 tiles, i64 skip) {                         \
        join_runs<T>(keys, partial, out, count, width, tiles, skip);                                                             \
    }

GATHERS(f32, float)
GATHERS(f64, double)
