/* Compiles a forest: decides for each tree how it is evaluated, and lays out all it needs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "forest.h"

#define EXPORT __attribute__((visibility("default")))

/* Costs of 256 rows in cycles, measured on a Zen 3; only their ratios matter. */
static const double COST_MASK = 7, COST_SPLIT = 1.5, COST_CHOOSE = 1.1, COST_STEP = 3.2, COST_CODES = 100,
                    COST_ADD = 300, COST_ENTER = 700, COST_VISIT = 256 * 6,
                    COST_WALK = 256 * 6, COST_LEVEL = 256;

enum { DIRECT_MAX = 16, MASK_LIMIT = 9000, SPAN = 4096, ZERO = 0, ONE = PLANE_BYTES };

typedef struct block {
    struct block *next;
    double data[]; /* aligned for anything but words, which live in the scratch memory */
} block;

typedef struct {
    const forest_spec *spec;
    forest *f;
    block *temporary, *kept;
    size_t kept_bytes;
    jmp_buf failed;
    char *error;
    size_t error_size;
    uint8_t *coded;       /* (nodes) the node is in the coded part of its tree */
    int32_t *split;       /* (nodes) number of the distinct (feature, threshold) */
    int32_t *depth;       /* (nodes) */
    int32_t *height;      /* (nodes) levels below */
    double *weight;       /* (nodes) */
    int32_t *order;       /* (nodes of the largest tree) preorder */
    int64_t base;         /* first node of the tree at hand */
    double fresh;         /* share of the splits that no other node has */
    int32_t num_ordered, num_nodes; /* nodes that can be reached, and all of the tree */
    /* (distinct splits) offset of the mask in the group at hand: missing goes left, right, or it
     * does not matter */
    uint32_t *mask[3];
    uint32_t *category_mask; /* (nodes) the same for categorical nodes */
} builder;

static void fail(builder *b, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(b->error, b->error_size, format, arguments);
    va_end(arguments);
    longjmp(b->failed, 1);
}

static void *allocate(builder *b, block **list, size_t count, size_t size) {
    block *one = calloc(1, sizeof(block) + count * size + 1);
    if (!one) fail(b, "memory: none is left");
    one->next = *list;
    *list = one;
    return one->data;
}

static void *borrow(builder *b, size_t count, size_t size) {
    return allocate(b, &b->temporary, count, size);
}

/* Frees what was borrowed last. */
static void give_back(builder *b) {
    block *first = b->temporary;
    b->temporary = first->next;
    free(first);
}

static void *keep(builder *b, size_t count, size_t size) {
    b->kept_bytes += count * size;
    return allocate(b, &b->kept, count, size);
}

static void release(block *list) {
    while (list) {
        block *next = list->next;
        free(list);
        list = next;
    }
}

/* ---- the trees as they come ------------------------------------------------------------- */

static int is_leaf(const builder *b, int64_t node) { return b->spec->left[node] < 0; }
static int64_t left_of(const builder *b, int64_t node) { return b->base + b->spec->left[node]; }
static int64_t right_of(const builder *b, int64_t node) { return b->base + b->spec->right[node]; }

/* Puts the tree's nodes in preorder; checks that it is a tree. */
static void enter_tree(builder *b, int32_t number) {
    const forest_spec *s = b->spec;
    b->base = s->tree_begin[number];
    int32_t size = (int32_t)(s->tree_begin[number + 1] - b->base), top = 0;
    int32_t *stack = borrow(b, (size_t)size + 2, sizeof *stack);
    b->num_ordered = 0;
    b->num_nodes = size;
    stack[top++] = 0;
    b->depth[b->base] = 0;
    while (top) {
        int32_t local = stack[--top];
        int64_t node = b->base + local;
        if (b->num_ordered == size) fail(b, "tree %d is not a tree: a node has two parents", number);
        b->order[b->num_ordered++] = local;
        if (is_leaf(b, node)) continue;
        int32_t children[2] = {s->right[node], s->left[node]};
        if (s->feature[node] < 0 || s->feature[node] >= s->num_features)
            fail(b, "tree %d splits at feature %d of %d", number, s->feature[node], s->num_features);
        for (int i = 0; i < 2; i++) {
            if (children[i] <= 0 || children[i] >= size || top > size)
                fail(b, "tree %d has a child %d, which is not one of its %d nodes", number,
                     children[i], size);
            b->depth[b->base + children[i]] = b->depth[node] + 1;
            stack[top++] = children[i];
        }
    }
    give_back(b);
}

static void weigh(builder *b) {
    const forest_spec *s = b->spec;
    double whole = s->weight ? s->weight[b->base] : 1;
    int known = s->weight && whole > 0 && isfinite(whole);
    b->weight[b->base] = 1;
    for (int32_t i = 0; i < b->num_ordered; i++) {
        int64_t node = b->base + b->order[i];
        if (is_leaf(b, node)) continue;
        int64_t children[2] = {left_of(b, node), right_of(b, node)};
        for (int k = 0; k < 2; k++) {
            double share = known ? s->weight[children[k]] / whole : b->weight[node] / 2;
            if (!(share >= 0)) share = 0;
            b->weight[children[k]] = share < b->weight[node] ? share : b->weight[node];
        }
    }
    for (int32_t i = b->num_ordered; i-- > 0;) {
        int64_t node = b->base + b->order[i];
        b->height[node] = 0;
        if (is_leaf(b, node)) continue;
        int32_t left = b->height[left_of(b, node)], right = b->height[right_of(b, node)];
        b->height[node] = 1 + (left > right ? left : right);
    }
}

/* ---- which part of a tree gets codes ---------------------------------------------------- */

