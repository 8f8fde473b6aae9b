// Activations: one number in, one number out, in packs of 16 bytes. The formulas are those of cpu/activation.rs, the numbers of the
// functions those of `code` in cuda/activation.rs.

static __device__ __forceinline__ float error_function(float x) { return erff(x); }
static __device__ __forceinline__ double error_function(double x) { return erf(x); }
static __device__ __forceinline__ float hyperbolic_tangent(float x) { return tanhf(x); }
static __device__ __forceinline__ double hyperbolic_tangent(double x) { return tanh(x); }

template <typename T>
static __device__ __forceinline__ T logistic(T x) {
    const T e = exponential(x < (T)0 ? x : -x);
    return (x < (T)0 ? e : (T)1) / ((T)1 + e);
}

#define SQRT_HALF 0.70710678118654752440
#define DENSITY 0.39894228040143267794    // 1 / sqrt(2 pi)
#define TANH_SCALE 1.59576912160573071176  // 2 sqrt(2 / pi)
#define CUBIC 0.044715

template <int F, typename T>
static __device__ __forceinline__ T value(T x) {
    switch (F) {
        case 0: {
            const T h = (T)0.5 * x;
            return h * error_function(x * (T)SQRT_HALF) + h;
        }
        case 1: return x * logistic((T)TANH_SCALE * x * ((T)CUBIC * x * x + (T)1));
        case 2: return x < (T)0 ? (T)0 : x;
        case 3: {
            const T y = x < (T)0 ? (T)0 : x;
            return y > (T)6 ? (T)6 : y;
        }
        case 4: return x * logistic(x);
        case 5: return hyperbolic_tangent(x);
        case 6: return logistic(x);
        case 7: return exponential(x);
        default: return logarithm(x);
    }
}

// dy f', from the argument or (tanh, the logistic function, exp) from the result.
template <int F, typename T>
static __device__ __forceinline__ T slope(T x, T dy) {
    switch (F) {
        case 0: {
            const T phi = (T)DENSITY * exponential((T)-0.5 * x * x);
            return dy * (x * phi + ((T)0.5 * error_function(x * (T)SQRT_HALF) + (T)0.5));
        }
        case 1: {
            // Beyond, the slope is 0 or 1 to the last bit, and the cube would overflow.
            T a = x > (T)64 ? (T)64 : x;
            a = a < (T)-64 ? (T)-64 : a;
            const T square = a * a;
            const T s = logistic((T)TANH_SCALE * a * ((T)CUBIC * square + (T)1));
            const T inner = (T)TANH_SCALE * ((T)(3.0 * CUBIC) * square + (T)1);
            return dy * (s * (a * ((T)1 - s) * inner) + s);
        }
        case 2: return (x > (T)0 || x != x) ? dy : (T)0;
        case 3: return (x <= (T)0 || x >= (T)6) ? (T)0 : dy;
        case 4: {
            const T s = logistic(x);
            return dy * s * (x * ((T)1 - s) + (T)1);
        }
        case 5: return dy * ((T)1 - x * x);
        case 6: return dy * x * ((T)1 - x);
        case 7: return dy * x;
        default: return dy / x;
    }
}

template <int F, typename T>
static __device__ __forceinline__ void forward(const T* x, T* y, i64 len) {
    const i64 packs = aligned(x) && aligned(y) ? len / PACK(T) : 0;
    for (i64 i = FIRST; i < packs; i += STEP) {
        Pack<T> pack = ((const Pack<T>*)x)[i];
#pragma unroll
        for (int j = 0; j < PACK(T); ++j) pack.at[j] = value<F>(pack.at[j]);
        ((Pack<T>*)y)[i] = pack;
    }
    for (i64 i = packs * PACK(T) + FIRST; i < len; i += STEP) y[i] = value<F>(x[i]);
}

template <int F, typename T>
static __device__ __forceinline__ void backward(const T* x, const T* dy, T* dx, i64 len) {
    const i64 packs = aligned(x) && aligned(dy) && aligned(dx) ? len / PACK(T) : 0;
    for (i64 i = FIRST; i < packs; i += STEP) {
        Pack<T> pack = ((const Pack<T>*)x)[i];
        const Pack<T> above = ((const Pack<T>*)dy)[i];
#pragma unroll
        for (int j = 0; j < PACK(T); ++j) pack.at[j] = slope<F>(pack.at[j], above.at[j]);
        ((Pack<T>*)dx)[i] = pack;
    }
    for (i64 i = packs * PACK(T) + FIRST; i < len; i += STEP) dx[i] = slope<F>(x[i], dy[i]);
}

#define ACTIVATION(number, name, T)                                                                                              \
    extern "C" __global__ void activate_##number##_##name(const T* x, T* y, i64 len) { forward<number, T>(x, y, len); }            \
    extern "C" __global__ void activate_back_##number##_##name(const T* x, const T* dy, T* dx, i64 len) {                          \
        backward<number, T>(x, dy, dx, len);                                                                                     \
    }

#define ACTIVATIONS(name, T)                                                                                                     \
    ACTIVATION(0, name, T)                                                                                                       \
    ACTIVATION(1, name, T)                                                                                                       \
    ACTIVATION(2, name, T)                                                                                                       \
    ACTIVATION(3, name, T)                                                                                                       \
    ACTIVATION(4, name, T)                                                                                                       \
    ACTIVATION(5, name, T)                                                                                                       \
    ACTIVATION(6, name, T)                                                                                                       \
    ACTIVATION(7, name, T)                                                                                                       \
    ACTIVATION(8, name, T)

ACTIVATIONS(f32, float)
ACTIVATIONS(f64, double)
