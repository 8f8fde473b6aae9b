// Conversions between the element types, through doubles as on the host: floats round to nearest even, once; integers truncate and
// saturate; NaN becomes zero in integers.

struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };

static __device__ __forceinline__ double widen(double x) { return x; }
static __device__ __forceinline__ double widen(float x) { return (double)x; }
static __device__ __forceinline__ double widen(unsigned char x) { return (double)x; }
static __device__ __forceinline__ double widen(u32 x) { return (double)x; }

// Rounded to odd where a double does not hold it: what rounds again to fewer bits then rounds once.
static __device__ __forceinline__ double widen(i64 x) {
    const double toward_zero = __ll2double_rz(x);
    return (i64)toward_zero == x ? toward_zero : __longlong_as_double(__double_as_longlong(toward_zero) | 1);
}

static __device__ __forceinline__ double widen(bf16 x) { return (double)__uint_as_float((u32)x.bits << 16); }

static __device__ __forceinline__ double widen(f16 x) {
    const u32 sign = (u32)(x.bits >> 15) << 31;
    const u32 exponent = (x.bits >> 10) & 31;
    const u32 fraction = x.bits & 1023;
    if (exponent == 0) {
        const float small = (float)fraction * 5.9604644775390625e-8f;  // 2^-24
        return (double)(sign ? -small : small);
    }
    const u32 wide = exponent == 31 ? 255 : exponent + 112;
    return (double)__uint_as_float(sign | wide << 23 | fraction << 13);
}

static __device__ __forceinline__ void narrow(double x, double& out) { out = x; }
static __device__ __forceinline__ void narrow(double x, float& out) { out = (float)x; }

static __device__ __forceinline__ void narrow(double x, unsigned char& out) {
    out = !(x > 0.0) ? 0 : x >= 255.0 ? 255 : (unsigned char)x;
}

static __device__ __forceinline__ void narrow(double x, u32& out) {
    out = !(x > 0.0) ? 0u : x >= 4294967295.0 ? 4294967295u : (u32)x;
}

static __device__ __forceinline__ void narrow(double x, i64& out) {
    if (x != x) out = 0;
    else if (x >= 9223372036854775808.0) out = 9223372036854775807LL;
    else if (x <= -9223372036854775808.0) out = -9223372036854775807LL - 1;
    else out = (i64)x;
}

// The nearest number with `fraction_bits` bits of fraction, ties to even, `bias` and the smallest normal exponent as given.
static __device__ __forceinline__ u32 round_to(double x, int fraction_bits, int bias) {
    const u64 bits = (u64)__double_as_longlong(x);
    const u32 sign = (u32)(bits >> 63);
    const int width = 15 - fraction_bits;
    const u32 top = ((1u << width) - 1) << fraction_bits;  // infinity
    const int exponent = (int)(bits >> 52 & 2047);
    u64 fraction = bits & 0xfffffffffffffULL;
    u32 magnitude;
    if (exponent == 2047) {
        magnitude = fraction ? top | 1u << (fraction_bits - 1) : top;
    } else {
        int wide = exponent - 1023 + bias;
        int drop = 52 - fraction_bits;
        fraction |= exponent ? 1ULL << 52 : 0;
        if (wide <= 0) {
            drop += 1 - wide;
            wide = 0;
        }
        if (drop > 54) {
            magnitude = 0;
        } else {
            const u64 kept = fraction >> drop;
            const u64 rest = fraction & ((1ULL << drop) - 1);
            const u64 half = 1ULL << (drop - 1);
            u64 value = kept + (rest > half || (rest == half && (kept & 1)));
            // The leading one adds 1 to the exponent, so take it back; rounding may carry into the exponent, as it should.
            if (wide > 0) value += (u64)(wide - 1) << fraction_bits;
            magnitude = value >= top ? top : (u32)value;
        }
    }
    return sign << 15 | magnitude;
}

static __device__ __forceinline__ void narrow(double x, f16& out) { out.bits = (unsigned short)round_to(x, 10, 15); }
static __device__ __forceinline__ void narrow(double x, bf16& out) { out.bits = (unsigned short)round_to(x, 7, 127); }

template <typename A, typename B>
static __device__ __forceinline__ void convert(A x, B& out) {
    narrow(widen(x), out);
}

// To doubles there is no second rounding.
static __device__ __forceinline__ void convert(i64 x, double& out) { out = (double)x; }

#define CAST(from, A, to, B)                                                                                                     \
    extern "C" __global__ void cast_##from##_##to(const A* source, B* out, i64 len, Nest nest) {                                  \
        for (i64 i = FIRST; i < len; i += STEP) convert(source[at(nest, i)], out[i]);                                           \
    }

#define CASTS(from, A)                                                                                                           \
    CAST(from, A, f64, double)                                                                                                   \
    CAST(from, A, f32, float)                                                                                                    \
    CAST(from, A, f16, f16)                                                                                                      \
    CAST(from, A, bf16, bf16)                                                                                                    \
    CAST(from, A, u8, unsigned char)                                                                                             \
    CAST(from, A, u32, u32)                                                                                                      \
    CAST(from, A, i64, i64)

CASTS(f64, double)
CASTS(f32, float)
CASTS(f16, f16)
CASTS(bf16, bf16)
CASTS(u8, unsigned char)
CASTS(u32, u32)
CASTS(i64, i64)

// The nearest bf16, ties to even; NaN stays one.
static __device__ __forceinline__ u32 nearest(float x) {
    const u32 bits = __float_as_uint(x);
    return (x != x ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

// The operand of a product, from 16-byte boundaries on: four at a time, as many as neighbours can read side by side.
extern "C" __global__ void round_bf16(const float* source, unsigned short* out, i64 len) {
    const i64 whole = len / 4;
    for (i64 i = FIRST; i < whole; i += STEP) {
        const float4 four = ((const float4*)source)[i];
        uint2 packed;
        packed.x = nearest(four.x) | nearest(four.y) << 16;
        packed.y = nearest(four.z) | nearest(four.w) << 16;
        ((uint2*)out)[i] = packed;
    }
    for (i64 i = 4 * whole + FIRST; i < len; i += STEP) out[i] = (unsigned short)nearest(source[i]);
}

// The singles of what was kept in bf16, four at a time.
extern "C" __global__ void widen_bf16(const unsigned short* source, float* out, i64 len) {
    const i64 whole = len / 4;
    for (i64 i = FIRST; i < whole; i += STEP) {
        const uint2 packed = ((const uint2*)source)[i];
        float4 four;
        four.x = __uint_as_float(packed.x << 16);
        four.y = __uint_as_float(packed.x & 0xffff0000u);
        four.z = __uint_as_float(packed.y << 16);
        four.w = __uint_as_float(packed.y & 0xffff0000u);
        ((float4*)out)[i] = four;
    }
    for (i64 i = 4 * whole + FIRST; i < len; i += STEP) out[i] = __uint_as_float((u32)source[i] << 16);
}