typedef struct {
    int32_t kind, bits; /* complete: bits is the depth of the coded part */
    int32_t num_levels; /* of the tail; 0: no tail */
    double cost;
    double least; /* program: nodes of at least this weight ... */
    int32_t last; /* ... and of this weight, up to this place in preorder, are coded */
} choice;

static int bits_for(int32_t count) { return count <= 1 ? 0 : 32 - __builtin_clz((unsigned)count - 1); }

static double cost_of_list(double visits) { return COST_ENTER + visits * COST_VISIT; }
static double cost_of_levels(int32_t levels) { return COST_WALK + levels * COST_LEVEL; }

/* Cost of what comes after the masks: codes, and adding or descending. */
static double cost_after(int32_t levels, double visits) {
    if (!levels) return COST_CODES + COST_ADD;
    return COST_CODES + fmin(cost_of_list(visits), cost_of_levels(levels));
}

static choice try_complete(const builder *b, int bits) {
    double visits = 0, nodes = (double)(1 << bits) - 1;
    int32_t levels = 0;
    for (int32_t i = 0; i < b->num_ordered; i++) {
        int64_t node = b->base + b->order[i];
        if (is_leaf(b, node) || b->depth[node] < bits) continue;
        visits += b->weight[node];
        if (b->height[node] > levels) levels = b->height[node];
    }
    double chooses = nodes - bits; /* sum over the levels l of 2^l - 1 */
    double cost = nodes * (COST_SPLIT + b->fresh * COST_MASK) + chooses * COST_CHOOSE + cost_after(levels, visits);
    return (choice){.kind = TREE_COMPLETE, .bits = bits, .num_levels = levels, .cost = cost};
}

/* Codes of a subtree are first..first+count-1; counts the steps that its program has. */
static int32_t count_steps(const builder *b, int64_t node, int32_t *next) {
    if (is_leaf(b, node) || !b->coded[node]) {
        (*next)++;
        return 0;
    }
    int32_t first = *next;
    int32_t steps = count_steps(b, left_of(b, node), next);
    int32_t middle = *next;
    steps += count_steps(b, right_of(b, node), next);
    int32_t last = *next - 1;
    int32_t vary = bits_for((first ^ last) + 1);
    for (int bit = 0; bit < vary; bit++) { /* a plane that is 0 left and 1 right is the mask */
        int left_fixed = !(bits_for((first ^ (middle - 1)) + 1) > bit);
        int right_fixed = !(bits_for((middle ^ last) + 1) > bit);
        int plain = left_fixed && right_fixed && !(first >> bit & 1) && (last >> bit & 1);
        int same = left_fixed && right_fixed && (first >> bit & 1) == (last >> bit & 1);
        steps += !plain && !same;
    }
    return steps;
}

static int32_t mark(builder *b, const choice *c) {
    int32_t count = 0;
    for (int32_t i = 0; i < b->num_ordered; i++) {
        int64_t node = b->base + b->order[i];
        int in = 0;
        if (!is_leaf(b, node)) {
            if (c->kind == TREE_COMPLETE) in = b->depth[node] < c->bits;
            else in = b->weight[node] > c->least || (b->weight[node] == c->least && i <= c->last);
        }
        b->coded[node] = (uint8_t)in;
        count += in;
    }
    return count;
}

static int by_weight(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a < b) - (a > b);
}

/* The `limit` weightiest inner nodes are coded by a program. */
static choice try_program(builder *b, int32_t limit, const double *weights, int32_t count) {
    choice c = {.kind = TREE_PROGRAM};
    if (limit > count) limit = count;
    c.least = weights[limit - 1];
    int32_t ties = 0;
    for (int32_t i = limit - 1; i >= 0 && weights[i] == c.least; i--) ties++;
    double visits = 0;
    for (int32_t i = 0; i < b->num_ordered; i++) {
        int64_t node = b->base + b->order[i];
        if (is_leaf(b, node)) continue;
        if (b->weight[node] == c.least && ties > 0) {
            c.last = i;
            ties--;
        } else if (b->weight[node] <= c.least) {
            visits += b->weight[node];
            if (b->height[node] > c.num_levels) c.num_levels = b->height[node];
        }
    }
    int32_t nodes = mark(b, &c), next = 0;
    int32_t steps = count_steps(b, b->base, &next);
    c.bits = bits_for(next);
    c.cost = nodes * (COST_SPLIT + b->fresh * COST_MASK) + steps * COST_STEP + cost_after(c.num_levels, visits);
    return c;
}

/* The cheapest way to evaluate a tree, and the cheapest one without a tail. */
typedef struct {
    choice best, whole;
} choices;

static void consider(choices *all, choice c) {
    if (c.cost < all->best.cost) all->best = c;
    if (!c.num_levels && c.cost < all->whole.cost) all->whole = c;
}

static choices choose_kind(builder *b) {
    int32_t deepest = 0, count = 0;
    double *weights = borrow(b, (size_t)b->num_ordered, sizeof *weights);
    for (int32_t i = 0; i < b->num_ordered; i++) {
        int64_t node = b->base + b->order[i];
        if (b->depth[node] > deepest) deepest = b->depth[node];
        if (!is_leaf(b, node)) weights[count++] = b->weight[node];
    }
    choices all = {.best = {.cost = INFINITY}, .whole = {.cost = INFINITY}};
    for (int bits = 0; bits <= CODE_BITS && bits <= deepest; bits++)
        consider(&all, try_complete(b, bits));
    qsort(weights, (size_t)count, sizeof *weights, by_weight);
    for (int32_t limit = 15; limit <= 255 && count > 0; limit = 2 * limit + 1) {
        consider(&all, try_program(b, limit, weights, count));
        if (limit >= count) break;
    }
    give_back(b);
    return all;
}

/* ---- distinct splits -------------------------------------------------------------------- */

typedef struct {
    double threshold;
    int64_t node;
    int32_t feature;
} numbered;

