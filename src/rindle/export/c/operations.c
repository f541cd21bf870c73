/* Arm's SIMD forms, where the compiler says that the core has them. They give the same integers as plain C. */
#if defined(__ARM_FEATURE_MVE) && defined(__GNUC__)
#include <arm_mve.h>
#define RINDLE_MVE 1
#endif
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32) && defined(__GNUC__) && !defined(__ARM_BIG_ENDIAN)
#define RINDLE_DSP 1
#define RINDLE_SPARE __attribute__((unused)) /* where MVE takes their place */
#endif
#if defined(__GNUC__)
#define RINDLE_APART __attribute__((noinline)) /* whose loops want all registers, */
#define RINDLE_INTO __attribute__((always_inline)) /* and the number of columns as a constant */
#else
#define RINDLE_APART
#define RINDLE_INTO
#endif

/* (6): v / 2^s, rounded half up. Shifts of negative numbers are arithmetic: rindle_shifts_are_arithmetic. */
static inline int32_t rindle_round(int32_t v, int s)
{
    return s > 0 ? (v + (int32_t)((uint32_t)1 << (s - 1))) >> s : v;
}

static inline int64_t rindle_round64(int64_t v, int s)
{
    return s > 0 ? (v + (int64_t)((uint64_t)1 << (s - 1))) >> s : v;
}

/* (5) */
static inline int32_t rindle_sat(int32_t v, int32_t lo, int32_t hi)
{
#if defined(__ARM_FEATURE_SAT) && defined(__GNUC__)
    if (lo == -32768 && hi == 32767) {
        __asm__("ssat %0, #16, %1" : "=r"(v) : "r"(v));
        return v;
    }
#endif
    return v < lo ? lo : v > hi ? hi : v;
}

static inline int32_t rindle_sat64(int64_t v, int32_t lo, int32_t hi)
{
    return v < lo ? lo : v > hi ? hi : (int32_t)v;
}

/* (18), degree 1: the line of the segment in which u lies. */
static inline int32_t rindle_line(int32_t u, int p, int q, const int16_t *base, const int16_t *slope, int32_t lo, int32_t hi)
{
    const int32_t k = u >> p, t = u & (((int32_t)1 << p) - 1);
    return rindle_sat(base[k] + rindle_round(slope[k] * t, q), lo, hi);
}

/* (19): of a function with f(-x) = one - f(x), from y = f(|x|). */
static inline int32_t rindle_mirror(int32_t x, int32_t y, int32_t one, int32_t lo, int32_t hi)
{
    return x < 0 ? rindle_sat(one - y, lo, hi) : y;
}

/* Volatile, so that no compiler makes a call of memcpy or memset of it: there may be no C library. */
static inline void rindle_copy(int32_t n, const int16_t *from, int16_t *to)
{
    volatile int16_t *out = to;
    int32_t k;
    for (k = 0; k < n; ++k) out[k] = from[k];
}

static inline void rindle_zero(size_t n, void *bytes)
{
    volatile unsigned char *out = (volatile unsigned char *)bytes;
    size_t k;
    for (k = 0; k < n; ++k) out[k] = 0;
}

static inline void rindle_gather(int32_t n, const int32_t *index, const int16_t *from, int16_t *to)
{
    int32_t k;
    for (k = 0; k < n; ++k) to[k] = from[index[k]];
}

/* Rows of an embedding. */
static inline void rindle_look_up_8(int32_t n, const int8_t *row, int16_t *y)
{
    int32_t k;
    for (k = 0; k < n; ++k) y[k] = row[k];
}

static inline void rindle_look_up_packed(int32_t n, const uint8_t *row, int bits, int16_t *y)
{
    const uint32_t mask = ((uint32_t)1 << bits) - 1;
    uint32_t stock = 0;
    int32_t k;
    int have = 0;
    for (k = 0; k < n; ++k) {
        if (have < bits) {
            stock |= (uint32_t)*row++ << have;
            have += 8;
        }
        y[k] = (int16_t)((int32_t)(stock & mask) - ((int32_t)1 << (bits - 1)));
        stock >>= bits;
        have -= bits;
    }
}

/* A convolution's geometry: of the image, the kernel and its steps, (7c). channels: of a group. */
typedef struct {
    int32_t channels, height, width, kernel_height, kernel_width;
    int32_t stride_height, stride_width, dilation_height, dilation_width, padding_height, padding_width;
} rindle_conv;

/* What the weights of one group meet at the element (i, j) of the result, zeros outside the image. x: the group's channels. */
static inline void rindle_patch(const rindle_conv *conv, int32_t i, int32_t j, const int16_t *x, int16_t *patch)
{
    int32_t c, a, b;
    for (c = 0; c < conv->channels; ++c, x += conv->height * conv->width) {
        for (a = 0; a < conv->kernel_height; ++a) {
            const int32_t row = i * conv->stride_height + a * conv->dilation_height - conv->padding_height;
            for (b = 0; b < conv->kernel_width; ++b) {
                const int32_t column = j * conv->stride_width + b * conv->dilation_width - conv->padding_width;
                const int inside = row >= 0 && row < conv->height && column >= 0 && column < conv->width;
                *patch++ = inside ? x[row * conv->width + column] : (int16_t)0;
            }
        }
    }
}
