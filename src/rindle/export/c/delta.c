/* (20): the held code takes what differs from it by more than theta. Lists the columns that changed and by how much; returns
   how many they are. */
static inline int32_t rindle_hold(int32_t n, const int16_t *v, int32_t theta, int16_t *held, int32_t *columns, int32_t *changes)
{
    int32_t count = 0, k;
    for (k = 0; k < n; ++k) {
        const int32_t change = v[k] - held[k];
        if (change > theta || -change > theta) {
            held[k] = v[k];
            columns[count] = k;
            changes[count] = change;
            ++count;
        }
    }
    return count;
}

static inline int32_t rindle_hold_each(int32_t n, const int16_t *v, const int16_t *theta, int16_t *held, int32_t *columns, int32_t *changes)
{
    int32_t count = 0, k;
    for (k = 0; k < n; ++k) {
        const int32_t change = v[k] - held[k];
        if (change > theta[k] || -change > theta[k]) {
            held[k] = v[k];
            columns[count] = k;
            changes[count] = change;
            ++count;
        }
    }
    return count;
}

/* (20) of a layer that runs once per row and so has nothing to remember: what is held is zero. */
static inline void rindle_quiet(int32_t n, int32_t theta, int16_t *v)
{
    int32_t k;
    for (k = 0; k < n; ++k) {
        if (v[k] <= theta && -v[k] <= theta) v[k] = 0;
    }
}

static inline void rindle_quiet_each(int32_t n, const int16_t *theta, int16_t *v)
{
    int32_t k;
    for (k = 0; k < n; ++k) {
        if (v[k] <= theta[k] && -v[k] <= theta[k]) v[k] = 0;
    }
}

/* acc += w times the changes, w stored by column. Every sum on the way is that of some held code, so none overflows. */
static inline void rindle_columns_8(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const int8_t *w, int32_t *acc)
{
    int32_t i, r;
    for (i = 0; i + 4 <= count; i += 4) {
        const int8_t *w0 = w + columns[i] * rows, *w1 = w + columns[i + 1] * rows;
        const int8_t *w2 = w + columns[i + 2] * rows, *w3 = w + columns[i + 3] * rows;
        const int32_t d0 = changes[i], d1 = changes[i + 1];
        const int32_t d2 = changes[i + 2], d3 = changes[i + 3];
        r = 0;
#if defined(RINDLE_MVE)
        for (; r + 4 <= rows; r += 4) {
            int32x4_t sum = vmlaq_n_s32(vldrwq_s32(acc + r), vldrbq_s32(w0 + r), d0);
            sum = vmlaq_n_s32(vmlaq_n_s32(sum, vldrbq_s32(w1 + r), d1), vldrbq_s32(w2 + r), d2);
            vstrwq_s32(acc + r, vmlaq_n_s32(sum, vldrbq_s32(w3 + r), d3));
        }
        r = rows - (rows & 3); /* as it is: gcc then sees how far the rest can go */
#endif
        for (; r < rows; ++r) acc[r] = acc[r] + w0[r] * d0 + w1[r] * d1 + w2[r] * d2 + w3[r] * d3;
    }
    for (; i < count; ++i) {
        const int8_t *column = w + columns[i] * rows;
        const int32_t change = changes[i];
        r = 0;
#if defined(RINDLE_MVE)
        for (; r + 4 <= rows; r += 4) vstrwq_s32(acc + r, vmlaq_n_s32(vldrwq_s32(acc + r), vldrbq_s32(column + r), change));
        r = rows - (rows & 3);
#endif
        for (; r < rows; ++r) acc[r] += column[r] * change;
    }
}

static inline void rindle_columns_16(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const int16_t *w, int32_t *acc)
{
    int32_t i, r;
    for (i = 0; i < count; ++i) {
        const int16_t *column = w + columns[i] * rows;
        const int32_t change = changes[i];
        for (r = 0; r < rows; ++r) acc[r] += column[r] * change;
    }
}

/* Of planes: two rows of four columns, from the bit ``at`` of their words on. The sums are those of q, which rindle_sum makes up for;
   4 times 15 times a change stay within 16 bits where no code is beyond 273. */
static inline RINDLE_INTO void rindle_two_rows(uint32_t q0, uint32_t q1, uint32_t q2, uint32_t q3, uint32_t mask, int at, const int32_t *d, int narrow, int worth, int32_t *acc)
{
    const uint32_t a = (q0 >> at) & mask, b = (q1 >> at) & mask, c = (q2 >> at) & mask, e = (q3 >> at) & mask;
    int32_t first, second;
    if (narrow) {
        const uint32_t lanes = a * (uint32_t)d[0] + b * (uint32_t)d[1] + c * (uint32_t)d[2] + e * (uint32_t)d[3];
        first = (int16_t)(lanes & 0xffff);
        second = (int32_t)(lanes + 0x8000u) >> 16;
    } else {
        first = (int32_t)(a & 0xffff) * d[0] + (int32_t)(b & 0xffff) * d[1] + (int32_t)(c & 0xffff) * d[2] + (int32_t)(e & 0xffff) * d[3];
        second = (int32_t)(a >> 16) * d[0] + (int32_t)(b >> 16) * d[1] + (int32_t)(c >> 16) * d[2] + (int32_t)(e >> 16) * d[3];
    }
    acc[0] += first * worth;
    acc[1] += second * worth;
}

