#include "emulator.h"

#include <cstring>
#include <vector>

namespace emulator {
namespace {

// The numbers of cublasStatus_t, of cudaDataType and of cublasComputeType_t.
enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_64F = 1, R_16BF = 14 };
enum { COMPUTE_32F_FAST_TF32 = 77 };

// An operand: column-major, of `rows` x `cols` before it is transposed.
struct Operand {
    const void* base;
    int kind;
    int64_t ld;
    bool transposed;
};

int64_t size_of(int kind) { return kind == R_64F ? 8 : kind == R_32F ? 4 : 2; }

bool in_a_block(const void* base, int kind, int64_t ld, int64_t rows, int64_t cols) {
    return rows == 0 || cols == 0 || held(base, ((cols - 1) * ld + rows) * size_of(kind));
}

float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// Ties away from zero, as cvt.rna.
float nearest_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7f800000u) == 0x7f800000u ? x : from_bits((bits + 0x1000u) & 0xffffe000u);
}

template <typename W>
W element(const Operand& of, int64_t row, int64_t col, bool tf32) {
    const int64_t at = of.transposed ? col + row * of.ld : row + col * of.ld;
    if (of.kind == R_64F) return (W)((const double*)of.base)[at];
    if (of.kind == R_16BF) return (W)from_bits((uint32_t)((const uint16_t*)of.base)[at] << 16);
    const float x = ((const float*)of.base)[at];
    return (W)(tf32 ? nearest_tf32(x) : x);
}

// Tiles of two vectors by four columns, whose sums stay in registers: both operands are packed so that a tile reads them in order.
template <typename W>
void multiply(int64_t m, int64_t n, int64_t k, W alpha, const Operand& a, const Operand& b, W beta, W* c, int64_t ldc, bool tf32) {
    typedef W Vector __attribute__((vector_size(64)));
    struct Two {
        Vector vectors[2];
    };
    constexpr int64_t LANES = 64 / sizeof(W), TALL = 2 * LANES, WIDE = 4;
    const int64_t down = (m + TALL - 1) / TALL, across = (n + WIDE - 1) / WIDE;
    std::vector<Two> x(down * k);
    std::vector<W> y(across * k * WIDE);
    for (int64_t tile = 0; tile < down; ++tile) {
        for (int64_t l = 0; l < k; ++l) {
            W* to = (W*)&x[tile * k + l];
            for (int64_t i = 0; i < TALL; ++i) to[i] = tile * TALL + i < m ? element<W>(a, tile * TALL + i, l, tf32) : W(0);
        }
    }
    for (int64_t tile = 0; tile < across; ++tile) {
        for (int64_t j = 0; j < WIDE; ++j) {
            const int64_t col = tile * WIDE + j;
            for (int64_t l = 0; l < k; ++l) y[(tile * k + l) * WIDE + j] = col < n ? element<W>(b, l, col, tf32) : W(0);
        }
    }
    for (int64_t right = 0; right < across; ++right) {
        for (int64_t left = 0; left < down; ++left) {
            Vector sums[WIDE][2] = {};
            const Two* from = &x[left * k];
            const W* factors = &y[right * k * WIDE];
            for (int64_t l = 0; l < k; ++l, ++from, factors += WIDE) {
                for (int64_t j = 0; j < WIDE; ++j) {
                    sums[j][0] += from->vectors[0] * factors[j];
                    sums[j][1] += from->vectors[1] * factors[j];
                }
            }
            for (int64_t j = 0; j < WIDE && right * WIDE + j < n; ++j) {
                const W* sum = (const W*)sums[j];
                for (int64_t i = 0; i < TALL && left * TALL + i < m; ++i) {
                    W& to = c[left * TALL + i + (right * WIDE + j) * ldc];
                    to = beta == W(0) ? alpha * sum[i] : alpha * sum[i] + beta * to;
                }
            }
        }
    }
}

// A factor, which is read when a product is asked for.
struct Factor {
    double value;
    Factor(const void* of, int c_kind) : value(c_kind == R_64F ? *(const double*)of : *(const float*)of) {}
};

