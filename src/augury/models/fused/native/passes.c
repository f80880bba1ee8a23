/* The passes over a block. Compiled once for each instruction set, under the names MARGINS and
 * FEATURES; every loop is plain, so that the compiler makes vectors of it and no bit differs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fused.h"

#ifndef MARGINS
#define MARGINS fused_margins_baseline
#define FEATURES fused_features_baseline
#endif

/* ---- loading --------------------------------------------------------------------------------- */

#define LOAD(TYPE)                                                                             \
    {                                                                                          \
        const char *from = (const char *)c->data + first * c->stride;                          \
        if (c->stride == (int64_t)sizeof(TYPE)) {                                              \
            const TYPE *x = (const TYPE *)from;                                                \
            for (int r = 0; r < n; r++) z[r] = (double)x[r];                                   \
        } else {                                                                               \
            for (int r = 0; r < n; r++, from += c->stride) z[r] = (double)*(const TYPE *)from; \
        }                                                                                      \
        break;                                                                                 \
    }

static void load(const column *c, int64_t first, int n, double *z) {
    switch (c->type) {
    case F32: LOAD(float)
    case F64: LOAD(double)
    case I8: LOAD(int8_t)
    case I16: LOAD(int16_t)
    case I32: LOAD(int32_t)
    case I64: LOAD(int64_t)
    case U8: LOAD(uint8_t)
    case U16: LOAD(uint16_t)
    case U32: LOAD(uint32_t)
    default: LOAD(uint64_t)
    }
    if (!c->missing) return;
    const uint8_t *missing = c->missing + first;
    for (int r = 0; r < n; r++) z[r] = missing[r] ? NAN : z[r];
}

/* ---- operations ------------------------------------------------------------------------------ */

/* What there is of NaN and infinite values. */
static unsigned look(const double *z, int n) {
    int64_t odd = 0;
    for (int r = 0; r < n; r++) {
        double zero = z[r] - z[r]; /* NaN for both */
        odd += zero != 0;
    }
    if (!odd) return 0;
    unsigned found = 0;
    for (int r = 0; r < n; r++)
        found |= isnan(z[r]) ? REFUSED_NAN : isinf(z[r]) ? REFUSED_INFINITE : 0;
    return found;
}

#define EACH(EXPRESSION)              \
    for (int r = 0; r < n; r++) {     \
        double x = z[r];              \
        z[r] = (EXPRESSION);          \
    }                                 \
    break;

static unsigned apply(const operation *o, double *z, int n) {
    const double a = o->a, b = o->b;
    switch (o->kind) {
    case SUBTRACT: EACH(x - a)
    case DIVIDE: EACH(x / a)
    case STANDARDIZE: EACH((x - a) / b)
    case MULTIPLY: EACH(x * a)
    case ADD: EACH(x + a)
    case RESCALE: EACH(x * a + b)
    case CLIP: EACH(x < a ? a : x > b ? b : x)
    case FILL: EACH(x != x ? a : x)
    case REPLACE: EACH(x == a ? b : x)
    case IS_MISSING: EACH(x != x ? 1.0 : 0.0)
    case IS_EQUAL: EACH(x == a ? 1.0 : 0.0)
    case MAGNITUDE: EACH(fabs(x))
    default: return look(z, n) & (unsigned)a;
    }
    return 0;
}

/* ---- looking up ------------------------------------------------------------------------------ */

/* The row of the table for each value. */
static void find(const term *t, const double *keys, const double *z, int n, int32_t *row) {
    int32_t count = (int32_t)t->num_keys;
    if (t->direct) {
        for (int r = 0; r < n; r++) {
            double v = z[r] >= 0 && z[r] < count ? z[r] : 0;
            int32_t code = (int32_t)v;
            row[r] = z[r] == (double)code ? code : z[r] != z[r] ? count + 1 : count;
        }
        return;
    }
    for (int r = 0; r < n; r++) {
        int32_t low = 0, size = count;
        while (size > 1) {
            int32_t half = size / 2;
            low = keys[low + half] <= z[r] ? low + half : low;
            size -= half;
        }
        int known = count > 0 && keys[low] == z[r];
        row[r] = known ? low : z[r] != z[r] ? count + 1 : count;
    }
}

