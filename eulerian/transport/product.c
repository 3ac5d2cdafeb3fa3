/* One application of the operator to a batch of cells, and its transpose with the derivative by the coefficients. */

/* Values at a facet's flux points from those at its nodes. */
static inline void to_points(const wide *nodes, wide *points)
{
#pragma GCC unroll 16
    for (int q = 0; q < NQ; ++q) {
        vec s = TRACE[q][0] * nodes[0];
#pragma GCC unroll 16
        for (int n = 1; n < FN; ++n) s += TRACE[q][n] * nodes[n];
        points[q] = s;
    }
}

/* Its transpose, added to the nodes of the cell. */
static inline void from_points(int f, const wide *points, wide *cell)
{
#pragma GCC unroll 16
    for (int n = 0; n < FN; ++n) {
        vec s = TRACE[0][n] * points[0];
#pragma GCC unroll 16
        for (int q = 1; q < NQ; ++q) s += TRACE[q][n] * points[q];
        cell[FACET_NODES[f][n]] += s;
    }
}

static inline void solve_mass(const wide *a, wide *result)
{
#pragma GCC unroll 16
    for (int i = 0; i < ND; ++i) {
        vec s = MASS_INVERSE[i][0] * a[0];
#pragma GCC unroll 16
        for (int j = 1; j < ND; ++j) s += MASS_INVERSE[i][j] * a[j];
        result[i] = s;
    }
}

static inline void volume_term(const double *c, const wide *u, wide *sum)
{
#if DEGREE == 1 /* gradients are constant: c[m][j] is the integral of the velocity's m-th component times phi_j */
    for (int m = 0; m < DIM; ++m) {
        vec s = spread(c + m * NV * CELLS) * u[0];
        for (int j = 1; j < ND; ++j) s += spread(c + (m * NV + j) * CELLS) * u[j];
        sum[m + 1] += s;
        sum[0] -= s;
    }
#elif DEGREE == 2 /* c[m][j] is the velocity's m-th component at point j, with its weight */
    for (int j = 0; j < NV; ++j) {
        vec s = VALUES[j][0] * u[0];
#pragma GCC unroll 16
        for (int i = 1; i < ND; ++i) s += VALUES[j][i] * u[i];
        for (int m = 0; m < DIM; ++m) {
            const vec flow = spread(c + (m * NV + j) * CELLS) * s;
#pragma GCC unroll 16
            for (int i = 0; i < ND; ++i) sum[i] += SLOPES[m][j][i] * flow;
        }
#if POWER > 1
        const vec gain = spread(c + (DIM * NV + j) * CELLS) * s;
#pragma GCC unroll 16
        for (int i = 0; i < ND; ++i) sum[i] += VALUES[j][i] * gain;
#endif
    }
#endif
}

/* The transpose of volume_term, and scale times its derivative by c at u. */
static inline void volume_term_vjp(const double *c, const wide *y, wide *sum, const wide *u, double scale, wide *dc)
{
#if DEGREE == 1
    for (int m = 0; m < DIM; ++m) {
        const vec slope = y[m + 1] - y[0];
        for (int j = 0; j < ND; ++j) {
            sum[j] += spread(c + (m * NV + j) * CELLS) * slope;
            dc[m * NV + j] = scale * slope * u[j];
        }
    }
#elif DEGREE == 2
    for (int j = 0; j < NV; ++j) {
        vec flow = all(0.0), value = VALUES[j][0] * u[0];
#pragma GCC unroll 16
        for (int i = 1; i < ND; ++i) value += VALUES[j][i] * u[i];
        value *= scale;
        for (int m = 0; m < DIM; ++m) {
            vec slope = SLOPES[m][j][0] * y[0];
#pragma GCC unroll 16
            for (int i = 1; i < ND; ++i) slope += SLOPES[m][j][i] * y[i];
            flow += spread(c + (m * NV + j) * CELLS) * slope;
            dc[m * NV + j] = slope * value;
        }
#if POWER > 1
        vec there = VALUES[j][0] * y[0];
#pragma GCC unroll 16
        for (int i = 1; i < ND; ++i) there += VALUES[j][i] * y[i];
        flow += spread(c + (DIM * NV + j) * CELLS) * there;
        dc[DIM * NV + j] = there * value;
#endif
#pragma GCC unroll 16
        for (int i = 0; i < ND; ++i) sum[i] += VALUES[j][i] * flow;
    }
#endif
}

