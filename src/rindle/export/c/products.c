static inline int32_t rindle_sum(int32_t n, const int16_t *x)
{
    int32_t sum = 0, k;
    for (k = 0; k < n; ++k) sum += x[k];
    return sum;
}

/* Two 16-bit products are added at once; a word is read from any address. */
#ifdef RINDLE_DSP
typedef uint32_t __attribute__((may_alias, aligned(1))) rindle_any_word;
static inline RINDLE_SPARE uint32_t rindle_word(const void *at)
{
    return *(const rindle_any_word *)at;
}
static inline RINDLE_SPARE int32_t rindle_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
static inline RINDLE_SPARE uint32_t rindle_bytes_02(uint32_t w)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(w));
    return result;
}
static inline RINDLE_SPARE uint32_t rindle_bytes_13(uint32_t w)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(w));
    return result;
}
#endif

/* Puts the columns of a code into the order in which the SIMD form of 8-bit weights meets them: 0 2 1 3. */
static inline void rindle_order_8(int32_t n, int16_t *x)
{
#if defined(RINDLE_DSP) && !defined(RINDLE_MVE)
    int32_t k;
    for (k = 0; k + 4 <= n; k += 4) {
        const int16_t second = x[k + 1];
        x[k + 1] = x[k + 2];
        x[k + 2] = second;
    }
#else
    (void)n;
    (void)x;
#endif
}

/* Of 4-bit weights: 0 4 1 5 2 6 3 7. */
static inline void rindle_order_4(int32_t n, int16_t *x)
{
#ifdef RINDLE_DSP
    int32_t k;
    for (k = 0; k + 8 <= n; k += 8) {
        const int16_t x1 = x[k + 1], x2 = x[k + 2], x3 = x[k + 3];
        x[k + 1] = x[k + 4];
        x[k + 2] = x1;
        x[k + 3] = x[k + 5];
        x[k + 4] = x2;
        x[k + 5] = x[k + 6];
        x[k + 6] = x3;
    }
#else
    (void)n;
    (void)x;
#endif
}

#if defined(RINDLE_DSP) && !defined(RINDLE_MVE)
/* Four columns of a row. The empty statement keeps the compiler from loading more words than it has registers for. */
static inline int32_t rindle_quad_8(const int8_t *w, uint32_t even, uint32_t odd, int32_t sum)
{
    const uint32_t word = rindle_word(w);
    sum = rindle_smlad(rindle_bytes_13(word), odd, rindle_smlad(rindle_bytes_02(word), even, sum));
    __asm__ volatile("" ::: "memory");
    return sum;
}
#endif

/* acc[r] = sum over k of w[r, k] x[k], (7), for weights of 8 bits. */
static inline int32_t rindle_row_8(const int8_t *w, int32_t n, const int16_t *x)
{
    int32_t a = 0, k = 0;
#if defined(RINDLE_DSP) && !defined(RINDLE_MVE)
    for (; k < n - (n & 3); k += 4) {
        a = rindle_quad_8(w + k, rindle_word(x + k), rindle_word(x + k + 2), a);
    }
#endif
    for (; k < n; ++k) a += w[k] * x[k];
    return a;
}

