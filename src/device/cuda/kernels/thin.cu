// Matrix products of which one side is at most 48: all of the large operand passes through a multiprocessor once. A block has a tile of
// 256 rows of A and all columns of B, 8 of the inner side at a time in shared memory, the next 8 on their way in registers.

// Mirrors `Thin` in launch.rs. A is m x k, and one of its sides lies along memory; `lead` is the stride of the other. B is k x r, C m x r.
struct Thin {
    i64 m, k, r, lead;
    i64 b[2], c[2];     // strides of rows and columns
    i64 batch[3];       // how far A, B and C move from one product to the next
    i64 terms, sums[2]; // products that are added up, and how far A and B move from one to the next
    i64 pieces, chunks; // how often the sum is cut, and chunks of the inner side in a piece
    i64 piece;          // how far C moves from one piece to the next
    i64 wide;           // A can be read by 16 bytes
    i64 packs;          // C can be written by 16 bytes: 1 along its rows, 2 along its columns, 0 not
};

#define TILE 256
#define DEPTH 8
// A row of the tile in shared memory, so that the lanes of a transposed store meet different banks. The weights' rows have a pack more for the
// same reason.
#define WIDTH (TILE + 4)
#define PADDED(R) ((R) + 4)

// A thread has M x N results, M / 4 packs of rows ROWS packs apart and N / 4 packs of columns GROUPS packs apart: neighbours read and write
// neighbouring packs.
template <int M, int N, int R>
struct Crew {
    static constexpr int GROUPS = R / N, ROWS = TILE / M, THREADS = GROUPS * ROWS;
    static constexpr bool EVEN = TILE * DEPTH / 4 % THREADS == 0;
    static constexpr int PACKS = (TILE * DEPTH / 4 + THREADS - 1) / THREADS, WEIGHTS = (DEPTH * R + THREADS - 1) / THREADS;
};

// Results i .. i + 4 by j .. j + 4 of a thread to a row and a column of C.
template <int M, int N>
static __device__ __forceinline__ void put(const float (&sums)[M][N], int i, int j, float* c, const Thin& p, float alpha, i64 row, i64 column) {
    c += row * p.c[0] + column * p.c[1];
    if (p.packs == 1 && column + 4 <= p.r) {
#pragma unroll
        for (int y = 0; y < 4; ++y) {
            const Pack<float> pack = {{alpha * sums[i + y][j], alpha * sums[i + y][j + 1], alpha * sums[i + y][j + 2], alpha * sums[i + y][j + 3]}};
            if (row + y < p.m) *(Pack<float>*)(c + y * p.c[0]) = pack;
        }
        return;
    }
    if (p.packs == 2 && row + 4 <= p.m) {
#pragma unroll
        for (int x = 0; x < 4; ++x) {
            const Pack<float> pack = {{alpha * sums[i][j + x], alpha * sums[i + 1][j + x], alpha * sums[i + 2][j + x], alpha * sums[i + 3][j + x]}};
            if (column + x < p.r) *(Pack<float>*)(c + x * p.c[1]) = pack;
        }
        return;
    }
#pragma unroll
    for (int y = 0; y < 4; ++y) {
#pragma unroll
        for (int x = 0; x < 4; ++x) {
            if (row + y < p.m && column + x < p.r) c[y * p.c[0] + x * p.c[1]] = alpha * sums[i + y][j + x];
        }
    }
}

// Entries of A from a row and a place of the inner side on, of which there are `left`: 4 of the inner side (ALONG), or of 4 rows. Past the inner
// side's end there are zeros; past the last row whatever may be read, since nobody looks at it.
template <bool ALONG>
static __device__ __forceinline__ Pack<float> guarded(const float* a, const Thin& p, i64 row, int k, int left) {
    Pack<float> pack;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const i64 y = row + (ALONG ? 0 : i) < p.m ? row + (ALONG ? 0 : i) : p.m - 1;
        const int x = k + (ALONG ? i : 0);
        pack.at[i] = x < left ? a[ALONG ? y * p.lead + x : x * p.lead + y] : 0.0f;
    }
    return pack;
}

