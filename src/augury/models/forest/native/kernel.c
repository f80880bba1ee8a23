/* Scores blocks of rows. Compiled once for each instruction set, under the name KERNEL. */
#include <math.h>
#include <string.h>

#include "forest.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#ifndef KERNEL
#define KERNEL forest_run_baseline
#endif
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))

typedef uint64_t word __attribute__((vector_size(32), may_alias)); /* a bit a row */

static const word ZEROS = {0, 0, 0, 0};
static const word ONES = {~0ull, ~0ull, ~0ull, ~0ull};

INLINE word choose(word mask, word right, word left) { return (mask & right) | (~mask & left); }

INLINE word at(const word *masks, uint32_t offset) {
    return *(const word *)((const char *)masks + offset);
}

/* ---- ranks to masks ---------------------------------------------------------------------- */

/* Bit planes of 256 bytes, lowest bit first. */
NOINLINE void slice(const uint8_t *rank, int num_bits, word *planes) {
    uint32_t *out = (uint32_t *)planes;
    for (int i = 0; i < 8; i++) {
#if defined(__AVX2__)
        __m256i v = _mm256_load_si256((const __m256i *)rank + i);
        v = _mm256_slli_epi16(v, 8 - num_bits); /* wanted bits to the top; neighbours' bits fall out */
        for (int b = num_bits - 1; b >= 0; b--) {
            out[b * 8 + i] = (uint32_t)_mm256_movemask_epi8(v);
            v = _mm256_add_epi8(v, v);
        }
#elif defined(__SSE2__)
        __m128i low = _mm_load_si128((const __m128i *)rank + 2 * i);
        __m128i high = _mm_load_si128((const __m128i *)rank + 2 * i + 1);
        low = _mm_slli_epi16(low, 8 - num_bits);
        high = _mm_slli_epi16(high, 8 - num_bits);
        for (int b = num_bits - 1; b >= 0; b--) {
            out[b * 8 + i] = (uint32_t)_mm_movemask_epi8(low)
                             | (uint32_t)_mm_movemask_epi8(high) << 16;
            low = _mm_add_epi8(low, low);
            high = _mm_add_epi8(high, high);
        }
#else
        for (int b = 0; b < num_bits; b++) {
            uint32_t bits = 0;
            for (int r = 0; r < 32; r++) bits |= (uint32_t)(rank[32 * i + r] >> b & 1) << r;
            out[b * 8 + i] = bits;
        }
#endif
    }
}

/* equal[v] = "the four bits are v". */
INLINE void decode(const word *planes, int num_bits, word *equal) {
    word p[4];
    for (int b = 0; b < 4; b++) p[b] = b < num_bits ? planes[b] : ZEROS;
    word low[4] = {~p[0] & ~p[1], p[0] & ~p[1], ~p[0] & p[1], p[0] & p[1]};
    word high[4] = {~p[2] & ~p[3], p[2] & ~p[3], ~p[2] & p[3], p[2] & p[3]};
    for (int v = 0; v < 16; v++) equal[v] = high[v >> 2] & low[v & 3];
}

/* masks[k] = "rank >= k" | missing, for k = 0 to size, rounded up to whole sixteens. */
NOINLINE void compare_ranks(const uint8_t *rank, int size, word missing, word *masks) {
    word planes[8], low[16], high[16];
    int num_bits = 32 - __builtin_clz((unsigned)size);
    slice(rank, num_bits, planes);
    decode(planes, num_bits < 4 ? num_bits : 4, low);
    for (int v = 14; v >= 0; v--) low[v] |= low[v + 1]; /* now: low digit >= v */
    if (num_bits <= 4) {
        for (int v = 0; v < 16; v++) masks[v] = low[v] | missing;
        return;
    }
    decode(planes + 4, num_bits - 4, high);
    word above = ZEROS;
    for (int h = size >> 4; h >= 0; h--) {
        word more = above | missing;
        for (int v = 0; v < 16; v++) masks[16 * h + v] = more | (high[h] & low[v]);
        above |= high[h];
    }
}