static inline RINDLE_INTO void rindle_rows_8(int32_t rows, const int8_t *w, int32_t n, const int16_t *x, int32_t *acc)
{
    const int32_t whole = rows - (rows & 3);
    int32_t r;
    for (r = 0; r < whole; r += 4) {
        const int8_t *v = w + r * n;
        int32_t a = 0, b = 0, c = 0, d = 0, k = 0;
#if defined(RINDLE_MVE)
        for (; k < n; k += 8) {
            const mve_pred16_t some = vctp16q((uint32_t)(n - k));
            const int16x8_t codes = vldrhq_z_s16(x + k, some);
            a = vmladavaq_p_s16(a, vldrbq_z_s16(v + k, some), codes, some);
            b = vmladavaq_p_s16(b, vldrbq_z_s16(v + n + k, some), codes, some);
            c = vmladavaq_p_s16(c, vldrbq_z_s16(v + 2 * n + k, some), codes, some);
            d = vmladavaq_p_s16(d, vldrbq_z_s16(v + 3 * n + k, some), codes, some);
        }
#elif defined(RINDLE_DSP)
        for (; k < n - (n & 7); k += 8) { /* twice four */
            uint32_t even = rindle_word(x + k), odd = rindle_word(x + k + 2);
            a = rindle_quad_8(v + k, even, odd, a);
            b = rindle_quad_8(v + n + k, even, odd, b);
            c = rindle_quad_8(v + 2 * n + k, even, odd, c);
            d = rindle_quad_8(v + 3 * n + k, even, odd, d);
            even = rindle_word(x + k + 4);
            odd = rindle_word(x + k + 6);
            a = rindle_quad_8(v + k + 4, even, odd, a);
            b = rindle_quad_8(v + n + k + 4, even, odd, b);
            c = rindle_quad_8(v + 2 * n + k + 4, even, odd, c);
            d = rindle_quad_8(v + 3 * n + k + 4, even, odd, d);
        }
        for (; k < n - (n & 3); k += 4) {
            const uint32_t even = rindle_word(x + k), odd = rindle_word(x + k + 2);
            a = rindle_quad_8(v + k, even, odd, a);
            b = rindle_quad_8(v + n + k, even, odd, b);
            c = rindle_quad_8(v + 2 * n + k, even, odd, c);
            d = rindle_quad_8(v + 3 * n + k, even, odd, d);
        }
#endif
        for (; k < n; ++k) {
            a += v[k] * x[k];
            b += v[n + k] * x[k];
            c += v[2 * n + k] * x[k];
            d += v[3 * n + k] * x[k];
        }
        acc[r] = a;
        acc[r + 1] = b;
        acc[r + 2] = c;
        acc[r + 3] = d;
    }
    for (r = whole; r < rows; ++r) acc[r] = rindle_row_8(w + r * n, n, x);
}

/* Of 9 to 16 bits. */
static inline RINDLE_INTO void rindle_rows_16(int32_t rows, const int16_t *w, int32_t n, const int16_t *x, int32_t *acc)
{
    int32_t r;
    for (r = 0; r < rows; ++r, w += n) {
        int32_t a = 0, k = 0;
#if defined(RINDLE_MVE)
        for (; k < n; k += 8) {
            const mve_pred16_t some = vctp16q((uint32_t)(n - k));
            a = vmladavaq_p_s16(a, vldrhq_z_s16(w + k, some), vldrhq_z_s16(x + k, some), some);
        }
#elif defined(RINDLE_DSP)
        for (; k < n - (n & 1); k += 2) a = rindle_smlad(rindle_word(w + k), rindle_word(x + k), a);
#endif
        for (; k < n; ++k) a += w[k] * x[k];
        acc[r] = a;
    }
}

#ifdef RINDLE_DSP
/* 0x000f000f, kept in a register: a shift and the mask are then one instruction. */
static inline uint32_t rindle_mask_4(void)
{
    uint32_t mask = 0x000f000fu;
    __asm__("" : "+r"(mask));
    return mask;
}
/* Eight columns of a row. */
static inline int32_t rindle_eight_4(const uint8_t *w, uint32_t mask, uint32_t x0, uint32_t x1, uint32_t x2, uint32_t x3, int32_t sum)
{
    const uint32_t word = rindle_word(w);
    sum = rindle_smlad(word & mask, x0, sum);
    sum = rindle_smlad((word >> 4) & mask, x1, sum);
    sum = rindle_smlad((word >> 8) & mask, x2, sum);
    sum = rindle_smlad((word >> 12) & mask, x3, sum);
    __asm__ volatile("" ::: "memory");
    return sum;
}
#endif

/* Of 4 bits, two to a byte, stored as w + 8. start = -8 times the sum of x. */
static inline int32_t rindle_row_4(const uint8_t *w, int32_t n, const int16_t *x, int32_t start)
{
    int32_t a = start, k = 0;
#ifdef RINDLE_DSP
    const uint32_t mask = rindle_mask_4();
    for (; k < n - (n & 7); k += 8) {
        const uint32_t x0 = rindle_word(x + k), x1 = rindle_word(x + k + 2);
        a = rindle_eight_4(w + (k >> 1), mask, x0, x1, rindle_word(x + k + 4), rindle_word(x + k + 6), a);
    }
#endif
    for (; k < n - (n & 1); k += 2) {
        const int32_t pair = w[k >> 1];
        a += (pair & 15) * x[k] + (pair >> 4) * x[k + 1];
    }
    if (k < n) a += (w[k >> 1] & 15) * x[k];
    return a;
}