static int by_split(const void *left, const void *right) {
    const numbered *a = left, *b = right;
    if (a->feature != b->feature) return a->feature < b->feature ? -1 : 1;
    if (isnan(a->threshold) || isnan(b->threshold))
        return (int)isnan(a->threshold) - (int)isnan(b->threshold);
    return (a->threshold > b->threshold) - (a->threshold < b->threshold);
}

static int is_categorical(const builder *b, int64_t node) {
    return (b->spec->flags[node] & CATEGORICAL) != 0;
}

/* Numbers the distinct (feature, threshold) of coded nodes in sorted order. */
static int32_t number_splits(builder *b, numbered **distinct) {
    const forest_spec *s = b->spec;
    int64_t nodes = s->tree_begin[s->num_trees], count = 0;
    for (int64_t i = 0; i < nodes; i++) count += b->coded[i] && !is_categorical(b, i);
    numbered *all = borrow(b, (size_t)count + 1, sizeof *all);
    count = 0;
    for (int64_t i = 0; i < nodes; i++)
        if (b->coded[i] && !is_categorical(b, i))
            all[count++] = (numbered){s->threshold[i] + 0.0, i, s->feature[i]};
    qsort(all, (size_t)count, sizeof *all, by_split);
    int32_t last = -1;
    for (int64_t i = 0; i < count; i++) {
        numbered one = all[i];
        if (last < 0 || by_split(&all[last], &one)) all[++last] = one;
        b->split[one.node] = last;
    }
    *distinct = all;
    return last + 1;
}

/* ---- lanes ------------------------------------------------------------------------------ */

static int32_t key_of(const builder *b, double threshold) {
    if (b->spec->compare == F32) {
        union { float real; int32_t bits; } v = {(float)threshold + 0.0f};
        return KEY_OF_BITS(v.bits);
    }
    union { double real; int64_t bits; } v = {threshold + 0.0};
    int32_t high = (int32_t)(v.bits >> 32);
    return KEY_OF_BITS(high);
}

/* The bucket of a value: the same arithmetic as in real.inc. */
static int32_t bucket_of(const builder *b, const lane *l, double threshold) {
    int32_t last = l->buckets - 1;
    if (l->kind == LANE_BITS) {
        int32_t key = key_of(b, threshold);
        if (key < l->low_key) key = l->low_key;
        uint32_t place = ((uint32_t)key - (uint32_t)l->low_key) >> l->shift;
        return place < (uint32_t)last ? (int32_t)place : last;
    }
    if (b->spec->compare == F32) {
        volatile float difference = (float)threshold - (float)l->low;
        float v = difference * (float)l->scale;
        v = v > 0 ? v : 0;
        return (int32_t)(v < (float)last ? v : (float)last);
    }
    volatile double difference = threshold - l->low;
    double v = difference * l->scale;
    v = v > 0 ? v : 0;
    return (int32_t)(v < (double)last ? v : (double)last);
}

/* Comparisons that a value needs within its bucket. */
static int32_t count_comparisons(const builder *b, const lane *l, const double *thresholds) {
    int32_t most = 0, run = 0, before = -1;
    for (int32_t i = 0; i < l->size && !isnan(thresholds[i]); i++) {
        int32_t bucket = bucket_of(b, l, thresholds[i]);
        run = bucket == before ? run + 1 : 1;
        before = bucket;
        if (run > most) most = run;
    }
    int32_t steps = bits_for(most + 1);
    return steps <= 4 ? (steps ? steps : 1) : 8;
}

static void try_buckets(const builder *b, lane *best, lane l, const double *thresholds) {
    l.steps = count_comparisons(b, &l, thresholds);
    if (best->steps == 0 || l.steps < best->steps) *best = l;
}

/* Finds the mapping to buckets that leaves the fewest comparisons. */
static void choose_buckets(const builder *b, lane *l, const double *thresholds) {
    lane best = *l, one = *l;
    int32_t first = 0, last = l->size - 1;
    while (first < last && !isfinite(thresholds[first])) first++;
    while (last > first && !isfinite(thresholds[last])) last--;
    double low = isfinite(thresholds[first]) ? thresholds[first] : 0;
    double high = isfinite(thresholds[last]) ? thresholds[last] : 0;
    one.low_key = key_of(b, low);
    uint32_t range = (uint32_t)key_of(b, high) - (uint32_t)one.low_key;
    best.steps = 0;
    for (one.buckets = 256; one.buckets <= 2048; one.buckets *= 2) {
        one.kind = LANE_GRID;
        one.low = low;
        one.scale = (one.buckets - 1) / (high - low);
        if (b->spec->compare == F32) one.scale = (float)one.scale;
        if (isfinite(one.scale) && one.scale > 0) try_buckets(b, &best, one, thresholds);
        one.kind = LANE_BITS;
        for (one.shift = 0; one.shift < 31 && range >> one.shift >= (uint32_t)one.buckets;)
            one.shift++;
        try_buckets(b, &best, one, thresholds);
    }
    *l = best;
}

static void fill_table(builder *b, lane *l, const double *thresholds) {
    l->table = keep(b, (size_t)l->buckets, 1);
    int32_t bucket = 0;
    for (int32_t i = 0; i < l->size && !isnan(thresholds[i]); i++)
        for (int32_t at = bucket_of(b, l, thresholds[i]); bucket < at;) l->table[++bucket] = (uint8_t)i;
    int32_t known = 0;
    while (known < l->size && !isnan(thresholds[known])) known++;
    while (bucket + 1 < l->buckets) l->table[++bucket] = (uint8_t)known;
}

