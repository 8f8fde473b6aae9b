#include "emulator.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace emulator {
namespace {

// The numbers of cusolverStatus_t.
enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 3, EXECUTION_FAILED = 6 };

using Matrix = std::vector<double>;  // column-major, without gaps

template <typename T>
Matrix read(const T* a, int rows, int cols, int ld) {
    Matrix m((size_t)rows * cols);
    for (int j = 0; j < cols; ++j) for (int i = 0; i < rows; ++i) m[i + (size_t)j * rows] = a[i + (size_t)j * ld];
    return m;
}

// The rotation that makes the off-diagonal entry pq of the symmetric [pp pq; pq qq] zero.
struct Rotation {
    double c, s;

    Rotation(double pp, double qq, double pq) {
        const double theta = (qq - pp) / (2 * pq);
        const double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
        c = 1 / sqrt(t * t + 1);
        s = t * c;
    }

    // Of two columns or rows, whose entries lie `step` apart.
    void turn(double* x, double* y, int count, int step) const {
        for (size_t i = 0; i < (size_t)count * step; i += step) {
            const double old = x[i];
            x[i] = c * old - s * y[i];
            y[i] = s * old + c * y[i];
        }
    }
};

// Cyclic Jacobi on a symmetric matrix: eigenvalues on the diagonal, vectors in v's columns.
void jacobi(Matrix& a, Matrix& v, int n) {
    v.assign((size_t)n * n, 0.0);
    for (int i = 0; i < n; ++i) v[i + (size_t)i * n] = 1.0;
    for (int sweep = 0; sweep < 60; ++sweep) {
        double off = 0, all = 0;
        for (int j = 0; j < n; ++j) for (int i = 0; i < n; ++i) (i == j ? all : off) += a[i + (size_t)j * n] * a[i + (size_t)j * n];
        if (!(off > 1e-34 * (all + off))) break;
        for (int p = 0; p < n; ++p) {
            for (int q = p + 1; q < n; ++q) {
                const double apq = a[p + (size_t)q * n];
                if (apq == 0) continue;
                const Rotation by(a[p + (size_t)p * n], a[q + (size_t)q * n], apq);
                by.turn(&a[(size_t)p * n], &a[(size_t)q * n], n, 1);
                by.turn(&a[p], &a[q], n, n);
                by.turn(&v[(size_t)p * n], &v[(size_t)q * n], n, 1);
            }
        }
    }
}

// Hundreds of rotations, each rounded, leave columns whose lengths are a little off: a step of Newton's method, V (3 - V^T V) / 2.
void orthonormalise(Matrix& v, int n) {
    Matrix step((size_t)n * n), old = v;
    for (int j = 0; j < n; ++j) {
        for (int i = 0; i < n; ++i) {
            double dot = 0;
            for (int l = 0; l < n; ++l) dot += old[l + (size_t)i * n] * old[l + (size_t)j * n];
            step[i + (size_t)j * n] = ((i == j) - dot) / 2;
        }
    }
    for (int j = 0; j < n; ++j) {
        for (int l = 0; l < n; ++l) {
            const double factor = step[l + (size_t)j * n];
            for (int i = 0; i < n; ++i) v[i + (size_t)j * n] += factor * old[i + (size_t)l * n];
        }
    }
}

template <typename T>
void eigh(int n, T* a, int lda, T* values) {
    Matrix m = read(a, n, n, lda), v;
    for (int j = 0; j < n; ++j) for (int i = 0; i < j; ++i) m[i + (size_t)j * n] = m[j + (size_t)i * n];
    jacobi(m, v, n);
    orthonormalise(v, n);
    std::vector<int> order(n);
    for (int i = 0; i < n; ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](int i, int j) { return m[i + (size_t)i * n] < m[j + (size_t)j * n]; });
    for (int j = 0; j < n; ++j) {
        values[j] = (T)m[order[j] + (size_t)order[j] * n];
        for (int i = 0; i < n; ++i) a[i + (size_t)j * lda] = (T)v[i + (size_t)order[j] * n];
    }
}

