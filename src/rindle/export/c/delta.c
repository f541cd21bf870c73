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
        for (r = 0; r < rows; ++r) acc[r] = acc[r] + w0[r] * d0 + w1[r] * d1 + w2[r] * d2 + w3[r] * d3;
    }
    for (; i < count; ++i) {
        const int8_t *column = w + columns[i] * rows;
        const int32_t change = changes[i];
        for (r = 0; r < rows; ++r) acc[r] += column[r] * change;
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

static inline void rindle_columns_packed(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const uint8_t *w, int bits, int32_t *acc)
{
    const uint32_t mask = ((uint32_t)1 << bits) - 1;
    const int32_t middle = (int32_t)1 << (bits - 1), stride = (rows * bits + 7) >> 3;
    int32_t i, r;
    for (i = 0; i < count; ++i) {
        const uint8_t *column = w + columns[i] * stride;
        const int32_t change = changes[i];
        uint32_t stock = 0;
        int have = 0;
        for (r = 0; r < rows; ++r) {
            if (have < bits) {
                stock |= (uint32_t)*column++ << have;
                have += 8;
            }
            acc[r] += ((int32_t)(stock & mask) - middle) * change;
            stock >>= bits;
            have -= bits;
        }
    }
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

static inline void rindle_columns64_packed(int32_t count, const int32_t *columns, const int32_t *changes, int32_t rows, const uint8_t *w, int bits, int64_t *acc)
{
    const uint32_t mask = ((uint32_t)1 << bits) - 1;
    const int32_t middle = (int32_t)1 << (bits - 1), stride = (rows * bits + 7) >> 3;
    int32_t i, r;
    for (i = 0; i < count; ++i) {
        const uint8_t *column = w + columns[i] * stride;
        uint32_t stock = 0;
        int have = 0;
        for (r = 0; r < rows; ++r) {
            if (have < bits) {
                stock |= (uint32_t)*column++ << have;
                have += 8;
            }
            acc[r] += ((int32_t)(stock & mask) - middle) * changes[i];
            stock >>= bits;
            have -= bits;
        }
    }
}

