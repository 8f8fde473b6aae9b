// What every kernel file begins with: the loops of a strided operand, and steps through them.
// Mirrors `Nest` in launch.rs; a host test compares the sizes.

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;

// Up to 8 loops over two operands, the last loop fastest. `order` is at least 1.
struct Nest {
    i64 order;
    i64 size[8];
    i64 stride[2][8];
};

// How far the operands are moved at the `i`-th step. Divisions of 32 bits are several times quicker, so short nests use them.
template <typename I>
static __device__ __forceinline__ void walk(const Nest& nest, I i, i64& a, i64& b) {
    a = 0;
    b = 0;
    for (int l = (int)nest.order - 1; l > 0; --l) {
        const I size = (I)nest.size[l];
        const I rest = i / size;
        const i64 step = (i64)(i - rest * size);
        a += step * nest.stride[0][l];
        b += step * nest.stride[1][l];
        i = rest;
    }
    a += (i64)i * nest.stride[0][0];
    b += (i64)i * nest.stride[1][0];
}

static __device__ __forceinline__ void at(const Nest& nest, i64 i, i64& a, i64& b) {
    if (i < 0x7fffffffLL) walk<u32>(nest, (u32)i, a, b);
    else walk<u64>(nest, (u64)i, a, b);
}

static __device__ __forceinline__ i64 at(const Nest& nest, i64 i) {
    i64 a, b;
    at(nest, i, a, b);
    return a;
}

// The first entry of this thread, and how far it is to its next one, in a loop over entries shared by the whole grid.
#define FIRST ((i64)blockIdx.x * blockDim.x + threadIdx.x)
#define STEP ((i64)gridDim.x * blockDim.x)
