/* Data of a compiled forest, shared by the planner (plan.c) and the kernels (kernel.c).
 *
 * How a row gets its leaf. Rows are scored in blocks of 256, one bit a row in a 256-bit word, so
 * that one instruction decides 256 rows:
 *
 *   1. Every value is ranked among the model's own thresholds of its feature (a "lane": at most 255
 *      thresholds, so the rank is a byte). A small table over an even grid, or over the leading bits
 *      of the float, gives the rank up to a few comparisons; the comparisons are exact.
 *   2. The ranks are turned into bit planes, and those into one mask a distinct split of the model:
 *      bit r says "row r goes right here". Splits that occur in many trees are decided once.
 *   3. A tree is a network of multiplexers over these masks. It yields the bit planes of an exit
 *      code, at most 8 bits; a bit transposition makes a byte a row of them.
 *   4. The code finds the leaf's value in the tree's table; or, for trees too large for 8 bits, the
 *      node below which the row descends one node at a time.
 *
 * Sums are made row by row in the order of the trees, in the library's own type: bit-equal.
 */
#ifndef AUGURY_FOREST_H
#define AUGURY_FOREST_H

#include <stddef.h>
#include <stdint.h>

enum { BLOCK = 256, LANE_MAX = 255, CODE_BITS = 8, PLANE_BYTES = 32 };
enum { WALKERS = 64 }; /* rows that walk down a tree side by side */
enum { BATCH = 32 }; /* trees whose codes are made before their values are added */
enum { MISSING_RIGHT = 1, CATEGORICAL = 2, OTHER_RIGHT = 4 }; /* flags of a node */
enum { F32 = 0, F64 = 1 };
enum { CATEGORIES_MAX = 255 };

/* What the caller describes; arrays are concatenated over the trees, nodes are local to a tree. */
typedef struct {
    int32_t num_trees, num_features, num_outputs;
    int32_t compare;     /* F32: values are rounded to float before they are compared; or F64 */
    int32_t accumulate;  /* F32 or F64 */
    int32_t width;       /* values a leaf: 1, added to output[tree]; or num_outputs */
    const int64_t *tree_begin; /* (num_trees + 1) first node of each tree */
    const int32_t *left, *right; /* children; left < 0: a leaf */
    const int32_t *feature;
    const double *threshold; /* right if value >= threshold (NaN: never) */
    const uint8_t *flags;
    const int32_t *category_begin; /* first of 8 words in category_bits; of categorical nodes */
    const uint32_t *category_bits; /* 256 bits: categories that go right */
    const double *value;    /* (nodes, width); of leaves */
    const int32_t *output;  /* (num_trees) */
    const double *initial;  /* (num_outputs) */
    const double *weight;   /* (nodes) share of rows that come here, or NULL if not known */
    double category_above;  /* a value is truncated to a category if it is >= 0 or above this */
} forest_spec;

enum lane_kind { LANE_DIRECT, LANE_GRID, LANE_BITS, LANE_CATEGORY };

/* Thresholds of one feature, sorted, that a group of trees splits at. */
typedef struct {
    int32_t feature, column; /* column: place of the feature among the group's used ones */
    int32_t kind, size;      /* size: number of thresholds, or of categories */
    int32_t buckets, steps, shift;
    int32_t low_key;
    double low, scale; /* of categories: low is category_above */
    uint8_t *table; /* rank of the first threshold in each bucket */
    void *threshold; /* float or double; sorted, padded with NaN */
    uint32_t plain, missing; /* first mask: of rank >= k at first + k; 0: not used */
} lane;

/* A split on categories: the or of some masks. */
typedef struct {
    uint32_t target, begin, count;
} category_split;

enum tree_kind { TREE_COMPLETE, TREE_PROGRAM };

/* One step of a program: target = mask ? right : left, as byte offsets into the masks. */
typedef struct {
    uint32_t mask, right, left, target;
} step;

/* A node below the coded part of a tree; children >= 0 are nodes, others ~leaf. */
typedef struct {
    float threshold;
    uint32_t feature; /* flags in the highest 3 bits */
    int32_t child[2];
} node32;

typedef struct {
    double threshold;
    uint32_t feature;
    int32_t child[2];
    uint32_t category;
} node64;

/* The same where every row takes the same number of steps: children lie side by side, and a leaf
 * leads to itself, as nothing is >= its threshold: a NaN whose low bits are the leaf's number. */
typedef struct {
    float threshold;
    uint16_t feature; /* highest bit: missing goes right */
    uint16_t left;
} twin32;

typedef struct {
    double threshold;
    uint32_t feature;
    uint32_t left;
} twin64;

/* How the codes are made from the masks. */
typedef struct {
    uint16_t *splits; /* complete: numbers of masks; node, left subtree, right subtree */
    step *steps;      /* program */
    int32_t num_steps;
    uint32_t planes[CODE_BITS]; /* program: byte offsets of the code's planes, lowest bit first */
} recipe;

typedef struct {
    int32_t kind, bits, output, has_tail;
    recipe recipes[2]; /* 0: for all blocks; 1: where nothing is missing that would need 0 */
    void *table;       /* no tail: (2^bits, width) values */
    uint8_t *bytes;    /* of few codes: the table's first bytes, its second bytes, ...; or NULL */
    int32_t *entry;    /* tail: (2^bits) node or ~leaf; or a twin */
    int32_t num_levels; /* tail of twins: steps that every row takes; 0: no twins */
    void *nodes;       /* tail: node32 or node64; or twin32 or twin64 */
    uint32_t *node_category; /* tail with categorical nodes: 8 words a node, else NULL */
    double category_above;
    void *leaves;      /* tail: (leaves, width) values */
} tree;

typedef struct {
    int32_t num_lanes, num_columns, num_category_splits, first_tree, num_trees, delayed;
    int32_t mixed; /* some splits send missing values left and others of their lane right */
    uint32_t num_masks, num_scratch; /* scratch words of programs come after the masks */
    lane *lanes;
    int32_t *columns; /* features used */
    category_split *category_splits;
    uint32_t *category_terms;
} group;

typedef struct forest forest;
typedef struct {
    const void *data;
    int32_t type; /* F32 or F64 */
    ptrdiff_t row_stride, column_stride; /* in elements */
    int64_t num_rows;
} matrix;

struct forest {
    int32_t num_trees, num_features, num_outputs, compare, accumulate, width, num_groups;
    int32_t max_columns, span; /* span: rows of a superblock */
    uint32_t max_words; /* masks and scratch of the largest group */
    int32_t max_group_trees, any_delayed;
    double *initial;
    tree *trees;
    group *groups;
    size_t size_bytes;
    size_t scratch_bytes;
    void (*run)(const forest *, void *scratch, matrix, void *out);
    void *spare[8]; /* scratch memory for reuse */
};

/* The grid and the leading bits: the planner and the kernels must compute the same bit. */
#define KEY_OF_BITS(b) ((b) ^ (((b) >> 31) & 0x7fffffff))

#endif