/* masks[c] = "category is c" for c < size; then "some other one"; then "missing". */
NOINLINE void compare_categories(const uint8_t *code, int size, word missing, word *masks) {
    word planes[8], low[16], high[16], known = ZEROS;
    slice(code, 8, planes);
    decode(planes, 4, low);
    decode(planes + 4, 4, high);
    for (int c = 0; c < size; c++) {
        masks[c] = low[c & 15] & high[c >> 4] & ~missing;
        known |= masks[c];
    }
    masks[size] = ~known & ~missing;
    masks[size + 1] = missing;
}

NOINLINE void join_categories(const group *g, word *masks) {
    for (int i = 0; i < g->num_category_splits; i++) {
        const category_split *split = g->category_splits + i;
        word any = ZEROS;
        for (uint32_t j = 0; j < split->count; j++)
            any |= masks[g->category_terms[split->begin + j]];
        masks[split->target] = any;
    }
}

/* ---- trees to codes ---------------------------------------------------------------------- */

/* The planes of a complete tree's code, highest bit first. */
INLINE void complete1(const uint16_t *splits, const word *masks, word *code) {
    code[0] = masks[splits[0]];
}

#define COMPLETE(DEPTH, BELOW, LINKAGE)                                                     \
    LINKAGE void complete##DEPTH(const uint16_t *splits, const word *masks, word *code) {   \
        word left[BELOW], right[BELOW];                                                     \
        complete##BELOW(splits + 1, masks, left);                                           \
        complete##BELOW(splits + (1 << BELOW), masks, right);                               \
        word mask = masks[splits[0]];                                                   \
        code[0] = mask;                                                                     \
        for (int i = 0; i < BELOW; i++) code[i + 1] = choose(mask, right[i], left[i]);      \
    }

COMPLETE(2, 1, INLINE)
COMPLETE(3, 2, INLINE)
COMPLETE(4, 3, NOINLINE)
COMPLETE(5, 4, NOINLINE)
COMPLETE(6, 5, NOINLINE)
COMPLETE(7, 6, NOINLINE)
COMPLETE(8, 7, NOINLINE)

/* One call a tree; planes lowest bit first. */
INLINE void complete(const tree *t, const uint16_t *splits, const word *masks, word *planes) {
    word code[CODE_BITS];
    switch (t->bits) {
        case 0: break;
        case 1: complete1(splits, masks, code); break;
        case 2: complete2(splits, masks, code); break;
        case 3: complete3(splits, masks, code); break;
        case 4: complete4(splits, masks, code); break;
        case 5: complete5(splits, masks, code); break;
        case 6: complete6(splits, masks, code); break;
        case 7: complete7(splits, masks, code); break;
        default: complete8(splits, masks, code); break;
    }
    for (int b = 0; b < t->bits; b++) planes[b] = code[t->bits - 1 - b];
}

INLINE void run_program(const tree *t, const recipe *how, word *masks, word *planes) {
    char *base = (char *)masks;
    for (const step *s = how->steps, *end = s + how->num_steps; s < end; s++)
        *(word *)(base + s->target) =
            choose(*(word *)(base + s->mask), *(word *)(base + s->right), *(word *)(base + s->left));
    for (int b = 0; b < t->bits; b++) planes[b] = at(masks, how->planes[b]);
}

#if defined(__AVX2__)
/* Transposes the 8 x 8 bits of each 64-bit element. */
INLINE __m256i transpose_bits(__m256i x) {
    __m256i t;
    t = _mm256_and_si256(_mm256_xor_si256(x, _mm256_srli_epi64(x, 7)),
                         _mm256_set1_epi64x(0x00AA00AA00AA00AA));
    x = _mm256_xor_si256(x, _mm256_xor_si256(t, _mm256_slli_epi64(t, 7)));
    t = _mm256_and_si256(_mm256_xor_si256(x, _mm256_srli_epi64(x, 14)),
                         _mm256_set1_epi64x(0x0000CCCC0000CCCC));
    x = _mm256_xor_si256(x, _mm256_xor_si256(t, _mm256_slli_epi64(t, 14)));
    t = _mm256_and_si256(_mm256_xor_si256(x, _mm256_srli_epi64(x, 28)),
                         _mm256_set1_epi64x(0x00000000F0F0F0F0));
    return _mm256_xor_si256(x, _mm256_xor_si256(t, _mm256_slli_epi64(t, 28)));
}

