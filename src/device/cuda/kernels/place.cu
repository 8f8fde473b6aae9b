// Blocks put into larger ones: the entries of loops over a source, written along the strides of the result.

template <typename T>
static __device__ __forceinline__ void put(const T* source, T* out, i64 len, const Nest& nest) {
    for (i64 i = FIRST; i < len; i += STEP) {
        i64 from, to;
        at(nest, i, from, to);
        out[to] = source[from];
    }
}

struct alignas(16) Sixteen {
    u64 halves[2];
};

extern "C" __global__ void put_1(const unsigned char* source, unsigned char* out, i64 len, Nest nest) { put(source, out, len, nest); }
extern "C" __global__ void put_2(const unsigned short* source, unsigned short* out, i64 len, Nest nest) { put(source, out, len, nest); }
extern "C" __global__ void put_4(const u32* source, u32* out, i64 len, Nest nest) { put(source, out, len, nest); }
extern "C" __global__ void put_8(const u64* source, u64* out, i64 len, Nest nest) { put(source, out, len, nest); }
extern "C" __global__ void put_16(const Sixteen* source, Sixteen* out, i64 len, Nest nest) { put(source, out, len, nest); }
