/* Costs of the total density, gamma/2 int rho^2 + sigma int e(rho) with e(rho) = (rho + d) log(rho + d) - d log d for
 * rho >= 0 and its tangent at 0 below, and the representatives in L2 of their derivatives. With `products` the squares
 * of the densities that the total is the sum of are left out of rho^2; then every density has one column.
 *
 * Densities are those of `kernels.c`, from which DIM, GROUPS, WIDTH, ND and the order of numbers are taken over:
 * GROUPS times WIDTH lanes of which COLUMNS hold a density. Here eight cells side by side are a block, whatever the
 * batches are, so that labels cost nothing but their sum.
 *
 * GRAM[ND][ND]       int phi_i phi_j over the reference cell
 * POINTS[NQ][ND]     the basis at the points of the quadrature rule, with its WEIGHTS[NQ]
 * PROJECT[ND][NQ]    GRAM^-1 POINTS^T diag(WEIGHTS): the projection of a function on the polynomials, nodes from points
 */
#include <math.h>
#include <stdint.h>

#include "simd.h"

#define TERMS 11 /* of the series of the logarithm */

typedef struct {
    int64_t n_owned;    /* cells */
    const double *det;  /* [block][8] |det J|, zero behind the last cell */
    double congestion;  /* gamma */
    double entropy;     /* sigma */
    double floor;       /* d, positive */
    int64_t products;   /* whether the parts' own squares are left out of the congestion */
} cost_t;

/* log a of positive normal numbers, by a = 2^e x with x in [1/sqrt 2, sqrt 2] and the series of artanh, to about the
 * last digit; infinity and NaN give some finite number. */
static inline vec logarithm(vec a)
{
    const mask bits = (mask)a;
    mask exponent = (bits >> 52) - 1023;
    vec x = (vec)((bits & 0xfffffffffffff) | 0x3ff0000000000000);
    const mask upper = x > M_SQRT2;
    x = choose(upper, 0.5 * x, x);
    exponent -= upper; /* true is -1 */
    const vec s = (x - 1.0) / (x + 1.0), z = s * s, e = __builtin_convertvector(exponent, vec);
    vec series = all(1.0 / (2 * TERMS + 1));
#pragma GCC unroll 16
    for (int k = TERMS - 1; k > 0; --k) series = 1.0 / (2 * k + 1) + z * series;
    return e * M_LN2 + (2.0 * s + 2.0 * s * z * series);
}

/* The total density of a block at the nodes of its cells, over `parts` densities. */
static inline void total_of(const cost_t *t, const double *const *parts, int64_t n_parts, int64_t block, vec *total)
{
#if WIDTH == 1 && GROUPS == 1
    (void)t;
    for (int n = 0; n < ND; ++n) {
        total[n] = ((const wide *)parts[0])[block * ND + n];
        for (int64_t p = 1; p < n_parts; ++p) total[n] += ((const wide *)parts[p])[block * ND + n];
    }
#else
    for (int n = 0; n < ND; ++n) total[n] = all(0.0);
    for (int64_t w = 0, c = block * LANES; w < LANES && c < t->n_owned; ++w, ++c) {
        const int64_t first = (c / CELLS) * GROUPS * ND * LANES + c % CELLS * WIDTH;
        for (int n = 0; n < ND; ++n) {
            double s = 0.0;
            for (int64_t p = 0; p < n_parts; ++p)
                for (int y = 0; y < COLUMNS; ++y) s += parts[p][first + (y / WIDTH * ND + n) * LANES + y % WIDTH];
            total[n][w] = s;
        }
    }
#endif
}

static inline vec at_point(int q, const vec *nodes)
{
    vec s = POINTS[q][0] * nodes[0];
#pragma GCC unroll 16
    for (int n = 1; n < ND; ++n) s += POINTS[q][n] * nodes[n];
    return s;
}

static double sum_over_lanes(vec a)
{
    return ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]));
}

/* Integral of u v over the reference cell, from the nodes. */
static inline vec product_of(const vec *u, const vec *v)
{
    vec s = all(0.0);
    for (int a = 0; a < ND; ++a) {
        vec r = GRAM[a][0] * u[0];
        for (int b = 1; b < ND; ++b) r += GRAM[a][b] * u[b];
        s += v[a] * r;
    }
    return s;
}