INLINE void put_codes(__m256i x, uint8_t *codes) {
    x = transpose_bits(x);
    _mm_store_si128((__m128i *)codes, _mm256_castsi256_si128(x));
    _mm_store_si128((__m128i *)(codes + 128), _mm256_extracti128_si256(x, 1));
}
#endif

/* The inverse of slice: codes[r] has bit b set if bit r of planes[b] is. */
NOINLINE void gather_codes(const word *planes, int num_bits, uint8_t *codes) {
#if defined(__AVX2__)
    __m256i p[8];
    for (int b = 0; b < 8; b++) p[b] = b < num_bits ? (__m256i)planes[b] : _mm256_setzero_si256();
    for (int h = 0; h < 2; h++) { /* low, then high 8 bytes of each half */
        __m256i a = h ? _mm256_unpackhi_epi8(p[0], p[1]) : _mm256_unpacklo_epi8(p[0], p[1]);
        __m256i b = h ? _mm256_unpackhi_epi8(p[2], p[3]) : _mm256_unpacklo_epi8(p[2], p[3]);
        __m256i c = h ? _mm256_unpackhi_epi8(p[4], p[5]) : _mm256_unpacklo_epi8(p[4], p[5]);
        __m256i d = h ? _mm256_unpackhi_epi8(p[6], p[7]) : _mm256_unpacklo_epi8(p[6], p[7]);
        __m256i ab = _mm256_unpacklo_epi16(a, b), cd = _mm256_unpacklo_epi16(c, d);
        put_codes(_mm256_unpacklo_epi32(ab, cd), codes + 64 * h);
        put_codes(_mm256_unpackhi_epi32(ab, cd), codes + 64 * h + 16);
        ab = _mm256_unpackhi_epi16(a, b);
        cd = _mm256_unpackhi_epi16(c, d);
        put_codes(_mm256_unpacklo_epi32(ab, cd), codes + 64 * h + 32);
        put_codes(_mm256_unpackhi_epi32(ab, cd), codes + 64 * h + 48);
    }
#else
    for (int j = 0; j < 32; j++) {
        uint64_t x = 0, t;
        for (int b = 0; b < num_bits; b++)
            x |= (uint64_t)((const uint8_t *)(planes + b))[j] << (8 * b);
        t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAull;
        x ^= t ^ (t << 7);
        t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCull;
        x ^= t ^ (t << 14);
        t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0ull;
        x ^= t ^ (t << 28);
        for (int r = 0; r < 8; r++) codes[8 * j + r] = (uint8_t)(x >> (8 * r));
    }
#endif
}

/* ---- codes to sums ----------------------------------------------------------------------- */

/* Adds the values of COUNT trees in their order; their codes lie `span` bytes apart. */
#define ADD_SOME(NAME, TYPE, COUNT)                                                            \
    NOINLINE void NAME##COUNT(const tree *const *trees, const uint8_t *const *codes, int n,    \
                              TYPE *sum) {                                                     \
        const TYPE *table[COUNT];                                                              \
        const uint8_t *code[COUNT];                                                            \
        for (int i = 0; i < COUNT; i++) table[i] = trees[i]->table, code[i] = codes[i];        \
        for (int r = 0; r < n; r++) {                                                          \
            TYPE v = sum[r];                                                                   \
            for (int i = 0; i < COUNT; i++) v += table[i][code[i][r]];                         \
            sum[r] = v;                                                                        \
        }                                                                                      \
    }

#define ADD(NAME, TYPE)                                                                        \
    ADD_SOME(NAME, TYPE, 4)                                                                    \
    ADD_SOME(NAME, TYPE, 1)                                                                    \
    NOINLINE void NAME##_vector(const tree *t, const uint8_t *codes, int width, int n,         \
                                TYPE *sums, ptrdiff_t span) {                                  \
        const TYPE *table = t->table;                                                          \
        for (int r = 0; r < n; r++)                                                            \
            for (int k = 0; k < width; k++) sums[k * span + r] += table[codes[r] * width + k]; \
    }

ADD(add_float, float)
ADD(add_double, double)

