// Philox4x32-10 (J. K. Salmon et al., SC 2011), as device/cpu/dropout.rs has it: whether an entry is dropped depends on a seed, a step and its
// position. Word `j` of counter `16 b + l` belongs to position `64 b + 16 j + l`.

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

static __device__ __forceinline__ u32 philox_word(u64 seed, u64 step, u64 position) {
    u32 words[4];
    philox(position / 64 * 16 + position % 16, step, seed, words);
    const u32 j = (u32)(position / 16 % 4);
    return j == 0 ? words[0] : j == 1 ? words[1] : j == 2 ? words[2] : words[3];
}
