// Small matrices: factorisations by one block of 1024 threads, a warp to a column; eigenvalues; and columns brought to length one. Matrices that are
// factored are column-major without gaps; row r belongs to lane r % 32, so that a lane reads of its warp's columns what it wrote itself.
// Sums are doubles.

// The first row from `start` on that belongs to a lane.
static __device__ __forceinline__ i64 own_row(i64 start, int lane) { return start + ((lane - (int)(start % 32)) & 31); }

// Turns a column from row j down into a Householder reflector H = I - tau v v^T with H x = beta e_j: beta in row j, v below it (v_j counts
// as 1). Squares that leave the range of doubles are taken of the column divided by its largest entry.
template <typename T>
static __device__ __forceinline__ T reflector(T* column, i64 j, i64 m) {
    const int lane = threadIdx.x % 32;
    double sum = 0.0, unit = 1.0;
#pragma unroll 4
    for (i64 r = own_row(j + 1, lane); r < m; r += 32) sum += (double)column[r] * (double)column[r];
    sum = sum_of_all<32>(sum);
    double alpha = __shfl_sync(0xffffffffu, lane == (int)(j % 32) ? (double)column[j] : 0.0, (int)(j % 32));
    if (sum < 1e-280 || sum > 1e280 || fabs(alpha) > 1e140) {
        unit = fabs(alpha);
        for (i64 r = own_row(j + 1, lane); r < m; r += 32) unit = larger_or_nan(unit, fabs((double)column[r]));
        unit = joined_by_all<32, Larger>(unit);
        sum = 0.0;
        if (unit > 0.0) {
            for (i64 r = own_row(j + 1, lane); r < m; r += 32) sum += (double)column[r] / unit * ((double)column[r] / unit);
            sum = sum_of_all<32>(sum);
            alpha /= unit;
        }
        if (sum == 0.0) return (T)0;
    }
    const double norm = sqrt(alpha * alpha + sum);
    const double beta = alpha > 0.0 ? -norm : norm;
    const double factor = 1.0 / (alpha - beta);
#pragma unroll 4
    for (i64 r = own_row(j, lane); r < m; r += 32) {
        const double share = unit == 1.0 ? (double)column[r] : (double)column[r] / unit;
        column[r] = r == j ? (T)(beta * unit) : (T)(share * factor);
    }
    return (T)((beta - alpha) / beta);
}

// A column times H, from row j down.
template <typename T>
static __device__ __forceinline__ void reflect(const T* v, T tau, T* column, i64 j, i64 m) {
    const int lane = threadIdx.x % 32;
    double dot = 0.0;
#pragma unroll 4
    for (i64 r = own_row(j, lane); r < m; r += 32) dot += (r == j ? 1.0 : (double)v[r]) * (double)column[r];
    dot = sum_of_all<32>(dot) * (double)tau;
#pragma unroll 4
    for (i64 r = own_row(j, lane); r < m; r += 32) column[r] = (T)((double)column[r] - dot * (r == j ? 1.0 : (double)v[r]));
}

// A = Q R, thin, with k = min(m, n): R in the upper triangle of `a` and the reflectors below it, the m x k Q in `q`. A warp that has brought
// its column up to date makes the next reflector of it at once: one barrier a column.
template <typename T>
static __device__ void householder(T* a, T* tau, T* q, i64 m, i64 n) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const i64 k = m < n ? m : n;
    for (i64 j = 0; j < k; ++j) {
        if (warp == j % 32) {
            const T factor = reflector(a + j * m, j, m);
            if (lane == 0) tau[j] = factor;
        }
        __syncthreads();
        for (i64 l = own_row(j + 1, warp); l < n; l += 32) reflect(a + j * m, tau[j], a + l * m, j, m);
    }
    // Column l of Q is H_0 .. H_l e_l: the reflectors behind leave e_l alone.
    for (i64 l = warp; l < k; l += 32) {
        T* to = q + l * m;
        for (i64 r = lane; r < m; r += 32) to[r] = r == l ? (T)1 : (T)0;
        for (i64 j = l; j >= 0; --j) reflect(a + j * m, tau[j], to, j, m);
    }
}