/* Integral of the square of the sum of all parts without their own squares: twice each part times those before it. */
static inline vec products_of(const cost_t *t, const double *const *parts, int64_t n_parts, int64_t block)
{
    vec before[ND], s = all(0.0);
    total_of(t, parts, 1, block, before);
    for (int64_t p = 1; p < n_parts; ++p) {
        vec own[ND];
        total_of(t, parts + p, 1, block, own);
        s += 2.0 * product_of(own, before);
        for (int n = 0; n < ND; ++n) before[n] += own[n];
    }
    return s;
}

/* Both costs per time at `count` moments, [moment][2]; states[moment * n_parts + part] are densities, whose sum counts. */
void charge(const cost_t *t, const double *const *states, int64_t n_parts, int64_t count, double *values)
{
    const double lowest = t->floor * log(t->floor), tangent = log(t->floor) + 1.0;
    for (int64_t i = 0; i < count; ++i) {
        vec square = all(0.0), disorder = all(0.0);
        for (int64_t block = 0; block * LANES < t->n_owned; ++block) {
            const vec det = ((const wide *)t->det)[block];
            vec u[ND];
            total_of(t, states + i * n_parts, n_parts, block, u);
            if (t->congestion > 0.0) {
                const vec s = t->products ? products_of(t, states + i * n_parts, n_parts, block) : product_of(u, u);
                square += det * choose(det > 0.0, s, all(0.0)); /* lanes without a cell may hold anything */
            }
            if (t->entropy > 0.0) {
                vec s = all(0.0);
                for (int q = 0; q < NQ; ++q) {
                    const vec rho = at_point(q, u);
                    const mask below = rho < 0.0; /* a NaN is not */
                    const vec raised = choose(below, all(0.0), rho) + t->floor;
                    s += WEIGHTS[q] * (raised * logarithm(raised) + choose(below, rho, all(0.0)) * tangent - lowest);
                }
                disorder += det * choose(det > 0.0, s, all(0.0));
            }
        }
        values[2 * i] = 0.5 * t->congestion * sum_over_lanes(square);
        values[2 * i + 1] = t->entropy * sum_over_lanes(disorder);
    }
}

/* results[moment], [batch][node][cell] = base + what represents the derivative of both costs at a moment in L2, by the
 * density number `own` of each moment. */
void slope(const cost_t *t, const double *const *states, int64_t n_parts, int64_t count, int64_t own,
           const double *base, double *const *results)
{
    for (int64_t i = 0; i < count; ++i)
        for (int64_t block = 0; block * LANES < t->n_owned; ++block) {
            vec u[ND], g[ND];
            total_of(t, states + i * n_parts, n_parts, block, u);
            for (int n = 0; n < ND; ++n) g[n] = t->congestion * u[n];
            if (t->products) {
                vec mine[ND];
                total_of(t, states + i * n_parts + own, 1, block, mine);
                for (int n = 0; n < ND; ++n) g[n] -= t->congestion * mine[n];
            }
            if (t->entropy > 0.0)
                for (int q = 0; q < NQ; ++q) {
                    const vec rho = at_point(q, u);
                    const vec by_rho = t->entropy * (logarithm(choose(rho < 0.0, all(0.0), rho) + t->floor) + 1.0);
#pragma GCC unroll 16
                    for (int n = 0; n < ND; ++n) g[n] += PROJECT[n][q] * by_rho;
                }
            for (int64_t n = 0; n < ND; ++n) {
#if WIDTH == 1
                const mask cell = ((const wide *)t->det)[block] > 0.0;
                ((wide *)results[i])[block * ND + n] =
                    ((const wide *)base)[block * ND + n] + choose(cell, g[n], all(0.0));
#else
                for (int64_t w = 0, c = block * LANES; w < LANES && c < t->n_owned; ++w, ++c) {
                    const int64_t at = (c / CELLS * ND + n) * CELLS + c % CELLS;
                    results[i][at] = base[at] + g[n][w];
                }
#endif
            }
        }
}
