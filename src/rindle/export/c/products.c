static inline int32_t rindle_sum(int32_t n, const int16_t *x)
{
    int32_t sum = 0, k;
    for (k = 0; k < n; ++k) sum += x[k];
    return sum;
}

/* Two 16-bit products are added at once; a word is read from any address. */
#ifdef RINDLE_DSP
typedef uint32_t __attribute__((may_alias, aligned(1))) rindle_any_word;
typedef uint32_t __attribute__((may_alias)) rindle_two;
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

/* Weights below 8 bits are stored as q, of which each is worth alpha q + beta (integers: q - 2^(bits-1)), in planes of 4, 2 and 1 bits, as the digits of their width say: 6 bits are a
   plane of 4 and, worth 2^4, one of 2. A word of a plane has 32 columns of one bit, 16 of two or 8 of four, which is
   32 >> (bits >> 1): column 2i at bit bits * i of its low half and 2i + 1 there in its high half, so that a shift and a mask leave two columns as two lanes of 16 bits. A row has all its words of
   one plane, then those of the next. narrow: no code x is beyond 273, so that the lanes of 15 x over 8 columns stay within 16 bits. */
static inline RINDLE_INTO int32_t rindle_words(int32_t n, int bits)
{
    return (n * bits + 31) >> 5;
}

static inline RINDLE_INTO int32_t rindle_stride(int32_t n, int bits)
{
    return rindle_words(n, bits & 4) + rindle_words(n, bits & 2) + rindle_words(n, bits & 1);
}

/* One of a plane's numbers. */
static inline uint32_t rindle_part(const uint32_t *plane, int bits, int32_t k)
{
    const int32_t in_word = k & ((32 >> (bits >> 1)) - 1);
    return (plane[(k * bits) >> 5] >> (bits * (in_word >> 1) + 16 * (in_word & 1))) & (((uint32_t)1 << bits) - 1);
}

/* q of one weight. */
static inline int32_t rindle_code(const uint32_t *row, int32_t n, int bits, int32_t k)
{
    uint32_t q = 0;
    int plane, low = 0;
    for (plane = 4; plane; plane >>= 1) {
        if ((bits & plane) == 0) continue;
        q |= rindle_part(row, plane, k) << low;
        row += rindle_words(n, plane);
        low += plane;
    }
    return (int32_t)q;
}

/* The lanes' mask, kept in a register: a shift and the mask are then one instruction. */
static inline RINDLE_INTO uint32_t rindle_mask(int bits)
{
    uint32_t mask = (((uint32_t)1 << bits) - 1) * 0x00010001u;
#ifdef __GNUC__
    __asm__("" : "+r"(mask));
#endif
    return mask;
}

/* Two codes for two lanes. */
static inline RINDLE_INTO uint32_t rindle_pair(const int16_t *x, int narrow)
{
#ifdef RINDLE_DSP
    (void)narrow;
    return *(const rindle_two *)(const void *)x; /* codes stand at words */
#else
    if (narrow) return (uint32_t)x[1] + ((uint32_t)x[0] << 16);
    return (uint16_t)x[0] | (uint32_t)x[1] << 16;
#endif
}

/* Eight columns of a row, in a word from the bit ``at`` on. Where no instruction does it, one multiplication gives
   q0 x1 + 2^16 (q0 x0 + q1 x1), whose upper half is the sum of both products. */
