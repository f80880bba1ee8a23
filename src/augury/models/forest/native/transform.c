/* From margins to predictions, in the library's own arithmetic; and a look at the input. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* XGBoost's: the argument of exp is kept in range. */
EXPORT void forest_sigmoid(float *x, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        float negative = -x[i];
        float e = expf(negative < 88.7f ? negative : 88.7f);
        x[i] = 1.0f / (e + 1.0f);
    }
}

/* XGBoost's: the sum is a double, the quotient a float. */
EXPORT void forest_softmax(float *x, int64_t num_rows, int64_t num_classes) {
    for (int64_t r = 0; r < num_rows; r++, x += num_classes) {
        float most = x[0];
        double sum = 0;
        for (int64_t k = 1; k < num_classes; k++) most = fmaxf(x[k], most);
        for (int64_t k = 0; k < num_classes; k++) {
            x[k] = expf(x[k] - most);
            sum += x[k];
        }
        for (int64_t k = 0; k < num_classes; k++) x[k] /= (float)sum;
    }
}

EXPORT void forest_exp(float *x, int64_t count) {
    for (int64_t i = 0; i < count; i++) x[i] = expf(x[i]);
}

/* LightGBM's: in double precision, the scale is the objective's. */
EXPORT void forest_sigmoid_double(double *x, int64_t count, double scale) {
    for (int64_t i = 0; i < count; i++) x[i] = 1.0 / (1.0 + exp(-scale * x[i]));
}

EXPORT void forest_softmax_double(double *x, int64_t num_rows, int64_t num_classes) {
    for (int64_t r = 0; r < num_rows; r++, x += num_classes) {
        double most = x[0], sum = 0;
        for (int64_t k = 1; k < num_classes; k++) most = x[k] > most ? x[k] : most;
        for (int64_t k = 0; k < num_classes; k++) {
            x[k] = exp(x[k] - most);
            sum += x[k];
        }
        for (int64_t k = 0; k < num_classes; k++) x[k] /= sum;
    }
}

EXPORT void forest_exp_double(double *x, int64_t count) {
    for (int64_t i = 0; i < count; i++) x[i] = exp(x[i]);
}

EXPORT void forest_log1p_exp_double(double *x, int64_t count) {
    for (int64_t i = 0; i < count; i++) x[i] = log1p(exp(x[i]));
}

EXPORT float forest_logit(float probability) { return -logf(1.0f / probability - 1.0f); }

EXPORT float forest_log(float x) { return logf(x); }

/* Is there a NaN (1) or an infinity (2) among `count` floats, or doubles? */
EXPORT int forest_find_float(const float *x, int64_t count) {
    int found = 0;
    while (count > 0) {
        int n = count < 4096 ? (int)count : 4096;
        uint32_t most = 0;
        for (int i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, x + i, sizeof bits);
            bits &= 0x7fffffff;
            most = bits > most ? bits : most;
        }
        if (most >= 0x7f800000)
            for (int i = 0; i < n; i++) found |= isnan(x[i]) ? 1 : isinf(x[i]) ? 2 : 0;
        x += n;
        count -= n;
    }
    return found;
}

EXPORT int forest_find_double(const double *x, int64_t count) {
    int found = 0;
    while (count > 0) {
        int n = count < 4096 ? (int)count : 4096;
        uint32_t most = 0;
        for (int i = 0; i < n; i++) {
            uint64_t bits;
            memcpy(&bits, x + i, sizeof bits);
            uint32_t high = (uint32_t)(bits >> 32) & 0x7fffffff;
            most = high > most ? high : most;
        }
        if (most >= 0x7ff00000)
            for (int i = 0; i < n; i++) found |= isnan(x[i]) ? 1 : isinf(x[i]) ? 2 : 0;
        x += n;
        count -= n;
    }
    return found;
}