int product(int64_t m, int64_t n, int64_t k, Factor alpha, const Operand& a, const Operand& b, Factor beta, void* c, int c_kind,
            int64_t ldc, int compute) {
    if (m < 0 || n < 0 || k < 0) return INVALID_VALUE;
    if (a.ld < (a.transposed ? k : m) || b.ld < (b.transposed ? n : k) || ldc < m) return INVALID_VALUE;
    if (!in_a_block(a.base, a.kind, a.ld, a.transposed ? k : m, a.transposed ? m : k) ||
        !in_a_block(b.base, b.kind, b.ld, b.transposed ? n : k, b.transposed ? k : n) || !in_a_block(c, c_kind, ldc, m, n)) {
        fprintf(stderr, "emulated: a product of %lld x %lld x %lld leaves its blocks\n", (long long)m, (long long)n, (long long)k);
        return EXECUTION_FAILED;
    }
    const bool tf32 = compute == COMPUTE_32F_FAST_TF32;
    if (c_kind == R_64F) {
        multiply<double>(m, n, k, alpha.value, a, b, beta.value, (double*)c, ldc, tf32);
    } else if (c_kind == R_32F) {
        multiply<float>(m, n, k, (float)alpha.value, a, b, (float)beta.value, (float*)c, ldc, tf32);
    } else {
        return NOT_SUPPORTED;
    }
    return SUCCESS;
}

int ready(const Library* handle) { return failure() ? EXECUTION_FAILED : handle->device != current() ? NOT_INITIALIZED : SUCCESS; }

}  // namespace
}  // namespace emulator

using namespace emulator;

API int cublasCreate_v2(Library** handle) {
    if (!current()) return NOT_INITIALIZED;
    return *handle = new Library{current()}, SUCCESS;
}
API int cublasDestroy_v2(Library* handle) { return delete handle, SUCCESS; }
API int cublasSetStream_v2(Library* handle, const void* stream) { return stream == handle->device ? SUCCESS : INVALID_VALUE; }
API int cublasGemmStridedBatchedEx_64(Library* handle, int ta, int tb, int64_t m, int64_t n, int64_t k, const void* alpha, const char* a,
                                      int a_kind, int64_t lda, long long a_step, const char* b, int b_kind, int64_t ldb,
                                      long long b_step, const void* beta, char* c, int c_kind, int64_t ldc, long long c_step,
                                      int64_t count, int compute, int) {
    if (int status = ready(handle)) return status;
    TRACE("product %lld x %lld x %lld, %lld times\n", (long long)m, (long long)n, (long long)k, (long long)count);
    if (idle()) return SUCCESS;
    const Factor by(alpha, c_kind), old(beta, c_kind);
    return in_order([=] {
        for (int64_t i = 0; i < count; ++i) {
            const Operand x{a + i * a_step * size_of(a_kind), a_kind, lda, ta != 0}, y{b + i * b_step * size_of(b_kind), b_kind, ldb, tb != 0};
            if (int status = product(m, n, k, by, x, y, old, c + i * c_step * size_of(c_kind), c_kind, ldc, compute)) return status;
        }
        return (int)SUCCESS;
    });
}
API int cublasGemmBatchedEx_64(Library* handle, int ta, int tb, int64_t m, int64_t n, int64_t k, const void* alpha, const void* const* a,
                               int a_kind, int64_t lda, const void* const* b, int b_kind, int64_t ldb, const void* beta, void* const* c,
                               int c_kind, int64_t ldc, int64_t count, int compute, int) {
    if (int status = ready(handle)) return status;
    TRACE("products %lld x %lld x %lld, %lld of a list\n", (long long)m, (long long)n, (long long)k, (long long)count);
    if (idle()) return SUCCESS;
    const Factor by(alpha, c_kind), old(beta, c_kind);
    return in_order([=] {
        for (int64_t i = 0; i < count; ++i) {
            const Operand x{a[i], a_kind, lda, ta != 0}, y{b[i], b_kind, ldb, tb != 0};
            if (int status = product(m, n, k, by, x, y, old, c[i], c_kind, ldc, compute)) return status;
        }
        return (int)SUCCESS;
    });
}