#if defined(__AVX2__)
/* Bytes of the table's values for 32 codes; SIXTEENS: tables of 16 codes that there are. */
INLINE __m256i look_up(const uint8_t *bytes, const __m256i *place, int sixteens) {
    __m256i found = _mm256_setzero_si256();
    for (int q = 0; q < sixteens; q++) {
        __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes + q));
        found = _mm256_or_si256(found, _mm256_shuffle_epi8(t, place[q]));
    }
    return found;
}

/* Places in each table of 16; the high bit is set where the code belongs to another one. */
INLINE void find_places(__m256i code, __m256i *place, int sixteens) {
    for (int q = 0; q < sixteens; q++)
        place[q] = sixteens == 1 ? code
                                 : _mm256_add_epi8(_mm256_xor_si256(code, _mm256_set1_epi8((char)(q << 4))),
                                                   _mm256_set1_epi8(0x70));
}

INLINE void add_8(float *sum, __m256i value) {
    _mm256_store_ps(sum, _mm256_add_ps(_mm256_load_ps(sum), _mm256_castsi256_ps(value)));
}

INLINE void add_4(double *sum, __m256i value) {
    _mm256_store_pd(sum, _mm256_add_pd(_mm256_load_pd(sum), _mm256_castsi256_pd(value)));
}

INLINE void add_bytes_to_floats(const uint8_t *bytes, const uint8_t *codes, float *sum,
                                int sixteens) {
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    for (int r = 0; r < BLOCK; r += 32) {
        __m256i code = _mm256_load_si256((const __m256i *)(codes + r)), place[4], b[4];
        find_places(_mm256_permutevar8x32_epi32(code, order), place, sixteens);
        for (int i = 0; i < 4; i++) b[i] = look_up(bytes + 16 * sixteens * i, place, sixteens);
        __m256i low = _mm256_unpacklo_epi8(b[0], b[1]), high = _mm256_unpacklo_epi8(b[2], b[3]);
        add_8(sum + r, _mm256_unpacklo_epi16(low, high));
        add_8(sum + r + 8, _mm256_unpackhi_epi16(low, high));
        low = _mm256_unpackhi_epi8(b[0], b[1]);
        high = _mm256_unpackhi_epi8(b[2], b[3]);
        add_8(sum + r + 16, _mm256_unpacklo_epi16(low, high));
        add_8(sum + r + 24, _mm256_unpackhi_epi16(low, high));
    }
}

INLINE void add_words(double *sum, const __m256i *word) {
    __m256i low = _mm256_unpacklo_epi16(word[0], word[1]);
    __m256i high = _mm256_unpacklo_epi16(word[2], word[3]);
    add_4(sum, _mm256_unpacklo_epi32(low, high));
    add_4(sum + 4, _mm256_unpackhi_epi32(low, high));
    low = _mm256_unpackhi_epi16(word[0], word[1]);
    high = _mm256_unpackhi_epi16(word[2], word[3]);
    add_4(sum + 8, _mm256_unpacklo_epi32(low, high));
    add_4(sum + 12, _mm256_unpackhi_epi32(low, high));
}

INLINE void add_bytes_to_doubles(const uint8_t *bytes, const uint8_t *codes, double *sum,
                                 int sixteens) {
    const __m256i pairs = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
                                           0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    for (int r = 0; r < BLOCK; r += 32) {
        __m256i code = _mm256_load_si256((const __m256i *)(codes + r)), place[2], b[8], word[4];
        code = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(code, pairs), 0xd8);
        find_places(code, place, sixteens);
        for (int i = 0; i < 8; i++) b[i] = look_up(bytes + 16 * sixteens * i, place, sixteens);
        for (int i = 0; i < 4; i++) word[i] = _mm256_unpacklo_epi8(b[2 * i], b[2 * i + 1]);
        add_words(sum + r, word);
        for (int i = 0; i < 4; i++) word[i] = _mm256_unpackhi_epi8(b[2 * i], b[2 * i + 1]);
        add_words(sum + r + 16, word);
    }
}

/* One tree of few codes, a whole block of rows. */
NOINLINE void add_bytes_float(const tree *t, const uint8_t *codes, float *sum) {
    if (t->bits <= 4) add_bytes_to_floats(t->bytes, codes, sum, 1);
    else if (t->bits == 5) add_bytes_to_floats(t->bytes, codes, sum, 2);
    else add_bytes_to_floats(t->bytes, codes, sum, 4);
}