/* Up to degree 1 div v is constant in a cell, and the source goes past the mass matrix: c is -(m - 1) div v. */
static inline void source_term(const double *c, const wide *u, wide *result)
{
#if POWER > 1 && DEGREE < 2
    const vec rate = spread(c + DIM * NV * CELLS);
    for (int i = 0; i < ND; ++i) result[i] += rate * u[i];
#endif
}

/* scale times its derivative by c at u, per measure of the cell. */
static inline void source_term_vjp(const wide *y, const wide *u, double scale, wide *dc)
{
#if POWER > 1 && DEGREE < 2
    vec s = all(0.0);
    for (int i = 0; i < ND; ++i)
        for (int j = 0; j < ND; ++j) s += MASS[i][j] * (y[i] * u[j]);
    dc[DIM * NV] = scale * s;
#endif
}

/* result = B u for one batch; u: its own nodes, across: the whole density from its group on. */
static inline void product(const scheme_t *t, int64_t b, const wide *u, const double *across, wide *result)
{
    const double *in = t->in + b * NF * NQ * CELLS, *out = t->out + b * NF * NQ * CELLS;
    const int32_t *at = t->neighbours + b * NF * FN * CELLS;
    vec sum[ND];
    for (int i = 0; i < ND; ++i) sum[i] = all(0.0);
    volume_term(t->volume + b * NUMBERS * CELLS, u, sum);
#pragma GCC unroll 4
    for (int f = 0; f < NF; ++f) {
        vec own[FN], other[FN], point[NQ], beyond[NQ];
#pragma GCC unroll 16
        for (int n = 0; n < FN; ++n) {
            own[n] = u[FACET_NODES[f][n]];
            other[n] = gather(across, at + (f * FN + n) * CELLS);
        }
        to_points(own, point);
        to_points(other, beyond);
#pragma GCC unroll 16
        for (int q = 0; q < NQ; ++q) {
            const int i = (f * NQ + q) * CELLS;
            point[q] = spread(in + i) * beyond[q] - spread(out + i) * point[q];
        }
        from_points(f, point, sum);
    }
    solve_mass(sum, result);
    source_term(t->volume + b * NUMBERS * CELLS, u, result);
}

/* result = B* y for one batch; scale times the derivative of <y, B u> by out and volume is added to dout, dvolume. */
static inline void product_vjp(const scheme_t *t, int64_t b, const wide *y, const double *across, wide *result,
                               const wide *u, double scale, double *dout, double *dvolume)
{
    const double *out = t->out + b * NF * NQ * CELLS;
    const int32_t *at = t->neighbours + b * NF * FN * CELLS;
    vec sum[ND], by_out[NF * NQ], by_volume[NUMBERS];
    for (int i = 0; i < ND; ++i) sum[i] = all(0.0);
    if (DEGREE > 0 || POWER > 1) {
        if (DEGREE == 0)
            for (int i = 0; i < DIM * NV; ++i) by_volume[i] = all(0.0);
        volume_term_vjp(t->volume + b * NUMBERS * CELLS, y, sum, u, scale, by_volume);
        source_term_vjp(y, u, scale, by_volume);
        add_terms(dvolume + b * NUMBERS * SUMS, by_volume, NUMBERS);
    }
#pragma GCC unroll 4
    for (int f = 0; f < NF; ++f) {
        vec jump[FN], own[FN], point[NQ], value[NQ];
#pragma GCC unroll 16
        for (int n = 0; n < FN; ++n) jump[n] = gather(across, at + (f * FN + n) * CELLS) - y[FACET_NODES[f][n]];
        to_points(jump, point);
#pragma GCC unroll 16
        for (int n = 0; n < FN; ++n) own[n] = u[FACET_NODES[f][n]];
        to_points(own, value);
#pragma GCC unroll 16
        for (int q = 0; q < NQ; ++q) {
            by_out[f * NQ + q] = scale * point[q] * value[q];
            point[q] *= spread(out + (f * NQ + q) * CELLS);
        }
        from_points(f, point, sum);
    }
    add_terms(dout + b * NF * NQ * SUMS, by_out, NF * NQ);
    solve_mass(sum, result);
    source_term(t->volume + b * NUMBERS * CELLS, y, result);
}