static inline RINDLE_INTO int32_t rindle_eight(const uint32_t *word, uint32_t mask, int bits, int at, int narrow, const uint32_t *x, int32_t sum)
{
    const uint32_t q = *word;
#ifdef RINDLE_DSP
    (void)narrow;
    sum = rindle_smlad((q >> at) & mask, x[0], sum);
    sum = rindle_smlad((q >> (at + bits)) & mask, x[1], sum);
    sum = rindle_smlad((q >> (at + 2 * bits)) & mask, x[2], sum);
    sum = rindle_smlad((q >> (at + 3 * bits)) & mask, x[3], sum);
    __asm__ volatile("" ::: "memory"); /* else more words are loaded than there are registers for */
    return sum;
#else
    int i;
    if (narrow) {
        uint32_t lanes = 0x8000u + ((q >> at) & mask) * x[0];
        lanes += ((q >> (at + bits)) & mask) * x[1];
        lanes += ((q >> (at + 2 * bits)) & mask) * x[2];
        lanes += ((q >> (at + 3 * bits)) & mask) * x[3];
        return sum + ((int32_t)lanes >> 16);
    }
    for (i = 0; i < 4; ++i) {
        const uint32_t lanes = (q >> (at + i * bits)) & mask;
        sum += (int32_t)(lanes & 0xffff) * (int16_t)(x[i] & 0xffff) + (int32_t)(lanes >> 16) * ((int32_t)x[i] >> 16);
    }
    return sum;
#endif
}

/* The same of four rows. */
static inline RINDLE_INTO void rindle_four_rows(const uint32_t *words, int32_t stride, uint32_t mask, int bits, int at, int narrow, const int16_t *x, int32_t *a, int32_t *b, int32_t *c, int32_t *d)
{
    const uint32_t pairs[4] = {rindle_pair(x, narrow), rindle_pair(x + 2, narrow), rindle_pair(x + 4, narrow), rindle_pair(x + 6, narrow)};
    *a = rindle_eight(words, mask, bits, at, narrow, pairs, *a);
    *b = rindle_eight(words + stride, mask, bits, at, narrow, pairs, *b);
    *c = rindle_eight(words + 2 * stride, mask, bits, at, narrow, pairs, *c);
    *d = rindle_eight(words + 3 * stride, mask, bits, at, narrow, pairs, *d);
}

#ifdef RINDLE_MVE
/* Four words of each of four rows: in every half word the columns 2i, or 2i + 1, of one word. */
static inline RINDLE_INTO void rindle_four_words(const uint32_t *words, int32_t stride, int bits, const int16_t *x, int32_t *a, int32_t *b, int32_t *c, int32_t *d)
{
    const uint16x8_t lane = vidupq_n_u16(0, 1), mask = vdupq_n_u16((uint16_t)((1u << bits) - 1));
    const uint16x8_t column = vaddq_u16(vandq_u16(lane, vdupq_n_u16(1)), vmulq_n_u16(vshrq_n_u16(lane, 1), (uint16_t)(32 >> (bits >> 1))));
    uint16x8_t q0 = vreinterpretq_u16_u32(vldrwq_u32(words)), q1 = vreinterpretq_u16_u32(vldrwq_u32(words + stride));
    uint16x8_t q2 = vreinterpretq_u16_u32(vldrwq_u32(words + 2 * stride)), q3 = vreinterpretq_u16_u32(vldrwq_u32(words + 3 * stride));
    int i;
    for (i = 0; i < (16 >> (bits >> 1)); ++i, x += 2) {
        const int16x8_t codes = vldrhq_gather_shifted_offset_s16(x, column);
        *a = vmladavaq_s16(*a, vreinterpretq_s16_u16(vandq_u16(q0, mask)), codes);
        *b = vmladavaq_s16(*b, vreinterpretq_s16_u16(vandq_u16(q1, mask)), codes);
        *c = vmladavaq_s16(*c, vreinterpretq_s16_u16(vandq_u16(q2, mask)), codes);
        *d = vmladavaq_s16(*d, vreinterpretq_s16_u16(vandq_u16(q3, mask)), codes);
        q0 = vshlq_r_u16(q0, -bits);
        q1 = vshlq_r_u16(q1, -bits);
        q2 = vshlq_r_u16(q2, -bits);
        q3 = vshlq_r_u16(q3, -bits);
    }
}
#endif