// One-sided Jacobi: columns of `a` are turned until they are orthogonal. m >= n.
template <typename T>
void svd(int m, int n, const T* a, int lda, T* s, T* u, int ldu, T* vt, int ldvt) {
    Matrix x = read(a, m, n, lda), v((size_t)n * n, 0.0);
    for (int i = 0; i < n; ++i) v[i + (size_t)i * n] = 1.0;
    for (int sweep = 0; sweep < 60; ++sweep) {
        bool turned = false;
        for (int p = 0; p < n; ++p) {
            for (int q = p + 1; q < n; ++q) {
                double pp = 0, qq = 0, pq = 0;
                for (int i = 0; i < m; ++i) {
                    const double y = x[i + (size_t)p * m], z = x[i + (size_t)q * m];
                    pp += y * y, qq += z * z, pq += y * z;
                }
                if (!(fabs(pq) > 1e-16 * sqrt(pp * qq))) continue;
                turned = true;
                const Rotation by(pp, qq, pq);
                by.turn(&x[(size_t)p * m], &x[(size_t)q * m], m, 1);
                by.turn(&v[(size_t)p * n], &v[(size_t)q * n], n, 1);
            }
        }
        if (!turned) break;
    }
    orthonormalise(v, n);
    std::vector<double> norms(n);
    std::vector<int> order(n);
    for (int j = 0; j < n; ++j) {
        double sum = 0;
        for (int i = 0; i < m; ++i) sum += x[i + (size_t)j * m] * x[i + (size_t)j * m];
        norms[j] = sqrt(sum);
        order[j] = j;
    }
    std::sort(order.begin(), order.end(), [&](int i, int j) { return norms[i] > norms[j]; });
    Matrix left((size_t)m * n, 0.0);
    const double least = norms.empty() ? 0 : norms[order[0]] * 1e-15;
    for (int j = 0; j < n; ++j) {
        const int from = order[j];
        double* column = &left[(size_t)j * m];
        if (norms[from] > least) {
            for (int i = 0; i < m; ++i) column[i] = x[i + (size_t)from * m] / norms[from];
        } else {
            // Any direction that is orthogonal to the ones before.
            for (int unit = 0; unit < m; ++unit) {
                for (int i = 0; i < m; ++i) column[i] = i == unit;
                for (int again = 0; again < 2; ++again) {
                    for (int l = 0; l < j; ++l) {
                        double dot = 0;
                        for (int i = 0; i < m; ++i) dot += left[i + (size_t)l * m] * column[i];
                        for (int i = 0; i < m; ++i) column[i] -= dot * left[i + (size_t)l * m];
                    }
                }
                double sum = 0;
                for (int i = 0; i < m; ++i) sum += column[i] * column[i];
                if (sum > 0.1 / m) {
                    for (int i = 0; i < m; ++i) column[i] /= sqrt(sum);
                    break;
                }
            }
        }
        s[j] = (T)norms[from];
        for (int i = 0; i < m; ++i) u[i + (size_t)j * ldu] = (T)column[i];
        for (int i = 0; i < n; ++i) vt[j + (size_t)i * ldvt] = (T)v[i + (size_t)from * n];
    }
}

template <typename T>
void qr(int m, int n, T* a, int lda, T* tau) {
    Matrix x = read(a, m, n, lda);
    for (int j = 0; j < std::min(m, n); ++j) {
        double* column = &x[(size_t)j * m];
        double sum = 0;
        for (int i = j + 1; i < m; ++i) sum += column[i] * column[i];
        double factor = 0;
        if (sum > 0) {
            const double norm = sqrt(column[j] * column[j] + sum), beta = column[j] > 0 ? -norm : norm;
            factor = (beta - column[j]) / beta;
            for (int i = j + 1; i < m; ++i) column[i] /= column[j] - beta;
            column[j] = beta;
        }
        tau[j] = (T)factor;
        for (int l = j + 1; l < n; ++l) {
            double* other = &x[(size_t)l * m];
            double dot = other[j];
            for (int i = j + 1; i < m; ++i) dot += column[i] * other[i];
            other[j] -= factor * dot;
            for (int i = j + 1; i < m; ++i) other[i] -= factor * dot * column[i];
        }
    }
    for (int j = 0; j < n; ++j) for (int i = 0; i < m; ++i) a[i + (size_t)j * lda] = (T)x[i + (size_t)j * m];
}

template <typename T>
void form_q(int m, int n, int k, T* a, int lda, const T* tau) {
    Matrix x = read(a, m, n, lda), q((size_t)m * n, 0.0);
    for (int j = 0; j < n; ++j) q[j + (size_t)j * m] = 1.0;
    for (int j = k - 1; j >= 0; --j) {
        for (int l = 0; l < n; ++l) {
            double* other = &q[(size_t)l * m];
            double dot = other[j];
            for (int i = j + 1; i < m; ++i) dot += x[i + (size_t)j * m] * other[i];
            other[j] -= tau[j] * dot;
            for (int i = j + 1; i < m; ++i) other[i] -= tau[j] * dot * x[i + (size_t)j * m];
        }
    }
    for (int j = 0; j < n; ++j) for (int i = 0; i < m; ++i) a[i + (size_t)j * lda] = (T)q[i + (size_t)j * m];
}

template <typename T>
int cholesky(int n, T* a, int lda) {
    Matrix x = read(a, n, n, lda);
    for (int j = 0; j < n; ++j) {
        double sum = x[j + (size_t)j * n];
        for (int l = 0; l < j; ++l) sum -= x[j + (size_t)l * n] * x[j + (size_t)l * n];
        if (!(sum > std::abs((double)a[j + (size_t)j * lda]) * (sizeof(T) == 4 ? 1e-8 : 1e-17))) return j + 1;
        x[j + (size_t)j * n] = sqrt(sum);
        for (int i = j + 1; i < n; ++i) {
            double rest = x[i + (size_t)j * n];
            for (int l = 0; l < j; ++l) rest -= x[i + (size_t)l * n] * x[j + (size_t)l * n];
            x[i + (size_t)j * n] = rest / x[j + (size_t)j * n];
        }
    }
    for (int j = 0; j < n; ++j) for (int i = j; i < n; ++i) a[i + (size_t)j * lda] = (T)x[i + (size_t)j * n];
    return 0;
}