// The lower Cholesky factor over `a`, of which the lower triangle is read, and the smallest and the largest of its pivots: 0 and 1 where
// the matrix is not positive definite.
template <typename T>
static __device__ void cholesky(T* a, double* pivots, i64 n) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    double low = 0.0, high = 0.0;
    bool definite = true;
    for (i64 j = 0; j < n; ++j) {
        __syncthreads();
        const T square = a[j + j * n];
        definite = square > (T)0 && square - square == (T)0;
        if (!definite) break;
        const T pivot = root(square);
        low = j == 0 || (double)pivot < low ? (double)pivot : low;
        high = (double)pivot > high ? (double)pivot : high;
        __syncthreads();
        for (i64 i = j + threadIdx.x; i < n; i += 1024) a[i + j * n] = i == j ? pivot : a[i + j * n] / pivot;
        __syncthreads();
        for (i64 c = j + 1 + warp; c < n; c += 32) {
            const T factor = a[c + j * n];
            for (i64 i = c + lane; i < n; i += 32) a[i + c * n] -= a[i + j * n] * factor;
        }
    }
    for (i64 o = threadIdx.x; o < n * n; o += 1024) {
        if (o % n < o / n) a[o] = (T)0;
    }
    if (threadIdx.x == 0) {
        pivots[0] = definite ? low : 0.0;
        pivots[1] = definite ? high : 1.0;
    }
}

// Symmetric matrices of at most so many rows have their eigenvalues found by one block.
#define SIDE 48

// Whom the players of a tournament meet in a round, the one with the lower number first. Their number is even; any two meet once in
// players - 1 rounds.
static __device__ __forceinline__ void meeting(int players, int round, int slot, int& p, int& q) {
    const int others = players - 1;
    const int one = slot == 0 ? others : (round + slot) % others, other = (round + others - slot) % others;
    p = one < other ? one : other;
    q = one < other ? other : one;
}

// x, y = c x - s y, s x + c y with half = s / (1 + c): what a small angle leaves as it is is not rounded.
static __device__ __forceinline__ void turn(double& x, double& y, double s, double half) {
    const double old = x;
    x -= s * (y + half * x);
    y += s * (old - half * y);
}

// Eigenvalues in falling order and eigenvectors as columns, column-major, of a symmetric matrix of which the lower triangle is read: Jacobi's
// rotations, as many at a time as have no row in common, in doubles. What it leaves in `state`: 0 for success, 1 without convergence,
// 2 where an entry is not finite. Beyond n there may be one more player, of a row of zeros that nothing is rotated with.
template <typename T>
static __device__ void jacobi(const T* from, T* values, T* vectors, u32* state, i64 side, i64 row_step, i64 col_step) {
    __shared__ double a[SIDE][SIDE + 1], v[SIDE][SIDE + 1], sine[SIDE / 2], half[SIDE / 2], shift[SIDE / 2];
    __shared__ int first[SIDE / 2], second[SIDE / 2], place[SIDE];
    const int n = (int)side, players = n + n % 2, pairs = players / 2, me = threadIdx.x;
    double largest = 0.0;
    for (int o = me; o < players * players; o += 1024) {
        const int i = o / players, j = o % players, low = i > j ? i : j, high = i > j ? j : i;
        a[i][j] = low < n ? (double)from[low * row_step + high * col_step] : 0.0;
        v[i][j] = i == j ? 1.0 : 0.0;
        largest = larger_or_nan(largest, fabs(a[i][j]));
    }
    largest = joined_by_all<1024, Larger>(largest);
    if (!(largest - largest == 0.0)) {
        if (me == 0) *state = 2;
        return;
    }
    const double unit = largest > 0.0 ? largest : 1.0, enough = sizeof(T) == 4 ? 1e-12 : 1e-16;
    for (int o = me; o < players * players; o += 1024) a[o / players][o % players] /= unit;
    bool done = false;
    for (int sweep = 0; sweep < 40 && !done; ++sweep) {
        for (int round = 0; round < players - 1; ++round) {
            __syncthreads();
            if (me < pairs) {
                int p, q;
                meeting(players, round, me, p, q);
                double tangent = 0.0;
                if (a[p][q] != 0.0) {
                    const double angle = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                    tangent = copysign(1.0 / (fabs(angle) + sqrt(angle * angle + 1.0)), angle);
                }
                const double c = 1.0 / sqrt(tangent * tangent + 1.0), s = tangent * c;
                first[me] = p;
                second[me] = q;
                sine[me] = s;
                half[me] = s / (1.0 + c);
                shift[me] = tangent * a[p][q];
            }
            __syncthreads();
            // Four entries each, which two pairs have in common, and their mirror images; then two neighbours in a row of the vectors.
            for (int o = me; o < pairs * (pairs + n); o += 1024) {
                const int i = o % pairs, j = o / pairs;
                if (j < i) continue;
                const int p = first[i], q = second[i];
                if (j >= pairs) {
                    turn(v[j - pairs][p], v[j - pairs][q], sine[i], half[i]);
                    continue;
                }
                if (i == j) {
                    a[p][p] -= shift[i];
                    a[q][q] += shift[i];
                    a[p][q] = a[q][p] = 0.0;
                    continue;
                }
                const int k = first[j], l = second[j];
                turn(a[p][k], a[q][k], sine[i], half[i]);
                turn(a[p][l], a[q][l], sine[i], half[i]);
                turn(a[p][k], a[p][l], sine[j], half[j]);
                turn(a[q][k], a[q][l], sine[j], half[j]);
                a[k][p] = a[p][k];
                a[l][p] = a[p][l];
                a[k][q] = a[q][k];
                a[l][q] = a[q][l];
            }
        }
        __syncthreads();
        double off = 0.0;
        for (int o = me; o < n * n; o += 1024) {
            if (o / n != o % n) off = larger_or_nan(off, fabs(a[o / n][o % n]));
        }
        done = joined_by_all<1024, Larger>(off) <= enough;
    }
    if (me < n) {
        int before = 0;
        for (int i = 0; i < n; ++i) before += a[i][i] > a[me][me] || (a[i][i] == a[me][me] && i < me);
        place[me] = before;
        values[before] = (T)(a[me][me] * unit);
    }
    if (me == 0) *state = done ? 0 : 1;
    __syncthreads();
    for (int o = me; o < n * n; o += 1024) vectors[place[o / n] * n + o % n] = (T)v[o % n][o / n];
}