static void fill_lane(builder *b, lane *l, const double *thresholds) {
    size_t padded = (size_t)l->size + 256;
    int narrow = b->spec->compare == F32;
    l->threshold = keep(b, padded, narrow ? sizeof(float) : sizeof(double));
    for (size_t i = 0; i < padded; i++) {
        double value = i < (size_t)l->size ? thresholds[i] : NAN;
        if (narrow) ((float *)l->threshold)[i] = (float)value;
        else ((double *)l->threshold)[i] = value;
    }
    l->kind = LANE_DIRECT;
    if (l->size <= DIRECT_MAX) return;
    choose_buckets(b, l, thresholds);
    fill_table(b, l, thresholds);
}

/* ---- groups ----------------------------------------------------------------------------- */

static int missing_right(const builder *b, int64_t node) {
    return (b->spec->flags[node] & MISSING_RIGHT) != 0;
}

static uint32_t take_masks(group *g, int32_t size) {
    uint32_t first = g->num_masks;
    g->num_masks += ((uint32_t)(size >> 4) + 1) * 16;
    return first;
}

static int32_t column_of(group *g, int32_t *columns, int32_t feature) {
    if (columns[feature] < 0) {
        g->columns[g->num_columns] = feature;
        columns[feature] = g->num_columns++;
    }
    return columns[feature];
}

/* Lanes of the splits that `used` marks (bit 0: missing goes left; bit 1: right). */
static void make_lanes(builder *b, group *g, const numbered *distinct, int32_t count,
                       const uint8_t *used, int32_t *columns) {
    double thresholds[LANE_MAX];
    for (int32_t i = 0; i < count;) {
        if (!used[i]) {
            i++;
            continue;
        }
        lane *l = g->lanes + g->num_lanes++;
        int32_t members[LANE_MAX], wanted = 0;
        l->feature = distinct[i].feature;
        l->column = column_of(g, columns, l->feature);
        for (; i < count && distinct[i].feature == l->feature && l->size < LANE_MAX; i++) {
            if (!used[i]) continue;
            members[l->size] = i;
            thresholds[l->size++] = distinct[i].threshold;
            wanted |= used[i];
        }
        if (wanted & 1) l->plain = take_masks(g, l->size);
        if (wanted & 2) l->missing = take_masks(g, l->size);
        for (int32_t k = 0; k < l->size; k++) {
            b->mask[0][members[k]] = (l->plain + (uint32_t)k + 1) * PLANE_BYTES;
            b->mask[1][members[k]] = (l->missing + (uint32_t)k + 1) * PLANE_BYTES;
            b->mask[2][members[k]] = b->mask[l->plain ? 0 : 1][members[k]];
        }
        g->mixed |= l->plain && l->missing;
        fill_lane(b, l, thresholds);
    }
}

static int goes_right(const builder *b, int64_t node, int32_t category) {
    const uint32_t *bits = b->spec->category_bits + b->spec->category_begin[node];
    return bits[category >> 5] >> (category & 31) & 1;
}

/* Categories from here on go where unknown ones go. */
static int32_t num_categories(const builder *b, int64_t node) {
    int other = (b->spec->flags[node] & OTHER_RIGHT) != 0;
    for (int32_t c = CATEGORIES_MAX; c > 0; c--)
        if (goes_right(b, node, c - 1) != other) return c;
    return 1;
}

static lane *category_lane(builder *b, group *g, int32_t feature, int32_t *columns) {
    for (int32_t i = 0; i < g->num_lanes; i++)
        if (g->lanes[i].kind == LANE_CATEGORY && g->lanes[i].feature == feature)
            return g->lanes + i;
    lane *l = g->lanes + g->num_lanes++;
    l->feature = feature;
    l->column = column_of(g, columns, feature);
    l->kind = LANE_CATEGORY;
    l->low = b->spec->category_above;
    return l;
}

typedef int (*visitor)(builder *, int64_t node);

/* Coded categorical nodes of a group, one after the other. */
static int64_t next_categorical(const builder *b, const group *g, int64_t node) {
    int64_t end = b->spec->tree_begin[g->first_tree + g->num_trees];
    while (node < end && !(b->coded[node] && is_categorical(b, node))) node++;
    return node < end ? node : -1;
}

static void make_category_splits(builder *b, group *g, int32_t *columns) {
    const forest_spec *s = b->spec;
    int64_t start = s->tree_begin[g->first_tree];
    uint32_t terms = 0;
    for (int64_t n = start; (n = next_categorical(b, g, n)) >= 0; n++) {
        lane *l = category_lane(b, g, s->feature[n], columns);
        int32_t size = num_categories(b, n);
        if (size > l->size) l->size = size;
        g->num_category_splits++;
    }
    for (int32_t i = 0; i < g->num_lanes; i++)
        if (g->lanes[i].kind == LANE_CATEGORY)
            g->lanes[i].missing = take_masks(g, g->lanes[i].size + 2);
    g->category_splits = keep(b, (size_t)g->num_category_splits, sizeof *g->category_splits);
    g->category_terms = keep(b, (size_t)g->num_category_splits * 258, sizeof *g->category_terms);
    category_split *split = g->category_splits;
    for (int64_t n = start; (n = next_categorical(b, g, n)) >= 0; n++, split++) {
        const lane *l = category_lane(b, g, s->feature[n], columns);
        split->begin = terms;
        for (int32_t c = 0; c < l->size; c++)
            if (goes_right(b, n, c)) g->category_terms[terms++] = l->missing + (uint32_t)c;
        if (s->flags[n] & OTHER_RIGHT)
            g->category_terms[terms++] = l->missing + (uint32_t)l->size;
        if (s->flags[n] & MISSING_RIGHT)
            g->category_terms[terms++] = l->missing + (uint32_t)l->size + 1;
        split->count = terms - split->begin;
        split->target = g->num_masks++;
        b->category_mask[n] = split->target * PLANE_BYTES;
    }
}

/* ---- trees ------------------------------------------------------------------------------ */