/* Four columns of one plane, or the first alone. */
static inline RINDLE_INTO void rindle_four_columns(const uint32_t *w0, const uint32_t *w1, const uint32_t *w2, const uint32_t *w3, const int32_t *changes, int32_t rows, int bits, int narrow, int worth, int32_t *acc)
{
    const uint32_t mask = rindle_mask(bits);
    const int32_t d[4] = {changes[0], w1 ? changes[1] : 0, w2 ? changes[2] : 0, w3 ? changes[3] : 0};
    int32_t r, i;
    for (r = 0; r < rows - (rows & 7); r += 8, acc += 8) {
        const int32_t word = (r * bits) >> 5, at = ((r * bits) & 31) >> 1;
        const uint32_t q0 = w0[word] >> at, q1 = w1 ? w1[word] >> at : 0, q2 = w2 ? w2[word] >> at : 0, q3 = w3 ? w3[word] >> at : 0;
        rindle_two_rows(q0, q1, q2, q3, mask, 0, d, narrow, worth, acc);
        rindle_two_rows(q0, q1, q2, q3, mask, bits, d, narrow, worth, acc + 2);
        rindle_two_rows(q0, q1, q2, q3, mask, 2 * bits, d, narrow, worth, acc + 4);
        rindle_two_rows(q0, q1, q2, q3, mask, 3 * bits, d, narrow, worth, acc + 6);
    }
    for (i = 0; r < rows; ++r, ++i) {
        acc[i] += (int32_t)rindle_part(w0, bits, r) * worth * d[0];
        if (w1) acc[i] += (int32_t)rindle_part(w1, bits, r) * worth * d[1];
        if (w2) acc[i] += (int32_t)rindle_part(w2, bits, r) * worth * d[2];
        if (w3) acc[i] += (int32_t)rindle_part(w3, bits, r) * worth * d[3];
    }
}

static inline RINDLE_INTO void rindle_columns_plane(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const uint32_t *w, int32_t stride, int bits, int narrow, int worth, int32_t *acc)
{
    int32_t i;
    for (i = 0; i + 4 <= count; i += 4) {
        const uint32_t *w0 = w + columns[i] * stride, *w1 = w + columns[i + 1] * stride;
        const uint32_t *w2 = w + columns[i + 2] * stride, *w3 = w + columns[i + 3] * stride;
        rindle_four_columns(w0, w1, w2, w3, changes + i, rows, bits, narrow, worth, acc);
    }
    for (; i < count; ++i) rindle_four_columns(w + columns[i] * stride, 0, 0, 0, changes + i, rows, bits, narrow, worth, acc);
}

static inline RINDLE_INTO void rindle_columns_planes(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const uint32_t *w, int bits, int alpha, int narrow, int32_t *acc)
{
    const int32_t stride = rindle_stride(rows, bits);
    int worth = alpha;
    if (bits & 4) {
        rindle_columns_plane(count, columns, changes, rows, w, stride, 4, narrow, worth, acc);
        w += rindle_words(rows, 4);
        worth *= 16;
    }
    if (bits & 2) {
        rindle_columns_plane(count, columns, changes, rows, w, stride, 2, narrow, worth, acc);
        w += rindle_words(rows, 2);
        worth *= 4;
    }
    if (bits & 1) rindle_columns_plane(count, columns, changes, rows, w, stride, 1, narrow, worth, acc);
}

static inline void rindle_columns64_8(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const int8_t *w, int64_t *acc)
{
    int32_t i, r;
    for (i = 0; i < count; ++i) {
        for (r = 0; r < rows; ++r) acc[r] += w[columns[i] * rows + r] * changes[i];
    }
}

static inline void rindle_columns64_16(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const int16_t *w, int64_t *acc)
{
    int32_t i, r;
    for (i = 0; i < count; ++i) {
        for (r = 0; r < rows; ++r) acc[r] += w[columns[i] * rows + r] * changes[i];
    }
}

static inline void rindle_columns64_planes(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const uint32_t *w, int bits, int alpha, int beta, int64_t *acc)
{
    const int32_t stride = rindle_stride(rows, bits);
    int32_t i, r;
    for (i = 0; i < count; ++i) {
        const uint32_t *column = w + columns[i] * stride;
        for (r = 0; r < rows; ++r) acc[r] += (int64_t)(alpha * rindle_code(column, rows, bits, r) + beta) * changes[i];
    }
}