template <typename T>
void solve(int n, int count, const T* a, int lda, T* b, int ldb) {
    for (int c = 0; c < count; ++c) {
        std::vector<double> x(n);
        for (int i = 0; i < n; ++i) {
            double sum = b[i + (size_t)c * ldb];
            for (int j = 0; j < i; ++j) sum -= (double)a[i + (size_t)j * lda] * x[j];
            x[i] = sum / a[i + (size_t)i * lda];
        }
        for (int i = n - 1; i >= 0; --i) {
            double sum = x[i];
            for (int j = i + 1; j < n; ++j) sum -= (double)a[j + (size_t)i * lda] * x[j];
            x[i] = sum / a[i + (size_t)i * lda];
        }
        for (int i = 0; i < n; ++i) b[i + (size_t)c * ldb] = (T)x[i];
    }
}

// `work` in the order of the stream, with what it has to say of the matrix.
template <typename F>
int solve_in_order(int* info, F work) {
    return in_order([=] {
        *info = 0;
        if (!idle()) work();
        return (int)SUCCESS;
    });
}

int ready(const Library* handle, const char* name, int n) {
    if (failure()) return EXECUTION_FAILED;
    TRACE("%s %d\n", name, n);
    return handle->device == current() ? SUCCESS : NOT_INITIALIZED;
}

}  // namespace
}  // namespace emulator

using namespace emulator;

API int cusolverDnCreate(Library** handle) {
    if (failure() || !current()) return failure() ? EXECUTION_FAILED : NOT_INITIALIZED;
    return *handle = new Library{current()}, SUCCESS;
}
API int cusolverDnSetStream(Library* handle, const void* stream) { return stream == handle->device ? SUCCESS : INVALID_VALUE; }

#define SOLVER(S, T)                                                                                                                    \
    API int cusolverDn##S##syevd_bufferSize(void*, int, int, int n, const T*, int, const T*, int* size) { return *size = n, SUCCESS; }  \
    API int cusolverDn##S##syevd(Library* handle, int, int, int n, T* a, int lda, T* w, T*, int, int* info) {                           \
        if (int status = ready(handle, "syevd", n)) return status;                                                                      \
        return solve_in_order(info, [=] { eigh<T>(n, a, lda, w); });                                                                    \
    }                                                                                                                                   \
    API int cusolverDn##S##gesvd_bufferSize(void*, int, int n, int* size) { return *size = n, SUCCESS; }                                \
    API int cusolverDn##S##gesvd(Library* handle, signed char, signed char, int m, int n, T* a, int lda, T* s, T* u, int ldu, T* vt,    \
                                 int ldvt, T*, int, T*, int* info) {                                                                    \
        if (int status = ready(handle, "gesvd", n)) return status;                                                                      \
        if (m < n) return INVALID_VALUE;                                                                                                \
        return solve_in_order(info, [=] { svd<T>(m, n, a, lda, s, u, ldu, vt, ldvt); });                                                \
    }                                                                                                                                   \
    API int cusolverDn##S##geqrf_bufferSize(void*, int, int n, T*, int, int* size) { return *size = n, SUCCESS; }                       \
    API int cusolverDn##S##geqrf(Library* handle, int m, int n, T* a, int lda, T* tau, T*, int, int* info) {                            \
        if (int status = ready(handle, "geqrf", n)) return status;                                                                      \
        return solve_in_order(info, [=] { qr<T>(m, n, a, lda, tau); });                                                                 \
    }                                                                                                                                   \
    API int cusolverDn##S##orgqr_bufferSize(void*, int, int n, int, const T*, int, const T*, int* size) { return *size = n, SUCCESS; }  \
    API int cusolverDn##S##orgqr(Library* handle, int m, int n, int k, T* a, int lda, const T* tau, T*, int, int* info) {               \
        if (int status = ready(handle, "orgqr", n)) return status;                                                                      \
        return solve_in_order(info, [=] { form_q<T>(m, n, k, a, lda, tau); });                                                          \
    }                                                                                                                                   \
    API int cusolverDn##S##potrf_bufferSize(void*, int, int n, T*, int, int* size) { return *size = n, SUCCESS; }                       \
    API int cusolverDn##S##potrf(Library* handle, int, int n, T* a, int lda, T*, int, int* info) {                                      \
        if (int status = ready(handle, "potrf", n)) return status;                                                                      \
        return solve_in_order(info, [=] { *info = cholesky<T>(n, a, lda); });                                                           \
    }                                                                                                                                   \
    API int cusolverDn##S##potrs(Library* handle, int, int n, int count, const T* a, int lda, T* b, int ldb, int* info) {               \
        if (int status = ready(handle, "potrs", n)) return status;                                                                      \
        return solve_in_order(info, [=] { solve<T>(n, count, a, lda, b, ldb); });                                                       \
    }
SOLVER(S, float)
SOLVER(D, double)