NOINLINE void add_bytes_double(const tree *t, const uint8_t *codes, double *sum) {
    if (t->bits <= 4) add_bytes_to_doubles(t->bytes, codes, sum, 1);
    else add_bytes_to_doubles(t->bytes, codes, sum, 2);
}
#endif

/* Adds the values of trees in their order, output by output. */
#if defined(__AVX2__)
#define ADD_BYTES(TYPE, T, CODES, N, SUM)                                                       \
    if ((T)->bytes) {                                                                           \
        for (int r = 0; r < N; r += BLOCK) add_bytes_##TYPE(T, (CODES) + r, (SUM) + r);         \
        continue;                                                                               \
    }
#else
#define ADD_BYTES(TYPE, T, CODES, N, SUM)
#endif

#define ADD_ALL(TYPE)                                                                           \
    static void add_output_##TYPE(const forest *f, const tree *trees, int count, int output,    \
                                  const uint8_t *codes, ptrdiff_t apart, int n, TYPE *sum) {    \
        const tree *some[4];                                                                    \
        const uint8_t *theirs[4];                                                               \
        int have = 0;                                                                           \
        for (int i = 0; i < count; i++) {                                                       \
            if (f->num_outputs > 1 && trees[i].output != output) continue;                      \
            if (!have) {                                                                        \
                ADD_BYTES(TYPE, trees + i, codes + i * apart, n, sum)                           \
            }                                                                                   \
            some[have] = trees + i;                                                             \
            theirs[have++] = codes + i * apart;                                                 \
            if (have == 4) {                                                                    \
                add_##TYPE##4(some, theirs, n, sum);                                            \
                have = 0;                                                                       \
            }                                                                                   \
        }                                                                                       \
        for (int i = 0; i < have; i++) add_##TYPE##1(some + i, theirs + i, n, sum);             \
    }                                                                                           \
    static void add_all_##TYPE(const forest *f, const tree *trees, int count,                   \
                               const uint8_t *codes, ptrdiff_t apart, int n, TYPE *sums) {      \
        if (f->width == 1) {                                                                    \
            for (int k = 0; k < f->num_outputs; k++)                                            \
                add_output_##TYPE(f, trees, count, k, codes, apart, n, sums + k * f->span);     \
            return;                                                                             \
        }                                                                                       \
        for (int i = 0; i < count; i++)                                                         \
            add_##TYPE##_vector(trees + i, codes + i * apart, f->width, n, sums, f->span);      \
    }

ADD_ALL(float)
ADD_ALL(double)

#define ADD_LEAVES(NAME, TYPE)                                                                \
    NOINLINE void NAME(const tree *t, const int32_t *leaf, int width, int n, TYPE *sums,     \
                       ptrdiff_t span) {                                                      \
        const TYPE *value = t->leaves;                                                        \
        if (width == 1) {                                                                     \
            TYPE *sum = sums + t->output * span;                                              \
            for (int r = 0; r < n; r++) sum[r] += value[~leaf[r]];                            \
            return;                                                                           \
        }                                                                                     \
        for (int r = 0; r < n; r++)                                                           \
            for (int k = 0; k < width; k++)                                                   \
                sums[k * span + r] += value[(ptrdiff_t)~leaf[r] * width + k];                 \
    }

ADD_LEAVES(add_leaves_float, float)
ADD_LEAVES(add_leaves_double, double)

/* ---- what depends on the type in which values are compared ------------------------------- */

#define REAL float
#define NODE node32
#define TWIN twin32
#define NAME(x) x##_float
#define IS_FLOAT 1
#include "real.inc"
#undef REAL
#undef NODE
#undef TWIN
#undef NAME
#undef IS_FLOAT

#define REAL double
#define NODE node64
#define TWIN twin64
#define NAME(x) x##_double
#define IS_FLOAT 0
#include "real.inc"

/* ---- all together ------------------------------------------------------------------------ */

typedef struct {
    word *masks;
    char *columns;    /* (used features, BLOCK) */
    char *rows;       /* (span, features) if the trees have tails and the matrix has another form */
    char *sums;       /* (outputs, span) */
    uint8_t *codes;   /* (trees of a group, span) */
    int32_t *where;   /* (span) */
    uint16_t *active; /* (span) */
} workspace;

