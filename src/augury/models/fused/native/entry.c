/* What Python calls: the passes in this machine's best instruction set. */
#include "fused.h"

#define EXPORT __attribute__((visibility("default")))

margins_function fused_margins_baseline;
features_function fused_features_baseline;
#ifdef HAVE_AVX2
margins_function fused_margins_avx2;
features_function fused_features_avx2;
#endif

/* The best instruction set of this machine: 0 baseline, 1 AVX2. */
EXPORT int fused_instructions(void) {
#ifdef HAVE_AVX2
    if (__builtin_cpu_supports("avx2")) return 1;
#endif
    return 0;
}

/* Threads may call it at once. Returns 0, or 1 if there is no memory. */
EXPORT int fused_margins(const program *p, const column *columns, int64_t num_rows, double *out,
                         uint8_t *refused, int instructions) {
#ifdef HAVE_AVX2
    if (instructions >= 1 && fused_instructions() >= 1)
        return fused_margins_avx2(p, columns, num_rows, out, refused);
#endif
    (void)instructions;
    return fused_margins_baseline(p, columns, num_rows, out, refused);
}

EXPORT void fused_features(const program *p, const column *columns, int64_t num_rows, double *out,
                           uint8_t *refused, int instructions) {
#ifdef HAVE_AVX2
    if (instructions >= 1 && fused_instructions() >= 1) {
        fused_features_avx2(p, columns, num_rows, out, refused);
        return;
    }
#endif
    (void)instructions;
    fused_features_baseline(p, columns, num_rows, out, refused);
}

#ifndef FUSED_DIGEST
#define FUSED_DIGEST ""
#endif

/* Names the source that this was built from. */
EXPORT const char *fused_digest(void) { return FUSED_DIGEST; }