/* For recipe 0: where missing values go matters; for recipe 1 it does not. */
static uint32_t mask_of(const builder *b, int64_t node, int which) {
    if (is_categorical(b, node)) return b->category_mask[node];
    return b->mask[which ? 2 : missing_right(b, node)][b->split[node]];
}

static void put_value(const builder *b, void *values, int64_t at, int64_t node) {
    int32_t width = b->spec->width;
    for (int32_t k = 0; k < width; k++) {
        double value = b->spec->value[node * width + k];
        if (b->spec->accumulate == F32) ((float *)values)[at * width + k] = (float)value;
        else ((double *)values)[at * width + k] = value;
    }
}

typedef struct {
    builder *b;
    tree *t;
    group *g;
    recipe *how;
    int32_t which, next_code, num_leaves;
    int32_t *place; /* (nodes of the tree) index below the coded part */
    int32_t *line;  /* twins: the nodes in their order */
    int32_t num_lined;
    uint32_t free_words[CODE_BITS * 257];
    int32_t num_free;
    uint32_t used_words;
} emitter;

static int32_t put_leaf(emitter *e, int64_t node) {
    put_value(e->b, e->t->leaves, e->num_leaves, node);
    return e->num_leaves++;
}

/* What code `code` stands for. */
static void put_exit(emitter *e, int32_t code, int64_t node) {
    builder *b = e->b;
    int32_t local = (int32_t)(node - b->base);
    if (e->which) return;
    if (!e->t->has_tail) put_value(b, e->t->table, code, node);
    else if (e->t->num_levels) {
        e->t->entry[code] = e->num_lined;
        e->line[e->num_lined++] = local;
    } else {
        e->t->entry[code] = is_leaf(b, node) ? ~put_leaf(e, node) : e->place[local];
    }
}

static void emit_complete(emitter *e, int64_t node, int levels, uint16_t *splits, int32_t code) {
    const builder *b = e->b;
    if (levels == 0) {
        put_exit(e, code, node);
        return;
    }
    int32_t half = 1 << (levels - 1);
    if (is_leaf(b, node)) { /* mask 0: always left */
        emit_complete(e, node, levels - 1, splits + 1, code);
        return;
    }
    splits[0] = (uint16_t)(mask_of(b, node, e->which) / PLANE_BYTES);
    emit_complete(e, left_of(b, node), levels - 1, splits + 1, code);
    emit_complete(e, right_of(b, node), levels - 1, splits + half, code + half);
}

static uint32_t take_word(emitter *e) {
    if (e->num_free) return e->free_words[--e->num_free];
    return (e->g->num_masks + e->used_words++) * PLANE_BYTES;
}

static void give_word(emitter *e, uint32_t offset) {
    if (offset >= e->g->num_masks * PLANE_BYTES) e->free_words[e->num_free++] = offset;
}

static void emit_program(emitter *e, int64_t node, uint32_t *planes) {
    builder *b = e->b;
    int bits = e->t->bits;
    if (is_leaf(b, node) || !b->coded[node]) {
        int32_t code = e->next_code++;
        for (int bit = 0; bit < bits; bit++) planes[bit] = code >> bit & 1 ? ONE : ZERO;
        put_exit(e, code, node);
        return;
    }
    uint32_t left[CODE_BITS], right[CODE_BITS], mask = mask_of(b, node, e->which);
    emit_program(e, left_of(b, node), left);
    emit_program(e, right_of(b, node), right);
    for (int bit = 0; bit < bits; bit++) {
        planes[bit] = left[bit];
        if (left[bit] == right[bit] && left[bit] <= ONE) continue;
        planes[bit] = mask;
        if (left[bit] == ZERO && right[bit] == ONE) continue;
        give_word(e, left[bit]);
        give_word(e, right[bit]);
        planes[bit] = take_word(e);
        e->how->steps[e->how->num_steps++] = (step){mask, right[bit], left[bit], planes[bit]};
    }
}

static void emit_recipe(emitter *e, int which) {
    builder *b = e->b;
    tree *t = e->t;
    if (which && !e->g->mixed) {
        t->recipes[1] = t->recipes[0];
        return;
    }
    e->which = which;
    e->how = t->recipes + which;
    e->next_code = e->num_free = 0;
    e->used_words = 0;
    if (t->kind == TREE_COMPLETE) {
        e->how->splits = keep(b, (size_t)1 << t->bits, sizeof *e->how->splits);
        emit_complete(e, b->base, t->bits, e->how->splits, 0);
        return;
    }
    int32_t next = 0;
    e->how->steps = keep(b, (size_t)count_steps(b, b->base, &next), sizeof *e->how->steps);
    emit_program(e, b->base, e->how->planes);
    if (e->used_words > e->g->num_scratch) e->g->num_scratch = e->used_words;
}

/* ---- what is below the coded part of a tree --------------------------------------------- */

typedef struct {
    int32_t inner, levels, categories;
    double visits;
} tail;

static tail measure_tail(const builder *b) {
    tail found = {0};
    for (int32_t i = 0; i < b->num_ordered; i++) {
        int64_t node = b->base + b->order[i];
        if (is_leaf(b, node) || b->coded[node]) continue;
        found.inner++;
        found.visits += b->weight[node];
        found.categories |= is_categorical(b, node);
        if (b->height[node] > found.levels) found.levels = b->height[node];
    }
    return found;
}

/* Whether all rows take the same number of steps, and the nodes fit. */
static int has_twins(const builder *b, const tail *below, size_t codes) {
    const forest_spec *s = b->spec;
    if (below->categories || cost_of_levels(below->levels) > cost_of_list(below->visits)) return 0;
    size_t nodes = codes + 2 * (size_t)below->inner;
    if (s->compare == F32) return nodes <= 0xffff && s->num_features <= 0x8000;
    return nodes < 0x3fffff;
}

