// Random zeros by a counter, as philox.cuh says: a thread computes the four entries of one counter.

// out = x * factor, or 0 where the word is below `least`; ones in place of x where it is null.
template <typename T>
static __device__ __forceinline__ void dropout(const T* x, T* out, i64 len, i64 seed, i64 step, i64 least, T factor) {
    const i64 counters = (len + 63) / 64 * 16;
    for (i64 counter = FIRST; counter < counters; counter += STEP) {
        const i64 first = counter / 16 * 64 + counter % 16;
        // Asked for before the words are known, dropped or not: there is something to do meanwhile.
        T held[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) held[j] = x && first + 16 * j < len ? x[first + 16 * j] : (T)1;
        u32 words[4];
        philox((u64)counter, (u64)step, (u64)seed, words);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            // Not a product where the entry is dropped: it may be infinite. A factor of 0 drops all.
            const bool dropped = words[j] < (u32)least || factor == (T)0;
            if (first + 16 * j < len) out[first + 16 * j] = dropped ? (T)0 : held[j] * factor;
        }
    }
}

extern "C" __global__ void dropout_f32(const float* x, float* out, i64 len, i64 seed, i64 step, i64 least, float factor) {
    dropout<float>(x, out, len, seed, step, least, factor);
}
extern "C" __global__ void dropout_f64(const double* x, double* out, i64 len, i64 seed, i64 step, i64 least, double factor) {
    dropout<double>(x, out, len, seed, step, least, factor);
}
