// Random zeros from Philox4x32-10, as in cpu/dropout.rs: word j of counter 16 b + l belongs to position 64 b + 16 j + l.

static __device__ __forceinline__ void philox(u64 counter, u64 step, u64 seed, u32 words[4]) {
    u32 a = (u32)counter, b = (u32)(counter >> 32), x = (u32)step, y = (u32)(step >> 32);
    u32 low = (u32)seed, high = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 first = (u64)a * 0xD2511F53u, second = (u64)x * 0xCD9E8D57u;
        a = (u32)(second >> 32) ^ b ^ low;
        b = (u32)second;
        x = (u32)(first >> 32) ^ y ^ high;
        y = (u32)first;
        low += 0x9E3779B9u;
        high += 0xBB67AE85u;
    }
    words[0] = a;
    words[1] = b;
    words[2] = x;
    words[3] = y;
}

// out = x * factor, or 0 where the word is below `least`; ones in place of x where it is null.
template <typename T>
static __device__ __forceinline__ void dropout(const T* x, T* out, i64 len, i64 seed, i64 step, i64 least, T factor) {
    const i64 counters = (len + 63) / 64 * 16;
    for (i64 counter = FIRST; counter < counters; counter += STEP) {
        u32 words[4];
        philox((u64)counter, (u64)step, (u64)seed, words);
        const i64 first = counter / 16 * 64 + counter % 16;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const i64 i = first + 16 * j;
            // Not a product where the entry is dropped: it may be infinite. A factor of 0 drops all.
            const bool dropped = words[j] < (u32)least || factor == (T)0;
            if (i < len) out[i] = dropped ? (T)0 : x ? x[i] * factor : factor;
        }
    }
}

extern "C" __global__ void dropout_f32(const float* x, float* out, i64 len, i64 seed, i64 step, i64 least, float factor) {
    dropout<float>(x, out, len, seed, step, least, factor);
}
extern "C" __global__ void dropout_f64(const double* x, double* out, i64 len, i64 seed, i64 step, i64 least, double factor) {
    dropout<double>(x, out, len, seed, step, least, factor);
}