static void put_twin(emitter *e, int32_t at, int64_t node, int32_t left) {
    const forest_spec *s = e->b->spec;
    int leaf = is_leaf(e->b, node), narrow = s->compare == F32;
    uint32_t flag = !leaf && missing_right(e->b, node) ? (narrow ? 0x8000u : 0x40000000u) : 0;
    uint32_t feature = leaf ? 0 : (uint32_t)s->feature[node] | flag;
    uint64_t number = leaf ? (uint64_t)put_leaf(e, node) : 0;
    if (narrow) {
        union { uint32_t bits; float real; } v = {0x7fc00000u | (uint32_t)number};
        float threshold = leaf ? v.real : (float)s->threshold[node];
        ((twin32 *)e->t->nodes)[at] = (twin32){threshold, (uint16_t)feature, (uint16_t)left};
    } else {
        union { uint64_t bits; double real; } v = {0x7ff8000000000000u | number};
        double threshold = leaf ? v.real : s->threshold[node];
        ((twin64 *)e->t->nodes)[at] = (twin64){threshold, feature, (uint32_t)left};
    }
}

/* Level by level, so that what is visited together lies together. */
static void emit_twins(emitter *e) {
    builder *b = e->b;
    for (int32_t at = 0; at < e->num_lined; at++) {
        int64_t node = b->base + e->line[at];
        if (is_leaf(b, node)) {
            put_twin(e, at, node, at);
            continue;
        }
        put_twin(e, at, node, e->num_lined);
        e->line[e->num_lined++] = b->spec->left[node];
        e->line[e->num_lined++] = b->spec->right[node];
    }
}

static int32_t child_of(emitter *e, int64_t node) {
    return is_leaf(e->b, node) ? ~put_leaf(e, node) : e->place[node - e->b->base];
}

static void emit_list(emitter *e) {
    builder *b = e->b;
    const forest_spec *s = b->spec;
    for (int32_t i = 0; i < b->num_ordered; i++) {
        int64_t node = b->base + b->order[i];
        if (is_leaf(b, node) || b->coded[node]) continue;
        int32_t at = e->place[b->order[i]];
        uint32_t feature = (uint32_t)s->feature[node] | (uint32_t)s->flags[node] << 29;
        int32_t left = child_of(e, left_of(b, node)), right = child_of(e, right_of(b, node));
        if (s->compare == F32)
            ((node32 *)e->t->nodes)[at] = (node32){(float)s->threshold[node], feature, {left, right}};
        else
            ((node64 *)e->t->nodes)[at] = (node64){s->threshold[node], feature, {left, right}, 0};
        if (e->t->node_category && is_categorical(b, node))
            memcpy(e->t->node_category + 8 * (size_t)at, s->category_bits + s->category_begin[node],
                   8 * sizeof(uint32_t));
    }
}

/* Room for the tail, and its nodes' places. */
static void make_tail(emitter *e, size_t value) {
    builder *b = e->b;
    tree *t = e->t;
    tail below = measure_tail(b);
    size_t codes = (size_t)1 << t->bits, inner = (size_t)below.inner;
    int narrow = b->spec->compare == F32;
    t->entry = keep(b, codes, sizeof *t->entry);
    t->leaves = keep(b, (size_t)b->num_ordered, value);
    if (has_twins(b, &below, codes)) {
        t->num_levels = below.levels;
        e->line = borrow(b, codes + 2 * inner, sizeof *e->line);
        t->nodes = keep(b, codes + 2 * inner, narrow ? sizeof(twin32) : sizeof(twin64));
        return;
    }
    t->nodes = keep(b, inner, narrow ? sizeof(node32) : sizeof(node64));
    if (below.categories) t->node_category = keep(b, inner * 8, sizeof(uint32_t));
    t->category_above = b->spec->category_above;
    int32_t next = 0;
    for (int32_t i = 0; i < b->num_ordered; i++) {
        int64_t node = b->base + b->order[i];
        if (!is_leaf(b, node) && !b->coded[node]) e->place[b->order[i]] = next++;
    }
}

/* The table taken apart into bytes, for kernels that look up 32 rows at once. */
static void split_table(builder *b, tree *t) {
    size_t size = b->spec->accumulate == F32 ? 4 : 8, codes = (size_t)1 << t->bits;
    size_t padded_codes = codes < 16 ? 16 : codes;
    if (t->has_tail || b->spec->width != 1 || t->bits > (size == 4 ? 6 : 5)) return;
    t->bytes = keep(b, size * padded_codes, 1);
    for (size_t code = 0; code < codes; code++)
        for (size_t i = 0; i < size; i++)
            t->bytes[i * padded_codes + code] = ((const uint8_t *)t->table)[code * size + i];
}

static void emit_tree(builder *b, group *g, tree *t) {
    size_t value = (b->spec->accumulate == F32 ? 4u : 8u) * (size_t)b->spec->width;
    block *before = b->temporary;
    emitter *e = borrow(b, 1, sizeof *e);
    *e = (emitter){.b = b, .t = t, .g = g};
    e->place = borrow(b, (size_t)b->num_nodes, sizeof *e->place);
    if (t->has_tail) make_tail(e, value);
    else t->table = keep(b, (size_t)1 << t->bits, value);
    emit_recipe(e, 0);
    emit_recipe(e, 1);
    if (t->num_levels) emit_twins(e);
    else if (t->has_tail) emit_list(e);
    split_table(b, t);
    while (b->temporary != before) give_back(b);
}

/* ---- all together ----------------------------------------------------------------------- */

