// The sizes of a convolution or pool over channels-last images. Mirrors `Images` in launch.rs; a host test compares the sizes.
struct Images {
    int input[3];
    int output[3];
    int kernel[3];
    int stride[3];
    int dilation[3];
    int before[3];
};

// A position in a stack of images.
struct Place {
    i64 image;
    int at[3];
};

template <typename I>
static __device__ __forceinline__ Place place_among(I i, const int* sizes) {
    Place place;
    for (int m = 2; m >= 0; --m) {
        const I rest = i / (I)sizes[m];
        place.at[m] = (int)(i - rest * (I)sizes[m]);
        i = rest;
    }
    place.image = (i64)i;
    return place;
}

// Divisions of 32 bits are several times quicker.
static __device__ __forceinline__ Place place_of(i64 i, const int* sizes) {
    return i < 0x7fffffffLL ? place_among<u32>((u32)i, sizes) : place_among<u64>((u64)i, sizes);
}

// The input entry that output `o` sees by tap `k` along mode `m`; -1 where that lies outside.
static __device__ __forceinline__ int seen(const Images& g, int m, int o, int k) {
    const int i = o * g.stride[m] + k * g.dilation[m] - g.before[m];
    return i < g.input[m] ? i : -1;
}

// The output that sees input entry `i` by tap `k` along mode `m`; -1 where there is none.
static __device__ __forceinline__ int seer(const Images& g, int m, int i, int k) {
    const int from = i + g.before[m] - k * g.dilation[m];
    const int o = g.stride[m] == 1 ? from : from / g.stride[m];
    return from >= 0 && o * g.stride[m] == from && o < g.output[m] ? o : -1;
}

// Some neighbouring channels, read and written in one piece.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
    T of[N];
};