static char *take(char **memory, size_t size) {
    char *start = *memory;
    *memory += (size + 63) & ~(size_t)63;
    return start;
}

/* The same order and sizes as scratch_size in plan.c. */
static workspace lay_out(const forest *f, void *scratch) {
    char *memory = scratch;
    size_t real = f->compare == F32 ? 4 : 8, sum = f->accumulate == F32 ? 4 : 8;
    workspace w;
    w.masks = (word *)take(&memory, (size_t)f->max_words * PLANE_BYTES);
    w.columns = take(&memory, (size_t)f->max_columns * BLOCK * real);
    w.sums = take(&memory, (size_t)f->num_outputs * (size_t)f->span * sum);
    w.codes = (uint8_t *)take(&memory,
                              (size_t)(f->any_delayed ? f->max_group_trees : BATCH) * (size_t)f->span);
    w.where = (int32_t *)take(&memory, (size_t)f->span * 4);
    w.active = (uint16_t *)take(&memory, (size_t)f->span * 2);
    w.rows = memory;
    return w;
}

/* The codes of a tree for a block of rows. */
static void make_codes(const tree *t, int simple, word *masks, uint8_t *codes) {
    word planes[CODE_BITS];
    const recipe *how = t->recipes + simple;
    if (t->kind == TREE_COMPLETE) complete(t, how->splits, masks, planes);
    else run_program(t, how, masks, planes);
    gather_codes(planes, t->bits, codes);
}

/* Adds the values of some trees without tails; `count` codes of n rows, `apart` bytes apart. */
static void add_trees(const forest *f, const tree *trees, int count, const uint8_t *codes,
                      ptrdiff_t apart, int n, char *sums) {
    if (f->accumulate == F32) add_all_float(f, trees, count, codes, apart, n, (float *)sums);
    else add_all_double(f, trees, count, codes, apart, n, (double *)sums);
}

/* Returns which recipe the trees may use. */
static int make_masks(const forest *f, const group *g, const workspace *w, matrix m, int n) {
    int simple;
    if (f->compare == F32) {
        load_columns_float(g, m, n, (float *)w->columns);
        simple = make_masks_float(g, (const float *)w->columns, w->masks);
    } else {
        load_columns_double(g, m, n, (double *)w->columns);
        simple = make_masks_double(g, (const double *)w->columns, w->masks);
    }
    join_categories(g, w->masks);
    return simple;
}

/* Asks for some of the rows after this block, so that they are there when their turn comes. */
INLINE void fetch_ahead(matrix block, int64_t rows_left, int step, int num_steps) {
    if (block.column_stride != 1 || rows_left <= 0) return;
    ptrdiff_t row = block.row_stride * (block.type == F32 ? 4 : 8);
    ptrdiff_t size = (rows_left < BLOCK ? rows_left : BLOCK) * row;
    if (size <= 0 || size > 1 << 17) return;
    const char *next = (const char *)block.data + BLOCK * row;
    for (ptrdiff_t at = size * step / num_steps & -64; at < size * (step + 1) / num_steps; at += 64)
        __builtin_prefetch(next + at, 0, 2);
}

static void score_block(const forest *f, const group *g, const workspace *w, matrix m, int at_row,
                        int n, int64_t rows_left) {
    const tree *trees = f->trees + g->first_tree;
    int simple = make_masks(f, g, w, m, n);
    if (g->delayed) {
        for (int i = 0; i < g->num_trees; i++)
            make_codes(trees + i, simple, w->masks, w->codes + (ptrdiff_t)i * f->span + at_row);
        return;
    }
    char *sums = w->sums + at_row * (f->accumulate == F32 ? 4 : 8);
    for (int first = 0; first < g->num_trees; first += BATCH) {
        int count = g->num_trees - first < BATCH ? g->num_trees - first : BATCH;
        for (int i = 0; i < count; i++) {
            fetch_ahead(m, rows_left, first + i, g->num_trees);
            make_codes(trees + first + i, simple, w->masks, w->codes + i * BLOCK);
        }
        add_trees(f, trees + first, count, w->codes, BLOCK, n, sums);
    }
}