static void make_room(builder *b) {
    const forest_spec *s = b->spec;
    int64_t largest = 0, nodes = s->tree_begin[s->num_trees];
    for (int32_t i = 0; i < s->num_trees; i++) {
        int64_t size = s->tree_begin[i + 1] - s->tree_begin[i];
        if (size < 1) fail(b, "tree %d has no nodes", i);
        if (size > largest) largest = size;
    }
    b->coded = borrow(b, (size_t)nodes, 1);
    b->split = borrow(b, (size_t)nodes, sizeof *b->split);
    b->depth = borrow(b, (size_t)nodes, sizeof *b->depth);
    b->height = borrow(b, (size_t)nodes, sizeof *b->height);
    b->weight = borrow(b, (size_t)nodes, sizeof *b->weight);
    b->category_mask = borrow(b, (size_t)nodes, sizeof *b->category_mask);
    b->order = borrow(b, (size_t)largest, sizeof *b->order);
}

/* About how many of the splits are distinct: those that find their place in a table empty. */
static double share_of_fresh(builder *b) {
    enum { BITS = 20 };
    const forest_spec *s = b->spec;
    uint8_t *table = borrow(b, (size_t)1 << BITS, 1);
    int64_t inner = 0, fresh = 0;
    for (int64_t i = 0; i < s->tree_begin[s->num_trees]; i++) {
        if (is_leaf(b, i)) continue;
        uint64_t bits;
        memcpy(&bits, s->threshold + i, sizeof bits);
        bits = (bits ^ (uint64_t)s->feature[i] * 0x9e3779b97f4a7c15u) * 0xd6e8feb86659fd93u;
        uint8_t *place = table + (bits >> (64 - BITS));
        fresh += !*place;
        inner += 1;
        *place = 1;
    }
    give_back(b);
    return inner ? (double)fresh / (double)inner : 0;
}

/* One tree with a tail makes its group score in two passes: only if that pays. */
static void choose_kinds(builder *b) {
    const forest_spec *s = b->spec;
    choices *all = borrow(b, (size_t)s->num_trees, sizeof *all);
    double best = 0, whole = 0;
    b->fresh = share_of_fresh(b);
    for (int32_t i = 0; i < s->num_trees; i++) {
        enter_tree(b, i);
        weigh(b);
        all[i] = choose_kind(b);
        best += all[i].best.cost;
        whole += all[i].whole.cost;
    }
    for (int32_t i = 0; i < s->num_trees; i++) {
        choice c = whole <= 1.15 * best ? all[i].whole : all[i].best;
        enter_tree(b, i);
        mark(b, &c);
        b->f->trees[i] = (tree){.kind = c.kind, .bits = c.bits, .output = s->output[i],
                                .has_tail = c.num_levels > 0};
    }
}

/* Marks the splits of a tree; returns how many of them are new to the group. */
static int32_t use_splits(builder *b, int32_t number, uint8_t *used, int really) {
    const forest_spec *s = b->spec;
    int32_t fresh = 0;
    for (int64_t n = s->tree_begin[number]; n < s->tree_begin[number + 1]; n++) {
        if (!b->coded[n]) continue;
        if (is_categorical(b, n)) {
            fresh++;
            continue;
        }
        uint8_t bit = missing_right(b, n) ? 2 : 1;
        fresh += !(used[b->split[n]] & bit);
        if (really) used[b->split[n]] |= bit;
    }
    return fresh;
}

static void make_group(builder *b, group *g, const numbered *distinct, int32_t count,
                       const uint8_t *used) {
    const forest_spec *s = b->spec;
    int32_t features = s->num_features;
    int32_t *columns = borrow(b, (size_t)features, sizeof *columns);
    for (int32_t i = 0; i < features; i++) columns[i] = -1;
    g->num_masks = 2;
    g->lanes = keep(b, (size_t)(2 * features + count / LANE_MAX + 1), sizeof *g->lanes);
    g->columns = keep(b, (size_t)features, sizeof *g->columns);
    make_lanes(b, g, distinct, count, used, columns);
    make_category_splits(b, g, columns);
    if (g->num_masks > UINT16_MAX) fail(b, "unsupported: its splits name too many categories");
    for (int32_t i = g->first_tree; i < g->first_tree + g->num_trees; i++) {
        enter_tree(b, i);
        emit_tree(b, g, b->f->trees + i);
        g->delayed |= b->f->trees[i].has_tail;
    }
}

static void make_groups(builder *b) {
    const forest_spec *s = b->spec;
    forest *f = b->f;
    numbered *distinct;
    int32_t count = number_splits(b, &distinct);
    uint8_t *used = borrow(b, (size_t)count + 1, 1);
    for (int i = 0; i < 3; i++) b->mask[i] = borrow(b, (size_t)count + 1, sizeof(uint32_t));
    f->groups = keep(b, (size_t)s->num_trees, sizeof *f->groups);
    for (int32_t i = 0; i < s->num_trees;) {
        group *g = f->groups + f->num_groups++;
        int32_t masks = 0;
        g->first_tree = i;
        memset(used, 0, (size_t)count);
        for (; i < s->num_trees; i++) {
            int32_t fresh = use_splits(b, i, used, 0);
            if (g->num_trees && masks + fresh > MASK_LIMIT) break;
            masks += fresh;
            use_splits(b, i, used, 1);
            g->num_trees++;
        }
        make_group(b, g, distinct, count, used);
    }
}

static size_t padded(size_t size) { return (size + 63) & ~(size_t)63; }

/* The same order and sizes as lay_out in kernel.c. */
static size_t scratch_size(const forest *f) {
    size_t real = f->compare == F32 ? 4 : 8, sum = f->accumulate == F32 ? 4 : 8;
    size_t span = (size_t)f->span;
    size_t size = padded((size_t)f->max_words * PLANE_BYTES);
    size += padded((size_t)f->max_columns * BLOCK * real);
    size += padded((size_t)f->num_outputs * span * sum);
    size += padded((size_t)(f->any_delayed ? f->max_group_trees : BATCH) * span);
    size += padded(span * 4) + padded(span * 2);
    if (f->any_delayed) size += padded(span * (size_t)f->num_features * real);
    return size;
}