/* acc[r] = start, or what it was before, + worth times the product with one plane. */
static inline RINDLE_INTO void rindle_plane(int32_t rows, const uint32_t *w, int32_t stride, int32_t n, int bits, int narrow, int worth, const int16_t *x, const int32_t *start, int32_t *acc)
{
    const uint32_t mask = rindle_mask(bits);
    const int32_t eights = n - (n & 7), fours = rows - (rows & 3);
    int32_t r, k;
    for (r = 0; r < fours; r += 4) {
        const uint32_t *v = w + r * stride;
        int32_t a = 0, b = 0, c = 0, d = 0;
        k = 0;
#ifdef RINDLE_MVE
        for (; k + (128 >> (bits >> 1)) <= n; k += (128 >> (bits >> 1)), v += 4) rindle_four_words(v, stride, bits, x + k, &a, &b, &c, &d);
#endif
        for (; k < eights; k += (32 >> (bits >> 1)), ++v) {
            rindle_four_rows(v, stride, mask, bits, 0, narrow, x + k, &a, &b, &c, &d);
            if (bits < 4 && k + 8 < eights) rindle_four_rows(v, stride, mask, bits, 4 * bits, narrow, x + k + 8, &a, &b, &c, &d);
            if (bits < 2 && k + 16 < eights) rindle_four_rows(v, stride, mask, bits, 8, narrow, x + k + 16, &a, &b, &c, &d);
            if (bits < 2 && k + 24 < eights) rindle_four_rows(v, stride, mask, bits, 12, narrow, x + k + 24, &a, &b, &c, &d);
        }
        v = w + r * stride;
        for (k = eights; k < n; ++k) {
            a += (int32_t)rindle_part(v, bits, k) * x[k];
            b += (int32_t)rindle_part(v + stride, bits, k) * x[k];
            c += (int32_t)rindle_part(v + 2 * stride, bits, k) * x[k];
            d += (int32_t)rindle_part(v + 3 * stride, bits, k) * x[k];
        }
        acc[r] = (start ? *start : acc[r]) + a * worth;
        acc[r + 1] = (start ? *start : acc[r + 1]) + b * worth;
        acc[r + 2] = (start ? *start : acc[r + 2]) + c * worth;
        acc[r + 3] = (start ? *start : acc[r + 3]) + d * worth;
    }
    for (r = fours; r < rows; ++r) {
        int32_t sum = 0;
        for (k = 0; k < n; ++k) sum += (int32_t)rindle_part(w + r * stride, bits, k) * x[k];
        acc[r] = (start ? *start : acc[r]) + sum * worth;
    }
}

/* A level is alpha q + beta; start = beta times the sum of x. */
static inline RINDLE_INTO void rindle_rows_planes(int32_t rows, const uint32_t *w, int32_t n, int bits, int alpha, int narrow, const int16_t *x, int32_t start, int32_t *acc)
{
    const int32_t stride = rindle_stride(n, bits);
    const int32_t *first = &start;
    int worth = alpha;
    if (bits & 4) {
        rindle_plane(rows, w, stride, n, 4, narrow, worth, x, first, acc);
        w += rindle_words(n, 4);
        worth *= 16;
        first = 0;
    }
    if (bits & 2) {
        rindle_plane(rows, w, stride, n, 2, narrow, worth, x, first, acc);
        w += rindle_words(n, 2);
        worth *= 4;
        first = 0;
    }
    if (bits & 1) rindle_plane(rows, w, stride, n, 1, narrow, worth, x, first, acc);
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

static inline void rindle_rows64_planes(int32_t rows, const uint32_t *w, int32_t n, int bits, int alpha, int beta, const int16_t *x, int64_t *acc)
{
    int32_t r, k;
    for (r = 0; r < rows; ++r, w += rindle_stride(n, bits)) {
        acc[r] = 0;
        for (k = 0; k < n; ++k) acc[r] += (alpha * rindle_code(w, n, bits, k) + beta) * x[k];
    }
}