static inline RINDLE_INTO void rindle_rows_4(int32_t rows, const uint8_t *w, int32_t n, const int16_t *x, int32_t start, int32_t *acc)
{
    const int32_t stride = (n + 1) >> 1;
    int32_t whole = 0, r;
#ifdef RINDLE_DSP
    const uint32_t mask = rindle_mask_4();
    if ((n & 7) == 0) whole = rows - (rows & 3);
    for (r = 0; r < whole; r += 4) {
        const uint8_t *v = w + r * stride;
        int32_t a = start, b = start, c = start, d = start, k;
        for (k = 0; k < n; k += 8, v += 4) {
            const uint32_t x0 = rindle_word(x + k), x1 = rindle_word(x + k + 2);
            const uint32_t x2 = rindle_word(x + k + 4), x3 = rindle_word(x + k + 6);
            a = rindle_eight_4(v, mask, x0, x1, x2, x3, a);
            b = rindle_eight_4(v + stride, mask, x0, x1, x2, x3, b);
            c = rindle_eight_4(v + 2 * stride, mask, x0, x1, x2, x3, c);
            d = rindle_eight_4(v + 3 * stride, mask, x0, x1, x2, x3, d);
        }
        acc[r] = a;
        acc[r + 1] = b;
        acc[r + 2] = c;
        acc[r + 3] = d;
    }
#endif
    for (r = whole; r < rows; ++r) acc[r] = rindle_row_4(w + r * stride, n, x, start);
}

/* Of 2 to 7 bits, one after the other from a row's lowest bit, stored as w + 2^(bits-1). start = -2^(bits-1) times the sum of x. */
static inline RINDLE_INTO void rindle_rows_packed(int32_t rows, const uint8_t *w, int32_t n, int bits, const int16_t *x, int32_t start, int32_t *acc)
{
    const uint32_t mask = ((uint32_t)1 << bits) - 1;
    int32_t r, k;
    for (r = 0; r < rows; ++r) {
        uint32_t stock = 0;
        int32_t a = start;
        int have = 0;
        for (k = 0; k < n; ++k) {
            if (have < bits) {
                stock |= (uint32_t)*w++ << have;
                have += 8;
            }
            a += (int32_t)(stock & mask) * x[k];
            stock >>= bits;
            have -= bits;
        }
        acc[r] = a;
    }
}

/* The same with sums of 64 bits, where 2^31 could be reached. */
static inline void rindle_rows64_8(int32_t rows, const int8_t *w, int32_t n, const int16_t *x, int64_t *acc)
{
    int32_t r, k;
    for (r = 0; r < rows; ++r, w += n) {
        acc[r] = 0;
        for (k = 0; k < n; ++k) acc[r] += w[k] * x[k];
    }
}

static inline void rindle_rows64_16(int32_t rows, const int16_t *w, int32_t n, const int16_t *x, int64_t *acc)
{
    int32_t r, k;
    for (r = 0; r < rows; ++r, w += n) {
        acc[r] = 0;
        for (k = 0; k < n; ++k) acc[r] += w[k] * x[k];
    }
}

static inline void rindle_rows64_packed(int32_t rows, const uint8_t *w, int32_t n, int bits, const int16_t *x, int64_t *acc)
{
    const uint32_t mask = ((uint32_t)1 << bits) - 1;
    const int32_t middle = (int32_t)1 << (bits - 1);
    int32_t r, k;
    for (r = 0; r < rows; ++r) {
        uint32_t stock = 0;
        int have = 0;
        acc[r] = 0;
        for (k = 0; k < n; ++k) {
            if (have < bits) {
                stock |= (uint32_t)*w++ << have;
                have += 8;
            }
            acc[r] += ((int32_t)(stock & mask) - middle) * x[k];
            stock >>= bits;
            have -= bits;
        }
    }
}