template <int M, int N, int R, bool ALONG>
static __device__ __forceinline__ void thin(const float* a, const float* b, float* c, const Thin& p, float alpha) {
    using Shape = Crew<M, N, R>;
    constexpr int T = Shape::THREADS;
    static_assert(T % 64 == 0 && T % R == 0, "what a thread brings lies at even distances");
    __shared__ Pack<float> tile[2][DEPTH][WIDTH / 4];
    __shared__ Pack<float> weights[2][DEPTH * PADDED(R) / 4];
    const int me = threadIdx.x, group = me % Shape::GROUPS, rows = me / Shape::GROUPS;
    const i64 tiles = (p.m + TILE - 1) / TILE, block = blockIdx.x;
    const i64 first = block % tiles * TILE, piece = block / tiles % p.pieces, product = block / tiles / p.pieces;
    const i64 steps = (p.k + DEPTH - 1) / DEPTH, all = steps * p.terms;
    const i64 start = piece * p.chunks, end = start + p.chunks < all ? start + p.chunks : all;
    i64 left = p.k - start % steps * DEPTH; // of the inner side in this term

    // This thread's first pack of A and its first number of B, and how far it is to the next of each.
    const i64 row = first + (ALONG ? me / (DEPTH / 4) : me % 64 * 4);
    const int k = ALONG ? me % (DEPTH / 4) * 4 : me / 64;
    const i64 own = ALONG ? row * p.lead + k : k * p.lead + row, stride = (ALONG ? T / (DEPTH / 4) : T / 64) * p.lead;
    const bool full = p.wide && first + TILE <= p.m, by_columns = p.b[0] == 1;
    const int wk = by_columns ? me % DEPTH : me / R, wj = by_columns ? me / DEPTH : me % R;
    const int next_k = by_columns ? 0 : T / R, next_j = by_columns ? T / DEPTH : 0;
    const i64 next = next_k * p.b[0] + next_j * p.b[1];

    // Where they are, how far they move with each chunk, and besides with each term.
    const i64 a_step = ALONG ? DEPTH : DEPTH * p.lead, b_step = DEPTH * p.b[0];
    const i64 a_turn = p.sums[0] - steps * a_step, b_turn = p.sums[1] - steps * b_step;
    const float* from = a + product * p.batch[0] + start / steps * p.sums[0] + start % steps * a_step + own;
    const float* by = b + product * p.batch[1] + start / steps * p.sums[1] + start % steps * b_step + wk * p.b[0] + wj * p.b[1];

    Pack<float> coming[Shape::PACKS];
    float coming_weights[Shape::WEIGHTS];
    const auto fetch_all = [&] {
        const int here = left < DEPTH ? (int)left : DEPTH;
        if (full && here == DEPTH) {
#pragma unroll
            for (int i = 0; i < Shape::PACKS; ++i) {
                if (Shape::EVEN || me + i * T < TILE * DEPTH / 4) coming[i] = *(const Pack<float>*)(from + i * stride);
            }
        } else {
#pragma unroll
            for (int i = 0; i < Shape::PACKS; ++i) {
                const i64 y = row + (ALONG ? i * (T / (DEPTH / 4)) : 0);
                coming[i] = guarded<ALONG>(from - own, p, y, k + (ALONG ? 0 : i * (T / 64)), here);
            }
        }
#pragma unroll
        for (int i = 0; i < Shape::WEIGHTS; ++i) {
            coming_weights[i] = wk + i * next_k < here && wj + i * next_j < p.r ? by[i * next] : 0.0f;
        }
        from += a_step;
        by += b_step;
        left -= DEPTH;
        if (left <= 0) {
            from += a_turn;
            by += b_turn;
            left = p.k;
        }
    };
    const auto put_all = [&](int to) {
#pragma unroll
        for (int i = 0; i < Shape::PACKS; ++i) {
            const int e = me + i * T;
            if (!Shape::EVEN && e >= TILE * DEPTH / 4) continue;
            if (ALONG) {
#pragma unroll
                for (int j = 0; j < 4; ++j) tile[to][k + j][e / DEPTH].at[e / (DEPTH / 4) % 4] = coming[i].at[j];
            } else {
                tile[to][e / 64][e % 64] = coming[i];
            }
        }
#pragma unroll
        for (int i = 0; i < Shape::WEIGHTS; ++i) {
            if (DEPTH * R % T == 0 || me + i * T < DEPTH * R) {
                const int place = (wk + i * next_k) * PADDED(R) + wj + i * next_j;
                weights[to][place / 4].at[place % 4] = coming_weights[i];
            }
        }
    };

    float sums[M][N] = {};
    fetch_all();
    put_all(0);
    __syncthreads();
    int now = 0;
    for (i64 chunk = start; chunk < end; ++chunk, now ^= 1) {
        const bool more = chunk + 1 < end;
        if (more) fetch_all();
#pragma unroll
        for (int k = 0; k < DEPTH; ++k) {
            Pack<float> x[M / 4], w[N / 4];
#pragma unroll
            for (int i = 0; i < M / 4; ++i) x[i] = tile[now][k][rows + i * Shape::ROWS];
#pragma unroll
            for (int j = 0; j < N / 4; ++j) w[j] = weights[now][k * (PADDED(R) / 4) + group + j * Shape::GROUPS];
#pragma unroll
            for (int i = 0; i < M; ++i) {
#pragma unroll
                for (int j = 0; j < N; ++j) sums[i][j] += x[i / 4].at[i % 4] * w[j / 4].at[j % 4];
            }
        }
        if (more) {
            put_all(now ^ 1);
            __syncthreads();
        }
    }
    c += product * p.batch[2] + piece * p.piece;
#pragma unroll
    for (int i = 0; i < M; i += 4) {
#pragma unroll
        for (int j = 0; j < N; j += 4) {
            put<M, N>(sums, i, j, c, p, alpha, first + (rows + i / 4 * Shape::ROWS) * 4, (group + j / 4 * Shape::GROUPS) * 4);
        }
    }
}

// COUNT threads of a block, and BLOCKS of them at a time on a multiprocessor: what their registers and their shared memory allow.
#define THIN(R, M, N, COUNT, BLOCKS)                                                                                          \
    static_assert(Crew<M, N, R>::THREADS == COUNT, "the threads of a block");                                                 \
    extern "C" __global__ void __launch_bounds__(COUNT, BLOCKS)                                                                \
        thin_along_##R(const float* a, const float* b, float* c, Thin p, float alpha) {                                          \
        thin<M, N, R, true>(a, b, c, p, alpha);                                                                                  \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(COUNT, BLOCKS)                                                                \
        thin_across_##R(const float* a, const float* b, float* c, Thin p, float alpha) {                                         \
        thin<M, N, R, false>(a, b, c, p, alpha);                                                                                 \
    }

THIN(8, 4, 4, 128, 4)
THIN(16, 4, 8, 128, 5)
THIN(32, 8, 8, 128, 4)
THIN(48, 8, 8, 192, 2)
