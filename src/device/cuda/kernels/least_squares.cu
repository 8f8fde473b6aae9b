// Rows of a factor from their normal equations: a row minimises a H a^T / 2 - a m^T. A warp to a row; entry s of a row, and row s of its
// matrix, belong to lane s % 32, so that a lane reads what it wrote itself, and what others have comes by shuffles.

// The entry (r, s) of H: of a square, or of a lower triangle written row by row.
static __device__ __forceinline__ double entry(const double* h, i64 own, i64 rank, i64 r, i64 s) {
    if (!own) return h[r * rank + s];
    return r >= s ? h[r * (r + 1) / 2 + s] : h[s * (s + 1) / 2 + r];
}

static __device__ __forceinline__ double from_lane(double mine, i64 of) { return __shfl_sync(0xffffffffu, mine, (int)(of % 32)); }

// rest = m - a H.
static __device__ __forceinline__ void begin(const double* m, const double* h, const double* a, double* rest, i64 rank, i64 own) {
    for (i64 s = threadIdx.x % 32; s < rank; s += 32) {
        double sum = m[s];
        for (i64 j = 0; j < rank; ++j) sum -= a[j] * entry(h, own, rank, j, s);
        rest[s] = sum;
    }
}

#define WARP_OF_GRID (FIRST / 32)
#define WARPS (STEP / 32)

// Coordinate descent: each entry in turn goes where the sum of squares is least, not below zero.
extern "C" __global__ void non_negative_rows(const double* m, const double* h, const double* start, double* rest, double* out, i64 rows,
                                             i64 rank, i64 own, i64 rounds, double least) {
    const i64 lane = threadIdx.x % 32;
    for (i64 row = WARP_OF_GRID; row < rows; row += WARPS) {
        const double* matrix = own ? h + row * (rank * (rank + 1) / 2) : h;
        double *left = rest + row * rank, *a = out + row * rank;
        begin(m + row * rank, matrix, start + row * rank, left, rank, own);
        for (i64 s = lane; s < rank; s += 32) a[s] = start[row * rank + s];
        double first = 0.0;
        for (i64 round = 0; round < rounds; ++round) {
            double gained = 0.0;
            for (i64 j = 0; j < rank; ++j) {
                const double diagonal = entry(matrix, own, rank, j, j);
                double step = 0.0;
                if (lane == j % 32 && diagonal > 0.0) {
                    double best = a[j] + left[j] / diagonal;
                    best = best <= 0.0 ? 0.0 : best;
                    step = best - a[j];
                    a[j] = best;
                }
                step = from_lane(step, j);
                if (step == 0.0) continue;
                for (i64 s = lane; s < rank; s += 32) left[s] -= step * entry(matrix, own, rank, j, s);
                gained += diagonal * step * step;
            }
            if (round == 0) first = gained;
            if (gained <= least * first) break;
        }
    }
}

// Where column j of a lower triangle begins that is written column by column, so that lanes of neighbouring rows read side by side: its row i is i
// further, from j on.
static __device__ __forceinline__ i64 column_of(i64 rank, i64 j) { return j * (2 * rank - j - 1) / 2; }

// By Cholesky, column by column, over a copy of the matrix in lower triangles; components without a pivot of their own stay as they start.
extern "C" __global__ void free_rows(const double* m, const double* h, const double* start, double* triangles, double* rest, double* out,
                                     i64 rows, i64 rank, i64 own, double cut) {
    const i64 lane = threadIdx.x % 32, packed = rank * (rank + 1) / 2;
    for (i64 row = WARP_OF_GRID; row < rows; row += WARPS) {
        const double* matrix = own ? h + row * packed : h;
        double *l = triangles + row * packed, *left = rest + row * rank, *a = out + row * rank;
        begin(m + row * rank, matrix, start + row * rank, left, rank, own);
        for (i64 i = lane; i < rank; i += 32) {
            for (i64 j = 0; j <= i; ++j) l[column_of(rank, j) + i] = entry(matrix, own, rank, i, j);
        }
        for (i64 j = 0; j < rank; ++j) {
            double* column = l + column_of(rank, j);
            double pivot = 0.0;
            if (lane == j % 32) pivot = column[j];
            pivot = from_lane(pivot, j);
            const bool kept = pivot > cut * entry(matrix, own, rank, j, j);
            const double root = kept ? sqrt(pivot) : 0.0;
            for (i64 i = j + (lane - j % 32 + 32) % 32; i < rank; i += 32) column[i] = !kept ? 0.0 : i == j ? root : column[i] / root;
            if (!kept) continue;
            for (i64 c = j + 1; c < rank; ++c) {
                const double factor = from_lane(lane == c % 32 ? column[c] : 0.0, c);
                double* later = l + column_of(rank, c);
                for (i64 i = c + (lane - c % 32 + 32) % 32; i < rank; i += 32) later[i] -= column[i] * factor;
            }
        }
        for (i64 j = 0; j < rank; ++j) {
            const double* column = l + column_of(rank, j);
            double found = 0.0;
            if (lane == j % 32) {
                const double pivot = column[j];
                found = pivot > 0.0 ? left[j] / pivot : 0.0;
                left[j] = found;
            }
            found = from_lane(found, j);
            for (i64 i = j + 1 + (lane - (j + 1) % 32 + 32) % 32; i < rank; i += 32) left[i] -= column[i] * found;
        }
        for (i64 j = rank - 1; j >= 0; --j) {
            const double* column = l + column_of(rank, j);
            double sum = 0.0;
            for (i64 i = j + 1 + (lane - (j + 1) % 32 + 32) % 32; i < rank; i += 32) sum += column[i] * left[i];
            sum = sum_of_all<32>(sum);
            if (lane == j % 32) {
                const double pivot = column[j];
                left[j] = pivot > 0.0 ? (left[j] - sum) / pivot : 0.0;
                a[j] = start[row * rank + j] + left[j];
            }
        }
    }
}
