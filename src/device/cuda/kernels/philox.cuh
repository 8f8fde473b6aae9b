// Philox4x32-10 (J. K. Salmon et al., SC 2011), as device/cpu/dropout.rs has it: whether an entry is dropped depends on a seed, a step and its
// position. Word `j` of counter `16 b + l` belongs to position `64 b + 16 j + l`.

static __device__ __forceinline__ u32 philox_word(u64 seed, u64 step, u64 position) {
    const u64 counter = position / 64 * 16 + position % 16;
    u32 a = (u32)counter, b = (u32)(counter >> 32), x = (u32)step, y = (u32)(step >> 32);
    u32 first = (u32)seed, second = (u32)(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const u64 left = (u64)a * 0xD2511F53u, right = (u64)x * 0xCD9E8D57u;
        a = (u32)(right >> 32) ^ b ^ first;
        b = (u32)right;
        x = (u32)(left >> 32) ^ y ^ second;
        y = (u32)left;
        first += 0x9E3779B9u;
        second += 0xBB67AE85u;
    }
    const u32 j = (u32)(position / 16 % 4);
    return j == 0 ? a : j == 1 ? b : j == 2 ? x : y;
}