static void descend_tree(const forest *f, const tree *t, const uint8_t *codes, matrix rows, int n,
                         int missing, const workspace *w) {
    if (f->compare == F32) walk_float(t, codes, rows, n, missing, w->where, w->active);
    else walk_double(t, codes, rows, n, missing, w->where, w->active);
    if (f->accumulate == F32)
        add_leaves_float(t, w->where, f->width, n, (float *)w->sums, f->span);
    else
        add_leaves_double(t, w->where, f->width, n, (double *)w->sums, f->span);
}

static void score_tails(const forest *f, const group *g, const workspace *w, matrix rows, int n,
                        int missing) {
    const tree *trees = f->trees + g->first_tree;
    for (int i = 0; i < g->num_trees;) {
        const uint8_t *codes = w->codes + (ptrdiff_t)i * f->span;
        if (trees[i].has_tail) {
            descend_tree(f, trees + i++, codes, rows, n, missing, w);
            continue;
        }
        int count = 1;
        while (i + count < g->num_trees && !trees[i + count].has_tail && count < BATCH) count++;
        add_trees(f, trees + i, count, codes, f->span, n, w->sums);
        i += count;
    }
}

static matrix part(matrix m, int64_t first, int64_t num_rows) {
    size_t size = m.type == F32 ? 4 : 8;
    m.data = (const char *)m.data + first * m.row_stride * (ptrdiff_t)size;
    m.num_rows = num_rows;
    return m;
}

/* Rows as the tails want them: contiguous, in the type in which the forest compares. */
static matrix tail_rows(const forest *f, const workspace *w, matrix m) {
    if (m.type == f->compare && m.column_stride == 1) return m;
    if (f->compare == F32) copy_rows_float(f, m, (float *)w->rows);
    else copy_rows_double(f, m, (double *)w->rows);
    return (matrix){w->rows, f->compare, f->num_features, 1, m.num_rows};
}

static void start_sums(const forest *f, const workspace *w, int n) {
    for (int k = 0; k < f->num_outputs; k++)
        for (int r = 0; r < n; r++) {
            if (f->accumulate == F32) ((float *)w->sums)[k * f->span + r] = (float)f->initial[k];
            else ((double *)w->sums)[k * f->span + r] = f->initial[k];
        }
}

static void put_sums(const forest *f, const workspace *w, int n, char *out) {
    for (int k = 0; k < f->num_outputs; k++)
        for (int r = 0; r < n; r++) {
            ptrdiff_t to = (ptrdiff_t)r * f->num_outputs + k, from = (ptrdiff_t)k * f->span + r;
            if (f->accumulate == F32) ((float *)out)[to] = ((const float *)w->sums)[from];
            else ((double *)out)[to] = ((const double *)w->sums)[from];
        }
}

void KERNEL(const forest *f, void *scratch, matrix m, void *out) {
    workspace w = lay_out(f, scratch);
    size_t sum_size = f->accumulate == F32 ? 4 : 8;
    w.masks[0] = ZEROS;
    w.masks[1] = ONES;
    for (int64_t first = 0; first < m.num_rows; first += f->span) {
        int n = (int)(m.num_rows - first < f->span ? m.num_rows - first : f->span);
        matrix rows = part(m, first, n), tails = rows;
        int missing = 0;
        if (f->any_delayed) {
            tails = tail_rows(f, &w, rows);
            missing = f->compare == F32 ? any_missing_float(tails, f->num_features)
                                        : any_missing_double(tails, f->num_features);
        }
        start_sums(f, &w, n);
        for (int i = 0; i < f->num_groups; i++) {
            const group *g = f->groups + i;
            for (int row = 0; row < n; row += BLOCK) {
                int size = n - row < BLOCK ? n - row : BLOCK;
                int64_t left = m.num_rows - first - row - size;
                score_block(f, g, &w, part(rows, row, size), row, size, left);
            }
            if (g->delayed) score_tails(f, g, &w, tails, n, missing);
        }
        put_sums(f, &w, n, (char *)out + (size_t)first * (size_t)f->num_outputs * sum_size);
    }
#if defined(__AVX2__)
    _mm256_zeroupper(); /* once, instead of at the end of every function */
#endif
}