/* One term's values, or rows of its table; what is refused of them. */
static unsigned evaluate(const program *p, const term *t, const column *columns, int64_t first,
                         int n, double *z, int32_t *row) {
    unsigned refused = 0;
    load(columns + t->source, first, n, z);
    for (int64_t i = 0; i < t->num_operations; i++)
        refused |= apply(p->operations + t->first_operation + i, z, n);
    if (t->num_keys < 0) return refused;
    find(t, p->keys + t->first_key, z, n, row);
    const uint8_t *flags = p->flags + t->first_flag;
    unsigned seen = 0;
    for (int r = 0; r < n; r++) seen |= flags[row[r]];
    return refused | seen;
}

static int rows_of(const program *p, const column *columns, int64_t num_outputs) {
    int rows = BLOCK;
    for (int64_t i = 0; i < p->num_sources; i++)
        if (columns[i].stride > 8) rows = NARROW;
    while (rows > NARROW && rows * num_outputs > 4 * BLOCK) rows /= 2;
    return rows;
}

/* ---- sums ------------------------------------------------------------------------------------ */

/* sums[k] are the block's sums of output k. */
static void add(const program *p, const term *t, const double *z, const int32_t *row, int n,
                double *sums) {
    const double *numbers = p->numbers + t->first_number;
    int64_t width = p->num_outputs;
    for (int64_t k = 0; k < width; k++, sums += BLOCK) {
        if (t->num_keys >= 0) {
            for (int r = 0; r < n; r++) sums[r] += numbers[row[r] * width + k];
        } else {
            double weight = numbers[k];
            for (int r = 0; r < n; r++) sums[r] += z[r] * weight;
        }
    }
}

int MARGINS(const program *p, const column *columns, int64_t num_rows, double *out,
            uint8_t *refused) {
    int64_t width = p->num_outputs;
    int rows = rows_of(p, columns, width);
    double z[BLOCK];
    int32_t row[BLOCK];
    double *sums = malloc((size_t)width * BLOCK * sizeof *sums);
    if (!sums) return 1;
    for (int64_t first = 0; first < num_rows; first += rows) {
        int n = num_rows - first < rows ? (int)(num_rows - first) : rows;
        for (int64_t k = 0; k < width; k++) memset(sums + k * BLOCK, 0, (size_t)n * sizeof *sums);
        for (int64_t i = 0; i < p->num_terms; i++) {
            const term *t = p->terms + i;
            refused[t->source] |= (uint8_t)evaluate(p, t, columns, first, n, z, row);
            add(p, t, z, row, n, sums);
        }
        for (int64_t k = 0; k < width; k++)
            for (int r = 0; r < n; r++)
                out[(first + r) * width + k] = sums[k * BLOCK + r] + p->offset[k];
    }
    free(sums);
    return 0;
}

/* ---- features -------------------------------------------------------------------------------- */

void FEATURES(const program *p, const column *columns, int64_t num_rows, double *out,
              uint8_t *refused) {
    int rows = rows_of(p, columns, 1);
    int32_t row[BLOCK];
    for (int64_t first = 0; first < num_rows; first += rows) {
        int n = num_rows - first < rows ? (int)(num_rows - first) : rows;
        for (int64_t i = 0; i < p->num_terms; i++) {
            const term *t = p->terms + i;
            double *z = out + t->output * num_rows + first;
            refused[t->source] |= (uint8_t)evaluate(p, t, columns, first, n, z, row);
            if (t->num_keys < 0) continue;
            const double *numbers = p->numbers + t->first_number;
            for (int r = 0; r < n; r++) z[r] = numbers[row[r]];
        }
    }
}