static void size_up(forest *f) {
    for (int32_t i = 0; i < f->num_groups; i++) {
        const group *g = f->groups + i;
        uint32_t words = g->num_masks + g->num_scratch;
        if (words > f->max_words) f->max_words = words;
        if (g->num_columns > f->max_columns) f->max_columns = g->num_columns;
        if (g->num_trees > f->max_group_trees) f->max_group_trees = g->num_trees;
        f->any_delayed |= g->delayed;
    }
    f->span = f->any_delayed ? SPAN : BLOCK;
    while (f->span > BLOCK && (size_t)f->span * (size_t)f->num_outputs * 8 > 1u << 18) f->span /= 2;
    f->scratch_bytes = scratch_size(f);
}

#define DECLARE(NAME) void NAME(const forest *, void *, matrix, void *)
DECLARE(forest_run_baseline);
#ifdef HAVE_AVX2
DECLARE(forest_run_avx2);
#endif
#ifdef HAVE_AVX512
DECLARE(forest_run_avx512);
#endif

/* The best instruction set that this machine has: 0 baseline, 1 AVX2, 2 AVX-512. */
EXPORT int forest_instructions(void) {
#ifdef HAVE_AVX512
    if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq"))
        return 2;
#endif
#ifdef HAVE_AVX2
    if (__builtin_cpu_supports("avx2")) return 1;
#endif
    return 0;
}

static void choose_run(forest *f, int instructions) {
    f->run = forest_run_baseline;
#ifdef HAVE_AVX2
    if (instructions >= 1) f->run = forest_run_avx2;
#endif
#ifdef HAVE_AVX512
    if (instructions >= 2) f->run = forest_run_avx512;
#endif
    (void)instructions;
}

typedef struct {
    block *kept;
    forest f;
} owner;

EXPORT void forest_free(forest *f) {
    if (!f) return;
    owner *o = (owner *)((char *)f - offsetof(owner, f));
    for (int i = 0; i < 8; i++) free(f->spare[i]);
    release(o->kept);
    free(o);
}

/* Compiles a forest for an instruction set of at most `instructions`. NULL: see `error`. */
EXPORT forest *forest_build(const forest_spec *spec, int instructions, char *error,
                            size_t error_size) {
    owner *o = calloc(1, sizeof *o);
    builder *b = calloc(1, sizeof *b);
    if (!o || !b) {
        free(o);
        free(b);
        snprintf(error, error_size, "memory: none is left");
        return NULL;
    }
    *b = (builder){.spec = spec, .f = &o->f, .error = error, .error_size = error_size};
    if (setjmp(b->failed)) {
        release(b->temporary);
        release(b->kept);
        free(b);
        free(o);
        return NULL;
    }
    forest *f = b->f;
    f->num_trees = spec->num_trees;
    f->num_features = spec->num_features;
    f->num_outputs = spec->num_outputs;
    f->compare = spec->compare;
    f->accumulate = spec->accumulate;
    f->width = spec->width;
    f->initial = keep(b, (size_t)spec->num_outputs, sizeof(double));
    memcpy(f->initial, spec->initial, (size_t)spec->num_outputs * sizeof(double));
    f->trees = keep(b, (size_t)spec->num_trees, sizeof *f->trees);
    make_room(b);
    choose_kinds(b);
    make_groups(b);
    size_up(f);
    int best = forest_instructions();
    choose_run(f, instructions < best ? instructions : best);
    f->size_bytes = b->kept_bytes;
    o->kept = b->kept;
    release(b->temporary);
    free(b);
    return f;
}

static void *take_scratch(forest *f) {
    for (int i = 0; i < 8; i++) {
        void *memory = __atomic_exchange_n(&f->spare[i], NULL, __ATOMIC_ACQ_REL);
        if (memory) return memory;
    }
    void *memory = NULL;
    return posix_memalign(&memory, 64, f->scratch_bytes) ? NULL : memory;
}

static void give_scratch(forest *f, void *memory) {
    for (int i = 0; i < 8 && memory; i++)
        memory = __atomic_exchange_n(&f->spare[i], memory, __ATOMIC_ACQ_REL);
    free(memory);
}

/* Margins of some rows into `out`, (num_rows, num_outputs) in the type of the sums.
 *
 * Threads may call it at once. Returns 0, or 1 if there is no memory. */
EXPORT int forest_predict(forest *f, const void *data, int type, int64_t row_stride,
                          int64_t column_stride, int64_t num_rows, void *out) {
    void *scratch = take_scratch(f);
    if (!scratch) return 1;
    f->run(f, scratch, (matrix){data, type, row_stride, column_stride, num_rows}, out);
    give_scratch(f, scratch);
    return 0;
}

#ifndef FOREST_DIGEST
#define FOREST_DIGEST ""
#endif

/* Names the source that this was built from. */
EXPORT const char *forest_digest(void) { return FOREST_DIGEST; }

/* Facts about a compiled forest, for tests and people. */
EXPORT void forest_describe(const forest *f, int64_t *facts) {
    memset(facts, 0, 8 * sizeof *facts);
    facts[0] = f->num_groups;
    facts[1] = (int64_t)f->size_bytes;
    facts[2] = (int64_t)f->scratch_bytes;
    for (int32_t i = 0; i < f->num_trees; i++) {
        facts[3] += f->trees[i].kind == TREE_COMPLETE;
        facts[4] += f->trees[i].kind == TREE_PROGRAM;
        facts[5] += f->trees[i].has_tail;
    }
    for (int32_t i = 0; i < f->num_groups; i++) {
        facts[6] += f->groups[i].num_lanes;
        facts[7] += f->groups[i].num_masks;
    }
}
