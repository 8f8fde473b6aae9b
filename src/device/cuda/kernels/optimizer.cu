// A step of an optimiser over all parameters: blocks take stretches of STRETCH entries, which they find in a table of slots. In the order of
// operations of cpu/optimizer.rs.

#define STRETCH 16384

// Mirrors `Slot::words` in cuda/optimizer.rs: 16 words of 8 bytes.
struct Slot {
    // Its first stretch, counted over all slots before it.
    i64 first;
    i64 len;
    // 0 descent, 1 momentum, 2 Nesterov's, 3 Adam, 4 Adam with the largest second moment.
    i64 kind;
    void* parameter;
    const void* gradient;
    void* moments[3];
    double numbers[8];
};

// The numbers of a step in the kernel's type; what each is depends on the kind.
template <typename T>
struct Numbers {
    T at[8];
    T blend[2];
};

template <int KIND, typename T>
static __device__ __forceinline__ void entry(const Numbers<T>& n, T& p, T g, T& a, T& b, T& c) {
    if (KIND == 0) {  // scale, decay, rate
        p -= n.at[2] * (g * n.at[0] + n.at[1] * p);
    } else if (KIND <= 2) {  // scale, decay, rate, momentum, blend
        g = g * n.at[0] + n.at[1] * p;
        a = a * n.at[3] + n.at[4] * g;
        p -= n.at[2] * (KIND == 2 ? g + n.at[3] * a : a);
    } else {  // scale, decay, keep, beta, beta, rate, root, eps
        g = g * n.at[0] + n.at[1] * p;
        // From the nearer end, so that a beta of 0 gives exactly g.
        a = n.blend[0] < (T)0.5 ? a + n.blend[0] * (g - a) : g - n.at[3] * (g - a);
        b = b * n.at[4] + n.blend[1] * g * g;
        T second = b;
        if (KIND == 4) second = c = b > c ? b : c;
        p = p * n.at[2] - n.at[5] * a / (root(second) / n.at[6] + n.at[7]);
    }
}

template <int KIND, typename T>
static __device__ __forceinline__ void stretch(const Slot& slot, i64 start, i64 end, double shorter) {
    Numbers<T> n;
#pragma unroll
    for (int i = 0; i < 8; ++i) n.at[i] = (T)slot.numbers[i];
    n.at[0] = (T)(slot.numbers[0] * shorter);
    // The difference is taken before it is rounded.
    n.blend[0] = (T)(1.0 - slot.numbers[3]);
    n.blend[1] = (T)(1.0 - slot.numbers[4]);
    const int used = KIND == 0 ? 0 : KIND <= 2 ? 1 : KIND == 3 ? 2 : 3;
    T* p = (T*)slot.parameter;
    const T* g = (const T*)slot.gradient;
    T* m[3] = {(T*)slot.moments[0], (T*)slot.moments[1], (T*)slot.moments[2]};
    bool whole = aligned(p) && aligned(g);
#pragma unroll
    for (int j = 0; j < used; ++j) whole = whole && aligned(m[j]);
    // A stretch begins at a multiple of a pack.
    const i64 last = whole ? start + (end - start) / PACK(T) * PACK(T) : start;
    for (i64 i = start + threadIdx.x * PACK(T); i < last; i += 256 * PACK(T)) {
        Pack<T> value = *(const Pack<T>*)(p + i), kept[3];
        const Pack<T> up = *(const Pack<T>*)(g + i);
#pragma unroll
        for (int j = 0; j < used; ++j) kept[j] = *(const Pack<T>*)(m[j] + i);
#pragma unroll
        for (int e = 0; e < PACK(T); ++e) entry<KIND>(n, value.at[e], up.at[e], kept[0].at[e], kept[1].at[e], kept[2].at[e]);
        *(Pack<T>*)(p + i) = value;
#pragma unroll
        for (int j = 0; j < used; ++j) *(Pack<T>*)(m[j] + i) = kept[j];
    }
    for (i64 i = last + threadIdx.x; i < end; i += 256) {
        T value = p[i], kept[3];
#pragma unroll
        for (int j = 0; j < used; ++j) kept[j] = m[j][i];
        entry<KIND>(n, value, g[i], kept[0], kept[1], kept[2]);
        p[i] = value;
#pragma unroll
        for (int j = 0; j < used; ++j) m[j][i] = kept[j];
    }
}

// The slot of a stretch: the last one that does not begin after it.
static __device__ __forceinline__ const Slot& slot_of(const Slot* slots, i64 count, i64 at) {
    i64 low = 0, high = count;
    while (high - low > 1) {
        const i64 middle = (low + high) / 2;
        if (slots[middle].first <= at) low = middle;
        else high = middle;
    }
    return slots[low];
}