// Columns divided by their norms, row-major, and the norms; zero columns stay as they are. A block of 256 threads to a column.
template <typename T>
static __device__ void unit_columns(const T* x, T* out, T* norms, i64 rows, i64 cols, i64 row_step, i64 col_step) {
    for (i64 c = blockIdx.x; c < cols; c += gridDim.x) {
        const T* from = x + c * col_step;
        double norm = 0.0;
        for (i64 r = threadIdx.x; r < rows; r += 256) norm = larger_or_nan(norm, fabs((double)from[r * row_step]));
        norm = joined_by_all<256, Larger>(norm);
        if (norm > 0.0 && norm - norm == 0.0) {
            double sum = 0.0;
            for (i64 r = threadIdx.x; r < rows; r += 256) {
                const double share = (double)from[r * row_step] / norm;
                sum += share * share;
            }
            norm *= sqrt(sum_of_all<256>(sum));
        }
        const T length = (T)norm;
        for (i64 r = threadIdx.x; r < rows; r += 256) out[r * cols + c] = from[r * row_step] / (length > (T)0 ? length : (T)1);
        if (threadIdx.x == 0) norms[c] = length;
    }
}

// Zeros above (lower = 1) or below the diagonal of a column-major matrix without gaps.
template <typename T>
static __device__ void triangle(T* a, i64 rows, i64 cols, i64 lower) {
    for (i64 o = FIRST; o < rows * cols; o += STEP) {
        const i64 row = o % rows, col = o / rows;
        if (lower ? row < col : row > col) a[o] = (T)0;
    }
}

#define SMALL_MATRICES(name, T)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(1024) householder_##name(T* a, T* tau, T* q, i64 m, i64 n) {                     \
        householder<T>(a, tau, q, m, n);                                                                                         \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024) cholesky_##name(T* a, double* pivots, i64 n) { cholesky<T>(a, pivots, n); } \
    extern "C" __global__ void __launch_bounds__(1024) jacobi_##name(const T* a, T* values, T* vectors, u32* state, i64 n,         \
                                                                     i64 row_step, i64 col_step) {                              \
        jacobi<T>(a, values, vectors, state, n, row_step, col_step);                                                             \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) unit_columns_##name(const T* x, T* out, T* norms, i64 rows, i64 cols,       \
                                                                          i64 row_step, i64 col_step) {                          \
        unit_columns<T>(x, out, norms, rows, cols, row_step, col_step);                                                          \
    }                                                                                                                            \
    extern "C" __global__ void triangle_##name(T* a, i64 rows, i64 cols, i64 lower) { triangle<T>(a, rows, cols, lower); }

SMALL_MATRICES(f32, float)
SMALL_MATRICES(f64, double)
