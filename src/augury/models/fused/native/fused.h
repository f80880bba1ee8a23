/* A fused pipeline, shared by the passes (passes.c) and their entry (entry.c).
 *
 * Rows are taken in blocks that stay in the first-level cache. For each term one column is loaded as
 * doubles, its operations are applied to it in the pipeline's order, each rounded as the library
 * rounds it, and the result is added, times a weight, to the block's sums; or it is written as a
 * feature for what comes next. No row-major matrix of all features is made.
 *
 * Everything here is checked by who makes it (program.py): indices are within their arrays.
 */
#ifndef AUGURY_FUSED_H
#define AUGURY_FUSED_H

#include <stdint.h>

enum { BLOCK = 1024, NARROW = 128 }; /* rows of a block; of one whose columns are strided */

enum column_type { F32, F64, I8, I16, I32, I64, U8, U16, U32, U64 };

/* One input column. */
typedef struct {
    const void *data;
    int64_t stride; /* bytes between values */
    const uint8_t *missing; /* a byte a row, not 0: missing; or NULL */
    int64_t type;
} column;

enum operation_kind {
    SUBTRACT, DIVIDE, STANDARDIZE, MULTIPLY, ADD, RESCALE, CLIP, FILL, REPLACE, IS_MISSING,
    IS_EQUAL, REFUSE, MAGNITUDE
};

/* One elementwise step. STANDARDIZE: (z - a) / b; RESCALE: z * a + b, rounded twice; FILL: a where
 * z is NaN; REPLACE: b where z is a; IS_EQUAL: to a; REFUSE: notes what there is of the values
 * whose bits are in a. */
typedef struct {
    double a, b;
    int64_t kind;
} operation;

enum refused { REFUSED_NAN = 1, REFUSED_INFINITE = 2, REFUSED_UNKNOWN = 4 };

/* What one column gives. With keys: the value is looked up among them, and what it gives stands in
 * a table with a row for each key, one for unknown values and one for missing ones. */
typedef struct {
    int64_t source, first_operation, num_operations;
    int64_t first_key, num_keys; /* num_keys < 0: no keys */
    int64_t direct;              /* the keys are 0, 1, 2, ... */
    int64_t first_number; /* weights, one an output; or the table's rows, one number an output */
    int64_t first_flag;   /* of keys: what is refused, by row of the table */
    int64_t output;       /* features: column that is written */
} term;

typedef struct {
    int64_t num_terms, num_outputs, num_sources;
    const term *terms;
    const operation *operations;
    const double *keys, *numbers;
    const uint8_t *flags;
    const double *offset; /* (num_outputs), added last */
} program;

/* Sums of the rows into `out`, (num_rows, num_outputs); refused: (num_sources), set where seen. */
typedef int margins_function(const program *, const column *, int64_t num_rows, double *out,
                             uint8_t *refused);
/* Features of the rows into `out`, column by column: (num_outputs, num_rows). */
typedef void features_function(const program *, const column *, int64_t num_rows, double *out,
                               uint8_t *refused);

#endif
