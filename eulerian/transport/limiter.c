/* The limiter of Zhang & Shu on a batch of cells, and its adjoint. */

static inline vec mean_of(const wide *u)
{
    vec s = MEAN[0] * u[0];
#pragma GCC unroll 16
    for (int i = 1; i < ND; ++i) s += MEAN[i] * u[i];
    return s;
}

/* A lower bound of a polynomial: the least of its Bernstein coefficients. */
static inline vec lower_bound(const wide *u)
{
    vec lowest = u[0];
#if DEGREE > 0
    for (int i = 1; i <= DIM; ++i) lowest = least(lowest, u[i]);
#endif
#if DEGREE == 2
#pragma GCC unroll 8
    for (int e = 0; e < ND - DIM - 1; ++e)
        lowest = least(lowest, 2.0 * u[DIM + 1 + e] - 0.5 * (u[EDGES[e][0]] + u[EDGES[e][1]]));
#endif
    return lowest;
}

/* Value at a point of the limiter of what deviates from the mean. */
static inline vec deviation(int l, const wide *d)
{
    vec value = LIMITER[l][0] * d[0];
#pragma GCC unroll 16
    for (int i = 1; i < ND; ++i) value += LIMITER[l][i] * d[i];
    return value;
}

/* Set cells with next to no mass to zero, and scale the others towards their means until the density is >= 0 at the
 * limiter's points. What was done is recorded where anything was: factors, and which point decided. Returns the flag of
 * the batch. */
static inline int limit_batch(const scheme_t *t, wide *u, wide *factors, uint8_t *lowest_at)
{
    const vec mean = mean_of(u);
    const mask filled = ~(mean == 0.0), emptied = filled & ~(mean >= t->empty); /* a NaN is both */
    if (!any(emptied | ~(lower_bound(u) >= 0.0))) return any(filled) ? 0 : ZERO;
    vec d[ND], lowest = all(0.0);
    for (int i = 0; i < ND; ++i) d[i] = u[i] - mean;
    for (int l = 0; l < NL; ++l) lowest = least(lowest, deviation(l, d));
    const mask limited = ~(mean + lowest >= 0.0) | emptied;
    if (!any(limited)) return 0;
    mask at = (mask){0};
    for (int l = NL - 1; l >= 0; --l) {
        const mask here = deviation(l, d) == lowest;
        at = (here & ((mask){0} + l)) | (~here & at);
    }
    const mask zero = (mean < t->empty) & (mean > -t->empty); /* means that are negative stay: mass is kept */
    vec factor = choose(limited, mean / -lowest, all(1.0));
    factor = choose(emptied, choose(mean == mean, all(0.0), mean), factor); /* NaN is passed on */
    for (int i = 0; i < ND; ++i) u[i] = choose(zero, all(0.0), choose(limited, mean + factor * d[i], u[i]));
    *factors = factor;
    for (int w = 0; w < LANES; ++w) lowest_at[w] = !limited[w] ? UNLIMITED : emptied[w] ? EMPTIED : (uint8_t)at[w];
    return any(~zero) ? LIMITED : ZERO;
}

/* Cells in which all is zero. */
static inline mask zeros_of(const wide *w)
{
    mask zero = w[0] == 0.0;
    for (int i = 1; i < ND; ++i) zero &= w[i] == 0.0;
    return zero;
}

/* Adjoint of setting cells to zero, in place on g: where the density w is zero nothing depends on what it was. */
static inline void empty_batch_vjp(const wide *w, wide *g)
{
    const mask zero = zeros_of(w);
    for (int i = 0; i < ND; ++i) g[i] = choose(zero, all(0.0), g[i]);
}

/* Adjoint of the limiter, in place on g, for a batch where something was limited; w is the limited density.
 *
 * With mean m, lowest deviation l at point x and factor f = m / -l the limited deviations are w - m = f d, and
 * (w - m) / m is d / -l: the derivative is written with that ratio, which stays finite where m and l underflow. */
static inline void limit_batch_vjp(const wide *w, const wide *factors, const uint8_t *lowest_at, wide *g)
{
    const vec mean = mean_of(w), average = mean_of(g), factor = *factors;
    mask limited, emptied;
    int at[LANES]; /* a row of zeros stands behind those of the points */
    for (int n = 0; n < LANES; ++n) {
        limited[n] = lowest_at[n] == UNLIMITED ? 0 : -1;
        emptied[n] = lowest_at[n] == EMPTIED ? -1 : 0;
        at[n] = lowest_at[n] < NL ? lowest_at[n] : NL;
    }
    vec s = all(0.0), ratio[ND];
    for (int i = 0; i < ND; ++i) ratio[i] = (w[i] - mean) / mean;
#pragma GCC unroll 16
    for (int i = 0; i < ND; ++i) {
        vec r = MASS[i][0] * ratio[0];
#pragma GCC unroll 16
        for (int j = 1; j < ND; ++j) r += MASS[i][j] * ratio[j];
        s += r * g[i];
    }
    s = choose(emptied, all(0.0), s);
    for (int i = 0; i < ND; ++i) {
        vec point;
        for (int n = 0; n < LANES; ++n) point[n] = REPRESENTER[at[n]][i];
        const vec scaled = average + s + factor * (g[i] - average + s * (point - 1.0));
        g[i] = choose(limited, scaled, g[i]);
    }
}

/* Adjoint of all that is done behind a stage, in place on g; flag: of the batch, which is not to be ZERO unless cells
 * that are zero hand on what comes in. */
static inline void behind_stage_vjp(const scheme_t *t, const wide *w, const wide *factors, const uint8_t *lowest_at,
                                    int flag, wide *g)
{
    wide passed[ND];
    const int through = t->through_zeros != 0;
    if (through)
        for (int i = 0; i < ND; ++i) passed[i] = g[i];
    if (flag == LIMITED) limit_batch_vjp(w, factors, lowest_at, g);
    if (through) {
        const mask zero = zeros_of(w);
        for (int i = 0; i < ND; ++i) g[i] = choose(zero, passed[i], g[i]);
    } else
        empty_batch_vjp(w, g);
}