template <typename T>
static __device__ __forceinline__ void step(const Slot* slots, i64 count, i64 stretches, const double* verdict) {
    // [norm, factor of the gradients, sum of the losses, whether to move]
    if (verdict && verdict[3] == 0.0) return;
    const double shorter = verdict ? verdict[1] : 1.0;
    for (i64 at = blockIdx.x; at < stretches; at += gridDim.x) {
        const Slot& slot = slot_of(slots, count, at);
        const i64 start = (at - slot.first) * STRETCH;
        const i64 end = start + STRETCH < slot.len ? start + STRETCH : slot.len;
        switch (slot.kind) {
            case 0: stretch<0, T>(slot, start, end, shorter); break;
            case 1: stretch<1, T>(slot, start, end, shorter); break;
            case 2: stretch<2, T>(slot, start, end, shorter); break;
            case 3: stretch<3, T>(slot, start, end, shorter); break;
            default: stretch<4, T>(slot, start, end, shorter); break;
        }
    }
}

#define STEP_OF(name, T)                                                                                                         \
    extern "C" __global__ void __launch_bounds__(256)                                                                            \
        step_##name(const Slot* slots, i64 count, i64 stretches, const double* verdict) {                                        \
        step<T>(slots, count, stretches, verdict);                                                                               \
    }

STEP_OF(f32, float)
STEP_OF(f64, double)

// The sum of squares, in doubles, of each stretch: of the gradients of a table whose slots have nothing else.
template <typename T>
static __device__ __forceinline__ void squares(const Slot* slots, double* partial, i64 count, i64 stretches) {
    for (i64 at = blockIdx.x; at < stretches; at += gridDim.x) {
        const Slot& slot = slot_of(slots, count, at);
        const i64 start = (at - slot.first) * STRETCH;
        const i64 end = start + STRETCH < slot.len ? start + STRETCH : slot.len;
        const T* g = (const T*)slot.gradient;
        const i64 last = aligned(g) ? start + (end - start) / PACK(T) * PACK(T) : start;
        double sum = 0.0;
#pragma unroll 4
        for (i64 i = start + threadIdx.x * PACK(T); i < last; i += 256 * PACK(T)) {
            const Pack<T> pack = *(const Pack<T>*)(g + i);
#pragma unroll
            for (int e = 0; e < PACK(T); ++e) sum += (double)pack.at[e] * (double)pack.at[e];
        }
        for (i64 i = last + threadIdx.x; i < end; i += 256) sum += (double)g[i] * (double)g[i];
        sum = sum_of_all<256>(sum);
        if (threadIdx.x == 0) partial[at] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(256) table_squares_f32(const Slot* slots, double* partial, i64 count, i64 stretches) {
    squares<float>(slots, partial, count, stretches);
}
extern "C" __global__ void __launch_bounds__(256) table_squares_f64(const Slot* slots, double* partial, i64 count, i64 stretches) {
    squares<double>(slots, partial, count, stretches);
}

// One block: what `judge` in device/optimizer.rs says, from the sums of squares of the stretches.
template <typename T>
static __device__ __forceinline__ void judge(const double* partial, const T* losses, double* verdict, i64 stretches, i64 count, double scale,
                                             double most) {
    double squares = 0.0, loss = 0.0;
    for (i64 i = threadIdx.x; i < stretches; i += 256) squares += partial[i];
    for (i64 i = threadIdx.x; i < count; i += 256) loss += (double)losses[i];
    squares = sum_of_all<256>(squares);
    loss = sum_of_all<256>(loss);
    if (threadIdx.x != 0) return;
    const double norm = sqrt(squares) * fabs(scale);
    const double shorter = most / (norm + 1e-6);
    verdict[0] = norm;
    verdict[1] = shorter < 1.0 ? shorter : 1.0;
    verdict[2] = loss;
    verdict[3] = squares > 1e-280 && norm - norm == 0.0 && loss - loss == 0.0 ? 1.0 : 0.0;
}

extern "C" __global__ void __launch_bounds__(256) judge_f32(const double* partial, const float* losses, double* verdict, i64 stretches,
                                                            i64 count, double scale, double most) {
    judge<float>(partial, losses, verdict, stretches, count, scale, most);
}
extern "C" __global__ void __launch_bounds__(256) judge_f64(const double* partial, const double* losses, double* verdict, i64 stretches,
                                                            i64 count, double scale, double most) {
    judge<double>(partial, losses, verdict, stretches, count, scale, most);
}
