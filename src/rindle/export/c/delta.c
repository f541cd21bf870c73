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
#endif
        for (; r < rows; ++r) acc[r] = acc[r] + w0[r] * d0 + w1[r] * d1 + w2[r] * d2 + w3[r] * d3;
    }
    for (; i < count; ++i) {
        const int8_t *column = w + columns[i] * rows;
        const int32_t change = changes[i];
        r = 0;
#if defined(RINDLE_MVE)
        for (; r + 4 <= rows; r += 4) vstrwq_s32(acc + r, vmlaq_n_s32(vldrwq_s32(acc + r), vldrbq_s32(column + r), change));
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

/* Of planes: eight rows of four columns. The sums are those of q, which rindle_sum makes up for; 4 times 15 times a change stay within
   16 bits where no code is beyond 273. */
static inline RINDLE_INTO void rindle_eight_rows(const uint32_t *q, const int32_t *change, int count, uint32_t mask, int bits, int narrow, int low, int32_t *acc)
{
    int i, j;
    for (j = 0; j < 4; ++j, acc += 2) {
        uint32_t lanes = 0;
        int32_t first = 0, second = 0;
        for (i = 0; i < count; ++i) {
            const uint32_t two = (q[i] >> j * bits) & mask;
            if (narrow) {
                lanes += two * (uint32_t)change[i];
            } else {
                first += (int32_t)(two & 0xffff) * change[i];
                second += (int32_t)(two >> 16) * change[i];
            }
        }
        if (narrow) {
            first = (int16_t)(lanes & 0xffff);
            second = (int32_t)(lanes + 0x8000u) >> 16;
        }
        acc[0] += first * (1 << low);
        acc[1] += second * (1 << low);
    }
}

static inline RINDLE_INTO void rindle_columns_plane(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const uint32_t *w, int32_t stride, int bits, int narrow, int low, int32_t *acc)
{
    const uint32_t mask = rindle_mask(bits);
    const int32_t whole = rows - (rows & 7);
    int32_t i, r;
    int j;
    for (i = 0; i + 4 <= count; i += 4) {
        const uint32_t *w0 = w + columns[i] * stride, *w1 = w + columns[i + 1] * stride;
        const uint32_t *w2 = w + columns[i + 2] * stride, *w3 = w + columns[i + 3] * stride;
        uint32_t q[4] = {0, 0, 0, 0};
        for (r = 0; r < whole; r += 8) {
            if ((r & (32 / bits - 1)) == 0) {
                q[0] = *w0++;
                q[1] = *w1++;
                q[2] = *w2++;
                q[3] = *w3++;
            }
            rindle_eight_rows(q, changes + i, 4, mask, bits, narrow, low, acc + r);
            for (j = 0; j < 4; ++j) q[j] >>= bits < 4 ? 4 * bits : 0;
        }
    }
    for (; i < count; ++i) {
        const uint32_t *column = w + columns[i] * stride;
        uint32_t q = 0;
        for (r = 0; r < whole; r += 8) {
            if ((r & (32 / bits - 1)) == 0) q = *column++;
            rindle_eight_rows(&q, changes + i, 1, mask, bits, narrow, low, acc + r);
            q >>= bits < 4 ? 4 * bits : 0;
        }
    }
    for (i = 0; whole < rows && i < count; ++i) {
        const uint32_t *column = w + columns[i] * stride;
        for (r = whole; r < rows; ++r) acc[r] += (int32_t)(rindle_part(column, bits, r) << low) * changes[i];
    }
}

static inline RINDLE_INTO void rindle_columns_planes(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const uint32_t *w, int bits, int narrow, int32_t *acc)
{
    const int32_t stride = rindle_stride(rows, bits);
    int low = 0;
    if (bits & 4) {
        rindle_columns_plane(count, columns, changes, rows, w, stride, 4, narrow, low, acc);
        w += rindle_words(rows, 4);
        low += 4;
    }
    if (bits & 2) {
        rindle_columns_plane(count, columns, changes, rows, w, stride, 2, narrow, low, acc);
        w += rindle_words(rows, 2);
        low += 2;
    }
    if (bits & 1) rindle_columns_plane(count, columns, changes, rows, w, stride, 1, narrow, low, acc);
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

static inline void rindle_columns64_planes(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const uint32_t *w, int bits, int64_t *acc)
{
    const int32_t stride = rindle_stride(rows, bits);
    int32_t i, r;
    for (i = 0; i < count; ++i) {
        const uint32_t *column = w + columns[i] * stride;
        for (r = 0; r < rows; ++r) acc[r] += (int64_t)(rindle_code(column, rows, bits, r) - (1 << (bits - 1))) * changes[i];
    }
}
