/* Compiled loops of the transport scheme, specialised at compile time.
 *
 * DIM, DEGREE        space dimension, polynomial degree
 * POWER              m: what moves is the m-th power of a density; 1 for densities themselves
 * GROUPS, WIDTH      densities (labels) that move together: GROUPS times WIDTH, a power of two up to eight
 * ND, NN             nodes of a cell for the density and for the velocity
 * FN, FV, NQ         nodes of a facet for the density and for the velocity, flux points of a facet
 * NV, NL, STAGES     numbers per cell and direction of the volume term, points of the limiter, Runge-Kutta stages
 * ND_DIV, NS         POWER > 1: points that determine div v on a cell, numbers per cell of the source
 *
 * Upper-case tables are those of `element.py`. Densities are values at Lagrange nodes, eight side by side:
 * [batch][group][node][lane], where the lanes are CELLS cells of WIDTH labels each; the batches of owned cells come
 * first, then those of ghost cells. A cell counts its vertices by their global numbers, so both cells of a facet see
 * its nodes and flux points in the same order. What labels share is kept once per cell, [batch][...][cell].
 *
 * With the flux F_q = in_q u(across) - out_q u(own) out of flux point q the operator is
 *     B u = M^-1 (sum_q trace^T F_q + volume u),
 * and since what flows in here flows out across, its transpose in L2 is
 *     B* y = M^-1 (sum_q trace^T out_q (y(across) - y(own)) + volume^T y):
 * the adjoint carries y, the representative in L2 of the derivative, and its derivative by out_q is one product.
 *
 * The power q = rho^m of a density has the source -(m - 1) q div v, which stands behind the volume term's numbers. A
 * wall that stops the flow is a negative divergence on the boundary: there q gains (m - 1) rho^m (v.n)+, taken from the
 * density's mean in the cell. (Taken from q it would feed on itself and grow like exp(v t / h) where the density grows
 * like t / h; and at the wall itself the polynomials of cells that are pressed are many times their means.) So powers
 * are stepped forward beside the steps that their density has taken, and the adjoint hands on what they owe to it.
 */
#include <math.h>
#include <stdint.h>

#define NF (DIM + 1)
#if POWER > 1
#define NUMBERS (DIM * NV + NS) /* of the volume term and the source, per cell */
#else
#define NUMBERS (DIM * NV)
#endif
#define LANES 8
#define CELLS (LANES / WIDTH)
#define SUMS (WIDTH == LANES ? 1 : LANES) /* sums over labels are kept by lane, but for one cell they are added up */
#define UNLIMITED 255
#define EMPTIED 254

/* PICK(a, b, ...): numbers of two vectors by their places. */
#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define PICK __builtin_shufflevector
#define PICK_PARTS 1 /* also from vectors shorter than the result */
#endif
#endif
#ifndef PICK /* GCC before 12 */
#define PICK(a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#define PICK_PARTS 0
#endif

typedef double vec __attribute__((vector_size(8 * LANES)));
typedef double wide __attribute__((vector_size(8 * LANES), aligned(8))); /* in memory, wherever it lies */
typedef double part __attribute__((vector_size(8 * WIDTH), aligned(8))); /* the labels of one cell */
typedef int64_t mask __attribute__((vector_size(8 * LANES)));

typedef struct {
    int64_t n_owned;             /* cells */
    int64_t n_batches;           /* of owned cells */
    int64_t size;                /* numbers in one density, ghosts included */
    const int32_t *neighbours;   /* [batch][NF][FN][cell] where the facet's nodes stand across, for the first group */
    const int32_t *cell_nodes;   /* [block][NN][8], blocks of eight cells */
    const double *inverse;       /* [block][DIM][DIM][8] d(reference)/d(physical) */
    const double *normals;       /* [block][NF][DIM][8] outward area normal / |det J|, or zero without a neighbour */
    const double *sizes;         /* [block][NF][8] its length */
    const double *det;           /* [block][8] |det J| */
    double *in, *out;            /* [batch][NF][NQ][cell], and room for one more batch */
    double *volume;              /* [batch][NUMBERS][cell]: [DIM][NV], [NS]; and room for one more batch */
    double delta;                /* smoothing of |v.n| */
    double empty;                /* cell means below this count as zero */
    double stability;            /* linear stability limit of the scheme: time step x outflow rate <= 1 / stability */
    int64_t n_send, n_receive;   /* ghost exchange: positions of the first group's numbers, and their buffers */
    const int32_t *send, *receive;
    double *send_buffer, *receive_buffer;
    int32_t n_requests;          /* persistent MPI requests on the buffers */
    void *requests, *statuses;
    int (*start_all)(int, void *);
    int (*wait_all)(int, void *, void *);
    int64_t exchanges;           /* so far */
    int64_t n_walls;             /* facets of owned cells without a neighbour */
    const int32_t *wall_cells;   /* [wall] */
    const int32_t *wall_facets;  /* [wall] */
    const double *wall_normals;  /* [wall][DIM] as in `normals` */
    const uint8_t *at_walls;     /* [batch] whether one of its cells has a wall */
    double *forcing;             /* [batch][group][node][lane] work space, used where at_walls says so */
    double *gain;                /* [wall][NQ] POWER > 1: what a unit of rho^m gives to its power */
    int64_t source_width, source_groups, source_size; /* how the loops of the density hold it: WIDTH, GROUPS, size */
    int64_t n_columns, n_sources; /* powers, and densities they are of */
    const uint8_t *summed;       /* [column][source] whether a power is of a sum that has this density in it */
} scheme_t;

/* -- eight cells at once ----------------------------------------------------------------------------------------- */

static inline vec all(double a)
{
    return a - (vec){0.0};
}

static inline vec choose(mask m, vec a, vec b)
{
    return (vec)((m & (mask)a) | (~m & (mask)b));
}

static inline vec least(vec a, vec b)
{
    vec r;
    for (int w = 0; w < LANES; ++w) r[w] = a[w] < b[w] ? a[w] : b[w]; /* a NaN in a gives b */
    return r;
}

static inline int any(mask m)
{
    int64_t found = 0;
    for (int w = 0; w < LANES; ++w) found |= m[w];
    return found != 0;
}

static inline vec gather(const double *u, const int32_t *at)
{
#if WIDTH == LANES
    return *(const wide *)(u + *at);
#elif WIDTH == 4 && PICK_PARTS
    return PICK(*(const part *)(u + at[0]), *(const part *)(u + at[1]), 0, 1, 2, 3, 4, 5, 6, 7);
#elif WIDTH == 2 && PICK_PARTS
    typedef double four __attribute__((vector_size(32)));
    const four a = PICK(*(const part *)(u + at[0]), *(const part *)(u + at[1]), 0, 1, 2, 3);
    const four b = PICK(*(const part *)(u + at[2]), *(const part *)(u + at[3]), 0, 1, 2, 3);
    return PICK(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
#else
    vec r;
    for (int w = 0; w < LANES; ++w) r[w] = u[at[w / WIDTH] + w % WIDTH];
    return r;
#endif
}

/* What the labels of a cell share, for all of its lanes. */
static inline vec spread(const double *of_cell)
{
#if WIDTH == 1
    return *(const wide *)of_cell;
#elif WIDTH == LANES
    return all(*of_cell);
#else
    const vec v = *(const wide *)of_cell;
#if WIDTH == 2
    return PICK(v, v, 0, 0, 1, 1, 2, 2, 3, 3);
#else
    return PICK(v, v, 0, 0, 0, 0, 1, 1, 1, 1);
#endif
#endif
}

/* Sums over the lanes of eight vectors, by pairs, fours and eights. */
static inline vec sums_over_lanes(const vec *v)
{
    vec pairs[4], fours[2];
    for (int i = 0; i < 4; ++i)
        pairs[i] = PICK(v[2 * i], v[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
                   PICK(v[2 * i], v[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    for (int i = 0; i < 2; ++i)
        fours[i] = PICK(pairs[2 * i], pairs[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
                   PICK(pairs[2 * i], pairs[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    return PICK(fours[0], fours[1], 0, 1, 2, 3, 8, 9, 10, 11) + PICK(fours[0], fours[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

/* sums[n][SUMS] += terms */
static inline void add_terms(double *sums, const vec *terms, int n)
{
#if WIDTH == LANES
#pragma GCC unroll 8
    for (int i = 0; i < n; i += 8) {
        vec some[8];
        for (int j = 0; j < 8; ++j) some[j] = i + j < n ? terms[i + j] : all(0.0);
        const vec total = sums_over_lanes(some);
        for (int j = 0; j < 8 && i + j < n; ++j) sums[i + j] += total[j];
    }
#else
#pragma GCC unroll 64
    for (int i = 0; i < n; ++i) ((wide *)sums)[i] += terms[i];
#endif
}

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

/* -- the operator ------------------------------------------------------------------------------------------------ */

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

/* -- the limiter ------------------------------------------------------------------------------------------------- */

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
    for (int i = 1; i <= DIM; ++i) lowest = least(lowest, u[i]);
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

/* Scale cells towards their means until the density is >= 0 at the limiter's points. What was done is recorded where
 * anything was: factors, and which point decided. Returns whether anything was. */
static inline int limit_batch(const scheme_t *t, wide *u, wide *factors, uint8_t *lowest_at)
{
#if DEGREE == 0
    return 0;
#else
    const vec mean = mean_of(u);
    const mask emptied = ~(mean >= t->empty);
    if (!any(emptied | ~(lower_bound(u) >= 0.0))) return 0;
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
    vec factor = choose(limited, mean / -lowest, all(1.0));
    factor = choose(emptied, choose(mean == mean, all(0.0), mean), factor); /* NaN is passed on */
    for (int i = 0; i < ND; ++i) u[i] = choose(limited, mean + factor * d[i], u[i]);
    *factors = factor;
    for (int w = 0; w < LANES; ++w) lowest_at[w] = !limited[w] ? UNLIMITED : emptied[w] ? EMPTIED : (uint8_t)at[w];
    return 1;
#endif
}

/* Reverse of the limiter, in place on g, for a batch where something was limited; w is the limited density.
 *
 * With mean m, lowest deviation l at point x and factor f = m / -l the limited deviations are w - m = f d, and
 * (w - m) / m is d / -l: the derivative is written with that ratio, which stays finite where m and l underflow. */
static inline void limit_batch_vjp(const wide *w, const wide *factors, const uint8_t *lowest_at, wide *g)
{
#if DEGREE > 0
    const vec mean = mean_of(w), average = mean_of(g), factor = *factors;
    mask limited, emptied;
    for (int n = 0; n < LANES; ++n) {
        limited[n] = lowest_at[n] == UNLIMITED ? 0 : -1;
        emptied[n] = lowest_at[n] == EMPTIED ? -1 : 0;
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
        for (int n = 0; n < LANES; ++n) point[n] = lowest_at[n] < NL ? REPRESENTER[lowest_at[n]][i] : 0.0;
        g[i] = choose(limited, average + s + factor * (g[i] - average + s * (point - 1.0)), g[i]);
    }
#endif
}

/* -- records: what the adjoint of one step needs ----------------------------------------------------------------- */

/* One block of memory: [stage] densities behind the limiter, [stage][batch][group][lane] factors and deciding points,
 * [stage][batch][group] whether anything was limited there. */
static inline double *state_of(const scheme_t *t, char *record, int stage)
{
    return (double *)record + stage * t->size;
}

static inline wide *factors_of(const scheme_t *t, char *record, int stage)
{
    return (wide *)((double *)record + STAGES * t->size) + stage * t->n_batches * GROUPS;
}

static inline uint8_t *points_of(const scheme_t *t, char *record, int stage)
{
    return (uint8_t *)factors_of(t, record, STAGES) + stage * t->n_batches * GROUPS * LANES;
}

static inline uint8_t *flags_of(const scheme_t *t, char *record, int stage)
{
    return points_of(t, record, STAGES) + stage * t->n_batches * GROUPS;
}

/* -- ghosts ------------------------------------------------------------------------------------------------------ */

/* Bring the ghost cells' nodes that this rank looks at up to date. Collective. */
void exchange(scheme_t *t, double *u)
{
    if (t->n_requests == 0) return;
    for (int64_t i = 0; i < t->n_send; ++i)
        for (int k = 0; k < GROUPS; ++k)
            ((part *)t->send_buffer)[i * GROUPS + k] = *(const part *)(u + t->send[i] + k * ND * LANES);
    t->start_all(t->n_requests, t->requests);
    t->wait_all(t->n_requests, t->requests, t->statuses);
    for (int64_t i = 0; i < t->n_receive; ++i)
        for (int k = 0; k < GROUPS; ++k)
            *(part *)(u + t->receive[i] + k * ND * LANES) = ((const part *)t->receive_buffer)[i * GROUPS + k];
    ++t->exchanges;
}

/* -- walls ------------------------------------------------------------------------------------------------------- */

/* Where a column of a cell begins, in densities of GROUPS times WIDTH columns. */
static inline int64_t place_of(int64_t cell, int64_t column, int64_t width, int64_t groups)
{
    const int64_t cells = LANES / width, batch = cell / cells;
    return (batch * groups + column / width) * ND * LANES + cell % cells * width + column % width;
}

static inline void clear_forcing(const scheme_t *t)
{
    for (int64_t b = 0; b < t->n_batches; ++b)
        if (t->at_walls[b])
            for (int64_t i = 0; i < GROUPS * ND * LANES; ++i) t->forcing[b * GROUPS * ND * LANES + i] = 0.0;
}

#if POWER > 1
/* Add M^-1 of integrals against the functions of a facet's nodes to a column of its cell. */
static inline void lift(int facet, const double *by_node, double *target)
{
    for (int i = 0; i < ND; ++i) {
        double s = 0.0;
        for (int n = 0; n < FN; ++n) s += MASS_INVERSE[i][FACET_NODES[facet][n]] * by_node[n];
        target[i * LANES] += s;
    }
}

/* The sum of densities that a column is the power of: its mean in a wall's cell. */
static inline double summed_mean(const scheme_t *t, int64_t wall, int64_t column, const double *density)
{
    double mean = 0.0;
    for (int64_t j = 0; j < t->n_sources; ++j) {
        if (!t->summed[column * t->n_sources + j]) continue;
        const double *u = density + place_of(t->wall_cells[wall], j, t->source_width, t->source_groups);
        for (int i = 0; i < ND; ++i) mean += MEAN[i] * u[i * LANES];
    }
    return mean;
}

/* What walls add to the powers' rate of change, M^-1 trace^T (gain rho^m), to `forcing`. */
static void force(const scheme_t *t, const double *density)
{
    clear_forcing(t);
    for (int64_t wall = 0; wall < t->n_walls; ++wall)
        for (int64_t k = 0; k < t->n_columns; ++k) {
            const double rho = summed_mean(t, wall, k, density);
            double by_node[FN], power = 1.0;
            for (int p = 0; p < POWER; ++p) power *= rho;
            for (int n = 0; n < FN; ++n) by_node[n] = 0.0;
            for (int q = 0; q < NQ; ++q)
                for (int n = 0; n < FN; ++n) by_node[n] += TRACE[q][n] * t->gain[wall * NQ + q] * power;
            lift(t->wall_facets[wall], by_node, t->forcing + place_of(t->wall_cells[wall], k, WIDTH, GROUPS));
        }
}

/* The adjoint of `scale` times `force` for the powers' cotangent y: the derivative by the gain is added, that by the
 * densities' means, [wall][source], is set. */
static void force_vjp(const scheme_t *t, const double *y, const double *density, double scale, double *handed,
                      double *dgain)
{
    for (int64_t i = 0; i < t->n_walls * t->n_sources; ++i) handed[i] = 0.0;
    for (int64_t wall = 0; wall < t->n_walls; ++wall)
        for (int64_t k = 0; k < t->n_columns; ++k) {
            const double *own = y + place_of(t->wall_cells[wall], k, WIDTH, GROUPS);
            const double rho = summed_mean(t, wall, k, density);
            double power = scale, by_mean = 0.0;
            for (int p = 1; p < POWER; ++p) power *= rho;
            for (int q = 0; q < NQ; ++q) {
                double value = 0.0;
                for (int n = 0; n < FN; ++n) value += TRACE[q][n] * own[FACET_NODES[t->wall_facets[wall]][n] * LANES];
                dgain[wall * NQ + q] += power * rho * value;
                by_mean += POWER * power * t->gain[wall * NQ + q] * value;
            }
            for (int64_t j = 0; j < t->n_sources; ++j)
                if (t->summed[k * t->n_sources + j]) handed[wall * t->n_sources + j] += by_mean;
        }
}
#endif

/* The representative in L2 of what powers handed on, to `forcing`: that of a mean is constant. */
static void receive(const scheme_t *t, const double *handed)
{
    const double factorial = DIM == 3 ? 6.0 : DIM == 2 ? 2.0 : 1.0; /* 1 / measure of the reference cell */
    clear_forcing(t);
    for (int64_t wall = 0; wall < t->n_walls; ++wall)
        for (int64_t j = 0; j < t->n_columns; ++j) {
            double *target = t->forcing + place_of(t->wall_cells[wall], j, WIDTH, GROUPS);
            for (int i = 0; i < ND; ++i) target[i * LANES] += factorial * handed[wall * t->n_columns + j];
        }
}

/* The density's state that stage i of step s starts from, in a record of the density's own loops. */
static inline const double *source_state(const scheme_t *t, const double *start, char *const *records, int64_t s, int i)
{
    if (i == 0 && s == 0) return start;
    return (const double *)records[i ? s : s - 1] + (i ? i - 1 : STAGES - 1) * t->source_size;
}

/* -- steps ------------------------------------------------------------------------------------------------------- */

/* Stage i: next = limit(alpha u0 + (1 - alpha)(u + dt B u)); its share of the integral over time of all labels' u is
 * added to occupation, [batch][node][SUMS], unless that is null, and `left` times that to moment, likewise. */
static void stage(const scheme_t *t, int i, const double *u, const double *u0, double dt, int limited, char *record,
                  double *occupation, double *moment, double left, const double *density)
{
#if POWER > 1
    force(t, density);
#else
    (void)density;
#endif
    const double alpha = ALPHA[i], beta = 1.0 - alpha;
    const double now = CURRENT_WEIGHT[i] * dt, first = START_WEIGHT[i] * dt;
    double *next = state_of(t, record, i);
    wide *factors = factors_of(t, record, i);
    uint8_t *points = points_of(t, record, i), *flags = flags_of(t, record, i);
    for (int64_t b = 0; b < t->n_batches; ++b)
        for (int k = 0; k < GROUPS; ++k) {
            const int64_t bk = b * GROUPS + k;
            const wide *own = (const wide *)u + bk * ND, *start = (const wide *)u0 + bk * ND;
            vec here[ND], change[ND];
            for (int n = 0; n < ND; ++n) here[n] = own[n];
            product(t, b, here, u + k * ND * LANES, change);
#if POWER > 1
            if (t->at_walls[b])
                for (int n = 0; n < ND; ++n) change[n] += ((const wide *)t->forcing)[bk * ND + n];
#endif
            if (occupation && (now != 0.0 || first != 0.0)) {
                vec share[ND];
                for (int n = 0; n < ND; ++n) share[n] = now * here[n] + first * start[n];
                add_terms(occupation + b * ND * SUMS, share, ND);
                if (moment) {
                    for (int n = 0; n < ND; ++n) share[n] *= left;
                    add_terms(moment + b * ND * SUMS, share, ND);
                }
            }
            for (int n = 0; n < ND; ++n) change[n] = beta * (here[n] + dt * change[n]);
            if (alpha != 0.0)
                for (int n = 0; n < ND; ++n) change[n] += alpha * start[n];
            if (limited) flags[bk] = (uint8_t)limit_batch(t, change, factors + bk, points + bk * LANES);
            wide *target = (wide *)next + bk * ND;
            for (int n = 0; n < ND; ++n) target[n] = change[n];
        }
}

/* The time that is left in the middle of a step, given what is left at the start of its layer: by the number of steps
 * since then, so that its bits do not depend on how the steps are split over calls. */
static inline double time_left(double at_start, int64_t steps, double dt)
{
    return at_start - ((double)steps + 0.5) * dt;
}

/* `count` steps from `start`; step s leaves its stages in records[s % n_records], at least two of them. `done` steps of
 * the layer went before, at whose start `left` was left of the time. Powers need the start and all records of the steps
 * of their density. Collective. */
void step_forward(scheme_t *t, const double *start, char *const *records, int64_t n_records, int64_t count, double dt,
           int limited, double *occupation, double *moment, double left, int64_t done, const double *source_start,
           char *const *source_records)
{
    const double *first = start;
    for (int64_t s = 0; s < count; ++s) {
        char *record = records[s % n_records];
        const double *current = first;
        for (int i = 0; i < STAGES; ++i) {
            double *next = state_of(t, record, i);
            stage(t, i, current, first, dt, limited, record, occupation, moment, time_left(left, done + s, dt),
                  POWER > 1 ? source_state(t, source_start, source_records, s, i) : 0);
            exchange(t, next);
            current = next;
        }
        first = current;
    }
}

/* Reverse of stage i behind its limiter. g[i + 1] is the cotangent of alpha u0 + (1 - alpha)(u + dt B u), ghosts up to
 * date; that of u goes to target. Stage 0 adds what the later stages owe to u0, so there target may be g[STAGES].
 * running: [batch][node][cell], the same for all labels; tilt, likewise or null, counts `left` times. forced: whether
 * `forcing` belongs to the cotangent of u. `before`, the record and stage that u came from, has its limiter reversed in
 * the target at once; null if that is left to the caller. */
static void stage_vjp(const scheme_t *t, int i, double *const *g, const double *u, double dt, const double *running,
                      const double *tilt, double left, int forced, double *target_, char *before, int before_stage,
                      double *dout, double *dvolume)
{
    const double beta = 1.0 - ALPHA[i], weight = WEIGHT[i] * dt, *z = g[i + 1];
    const wide *factors = before ? factors_of(t, before, before_stage) : 0;
    const uint8_t *points = before ? points_of(t, before, before_stage) : 0;
    const uint8_t *flags = before ? flags_of(t, before, before_stage) : 0;
    for (int64_t b = 0; b < t->n_batches; ++b)
        for (int k = 0; k < GROUPS; ++k) {
            const int64_t bk = b * GROUPS + k;
            const wide *own = (const wide *)z + bk * ND, *state = (const wide *)u + bk * ND;
            wide *target = (wide *)target_ + bk * ND;
            vec here[ND], density[ND], change[ND];
            for (int n = 0; n < ND; ++n) here[n] = own[n], density[n] = state[n];
            product_vjp(t, b, here, z + k * ND * LANES, change, density, beta * dt, dout, dvolume);
            for (int n = 0; n < ND; ++n) change[n] = beta * (here[n] + dt * change[n]);
            if (running)
                for (int n = 0; n < ND; ++n) change[n] += weight * spread(running + (b * ND + n) * CELLS);
            if (tilt)
                for (int n = 0; n < ND; ++n) change[n] += weight * left * spread(tilt + (b * ND + n) * CELLS);
            if (forced && t->at_walls[b])
                for (int n = 0; n < ND; ++n) change[n] += ((const wide *)t->forcing)[bk * ND + n];
            if (i == 0)
                for (int j = 1; j < STAGES; ++j) {
                    const wide *later = (const wide *)g[j + 1] + bk * ND;
                    for (int n = 0; n < ND; ++n) change[n] += ALPHA[j] * later[n];
                }
            if (flags && flags[bk]) limit_batch_vjp(density, factors + bk, points + bk * LANES, change);
            for (int n = 0; n < ND; ++n) target[n] = change[n];
        }
}

/* Reverse of the limiter behind a stage of a record, in place on g. */
void limit_vjp(const scheme_t *t, char *record, int stage, double *g)
{
    const uint8_t *flags = flags_of(t, record, stage), *points = points_of(t, record, stage);
    const wide *states = (const wide *)state_of(t, record, stage), *factors = factors_of(t, record, stage);
    for (int64_t bk = 0; bk < t->n_batches * GROUPS; ++bk)
        if (flags[bk]) limit_batch_vjp(states + bk * ND, factors + bk, points + bk * LANES, (wide *)g + bk * ND);
}

/* Reverse of `count` steps from `start` that left records[0 .. count - 1]. Collective.
 *
 * cotangents: STAGES + 1 densities; the last holds the cotangent of the result and then that of `start`.
 * running: for every step and stage the derivative of the running cost per time by the density, the same for all
 * labels; the first n_running of them are given, and then it goes on as from the first. tilt: likewise, for a cost per
 * time that is that many times the time left; null if there is none. `left` and `done` as for step_forward.
 * To dout, dvolume and dgain the derivatives by out, volume and gain are added.
 * handed: [step][stage][wall][source], what powers owe to their density at every stage: written by the adjoint of
 * the powers, who need source_start and source_records as before; read by that of the density, or null. */
void step_adjoint(scheme_t *t, const double *start, char *const *records, int64_t count, double dt, int limited,
            const double *const *running, int64_t n_running, const double *tilt, double left, int64_t done,
            double *const *cotangents, double *dout, double *dvolume, double *dgain, const double *source_start,
            char *const *source_records, double *handed)
{
    const int64_t n_handed = t->n_walls * (POWER > 1 ? t->n_sources : t->n_columns);
    double *g[STAGES + 1];
    for (int i = 0; i <= STAGES; ++i) g[i] = cotangents[i];
    if (limited && count > 0) limit_vjp(t, records[count - 1], STAGES - 1, g[STAGES]);
    for (int64_t s = count - 1; s >= 0; --s) {
        for (int i = STAGES - 1; i >= 0; --i) {
            const double *u = i ? state_of(t, records[s], i - 1) : s ? state_of(t, records[s - 1], STAGES - 1) : start;
            char *before = i ? records[s] : s ? records[s - 1] : 0;
            exchange(t, g[i + 1]);
#if POWER > 1
            force_vjp(t, g[i + 1], source_state(t, source_start, source_records, s, i), (1.0 - ALPHA[i]) * dt,
                      handed + (s * STAGES + i) * n_handed, dgain);
#else
            if (handed) receive(t, handed + (s * STAGES + i) * n_handed);
#endif
            /* a single stage looks across at what it would overwrite */
            stage_vjp(t, i, g, u, dt, running[(s * STAGES + i) % n_running], tilt, time_left(left, done + s, dt),
                      POWER == 1 && handed,
                      i == 0 && STAGES > 1 ? g[STAGES] : g[i], limited ? before : 0, i ? i - 1 : STAGES - 1, dout,
                      dvolume);
        }
        if (STAGES == 1) {
            double *result = g[0];
            g[0] = g[1], g[1] = result;
        }
    }
    if (g[STAGES] != cotangents[STAGES])
        for (int64_t i = 0; i < t->size; ++i) cotangents[STAGES][i] = g[STAGES][i];
}

/* result = B u; ghosts of u up to date. */
void apply(const scheme_t *t, const double *u, double *result)
{
    for (int64_t b = 0; b < t->n_batches; ++b)
        for (int k = 0; k < GROUPS; ++k)
            product(t, b, (const wide *)u + (b * GROUPS + k) * ND, u + k * ND * LANES,
                    (wide *)result + (b * GROUPS + k) * ND);
}

/* result = B* y, and the derivative of <y, B u> by out and volume added to dout and dvolume; ghosts of y up to date. */
void apply_vjp(const scheme_t *t, const double *y, const double *u, double *result, double *dout, double *dvolume)
{
    for (int64_t b = 0; b < t->n_batches; ++b)
        for (int k = 0; k < GROUPS; ++k) {
            const int64_t at = (b * GROUPS + k) * ND;
            product_vjp(t, b, (const wide *)y + at, y + k * ND * LANES, (wide *)result + at, (const wide *)u + at, 1.0,
                        dout, dvolume);
        }
}

/* -- the velocity ------------------------------------------------------------------------------------------------ */

/* Here eight cells side by side are a block, whatever the batches are. Facets without a neighbour have normal zero, and
 * so has what fills up the last block. */

static inline vec root(vec a)
{
    vec r;
    for (int w = 0; w < LANES; ++w) r[w] = sqrt(a[w]);
    return r;
}

/* The velocity v [node][DIM] at the nodes of a block's cells, [NN][DIM]. */
static inline void at_nodes(const scheme_t *t, int64_t block, const double *v, vec *nodal)
{
    for (int a = 0; a < NN; ++a) {
        const int32_t *node = t->cell_nodes + (block * NN + a) * LANES;
        for (int m = 0; m < DIM; ++m)
            for (int w = 0; w < LANES; ++w) nodal[a * DIM + m][w] = v[(int64_t)DIM * node[w] + m];
    }
}

/* Normal velocities at the flux points of a facet, and their smoothed absolute values, times area / |det J|. */
static inline void at_flux_points(const scheme_t *t, int64_t block, int f, const vec *nodal, vec *s, vec *magnitude)
{
    const wide *normal = (const wide *)t->normals + (block * NF + f) * DIM;
    const vec smooth = t->delta * ((const wide *)t->sizes)[block * NF + f];
    vec vn[FV];
    for (int a = 0; a < FV; ++a) {
        const vec *velocity = nodal + VELOCITY_FACET_NODES[f][a] * DIM;
        vn[a] = normal[0] * velocity[0];
        for (int m = 1; m < DIM; ++m) vn[a] += normal[m] * velocity[m];
    }
    for (int q = 0; q < NQ; ++q) {
        s[q] = VELOCITY_TRACE[q][0] * vn[0];
        for (int a = 1; a < FV; ++a) s[q] += VELOCITY_TRACE[q][a] * vn[a];
        magnitude[q] = root(s[q] * s[q] + smooth * smooth);
    }
}

/* Number i of n that every cell of a block has, to where the batches keep it. */
static inline void put(const scheme_t *t, double *target, int64_t block, int i, int n, vec value)
{
#if WIDTH == 1
    ((wide *)target)[block * n + i] = value;
#else
    for (int64_t w = 0, c = block * LANES; w < LANES && c < t->n_owned; ++w, ++c)
        target[((c / CELLS) * n + i) * CELLS + c % CELLS] = value[w];
#endif
}

/* The sums over labels of number i of n, for the cells of a block. */
static inline vec take(const scheme_t *t, const double *sums, int64_t block, int i, int n)
{
#if WIDTH == 1
    return ((const wide *)sums)[block * n + i];
#else
    vec r = all(0.0);
    for (int64_t w = 0, c = block * LANES; w < LANES && c < t->n_owned; ++w, ++c) {
        const double *of_batch = sums + ((c / CELLS) * n + i) * SUMS;
        if (SUMS == 1) r[w] = *of_batch;
        else
            for (int k = 0; k < WIDTH; ++k) r[w] += of_batch[c % CELLS * WIDTH + k];
    }
    return r;
#endif
}

#if POWER > 1
/* div v of a block's cells at the points that determine it; vhat: [DIM][NN] the velocity in reference directions. */
static inline void divergence(const vec *vhat, vec *div)
{
    for (int p = 0; p < ND_DIV; ++p) {
        div[p] = all(0.0);
        for (int m = 0; m < DIM; ++m)
            for (int a = 0; a < NN; ++a) div[p] += DIVERGENCE[p][m][a] * vhat[m * NN + a];
    }
}
#endif

#if POWER > 1
/* Normal velocity at the flux points of a wall, and its smoothed absolute value; nodes: of the velocity, of the facet. */
static inline void at_wall_points(const scheme_t *t, int64_t wall, const double *v, int32_t *nodes, double *s,
                                  double *magnitude)
{
    const int64_t cell = t->wall_cells[wall];
    const double *normal = t->wall_normals + wall * DIM;
    double vn[FV], size = 0.0;
    for (int m = 0; m < DIM; ++m) size += normal[m] * normal[m];
    for (int a = 0; a < FV; ++a) {
        const int node = VELOCITY_FACET_NODES[t->wall_facets[wall]][a];
        nodes[a] = t->cell_nodes[(cell / LANES * NN + node) * LANES + cell % LANES];
        vn[a] = 0.0;
        for (int m = 0; m < DIM; ++m) vn[a] += normal[m] * v[(int64_t)DIM * nodes[a] + m];
    }
    for (int q = 0; q < NQ; ++q) {
        s[q] = 0.0;
        for (int a = 0; a < FV; ++a) s[q] += VELOCITY_TRACE[q][a] * vn[a];
        magnitude[q] = sqrt(s[q] * s[q] + t->delta * t->delta * size);
    }
}

static void assemble_walls(const scheme_t *t, const double *v)
{
    for (int64_t wall = 0; wall < t->n_walls; ++wall) {
        double s[NQ], magnitude[NQ];
        int32_t nodes[FV];
        at_wall_points(t, wall, v, nodes, s, magnitude);
        for (int q = 0; q < NQ; ++q) t->gain[wall * NQ + q] = (POWER - 1.0) * 0.5 * WEIGHTS[q] * (magnitude[q] + s[q]);
    }
}

static void contract_walls(const scheme_t *t, const double *v, const double *dgain, double *gv)
{
    for (int64_t wall = 0; wall < t->n_walls; ++wall) {
        double s[NQ], magnitude[NQ];
        int32_t nodes[FV];
        at_wall_points(t, wall, v, nodes, s, magnitude);
        for (int q = 0; q < NQ; ++q) {
            const double sign = magnitude[q] > 0.0 ? s[q] / magnitude[q] : 0.0;
            const double ds = (POWER - 1.0) * 0.5 * WEIGHTS[q] * (1.0 + sign) * dgain[wall * NQ + q] *
                              t->det[t->wall_cells[wall]];
            for (int a = 0; a < FV; ++a)
                for (int m = 0; m < DIM; ++m)
                    gv[(int64_t)DIM * nodes[a] + m] += VELOCITY_TRACE[q][a] * ds * t->wall_normals[wall * DIM + m];
        }
    }
}
#endif

/* Set in, out and volume for the velocity v [node][DIM]; returns the largest rate r of an owned cell: the scheme keeps
 * cell means positive and is stable for time steps <= 1 / r. Not a number if v is not. */
double assemble(const scheme_t *t, const double *v)
{
    const double factorial = DIM == 3 ? 6.0 : DIM == 2 ? 2.0 : 1.0; /* |det J| / cell measure */
    vec largest = all(0.0);
    for (int64_t block = 0; block * LANES < t->n_owned; ++block) {
        const wide *inverse = (const wide *)t->inverse + block * DIM * DIM;
        vec nodal[NN * DIM], vhats[DIM * NN], outflow = all(0.0), peak = all(0.0);
        at_nodes(t, block, v, nodal);
        for (int m = 0; m < DIM; ++m) {
            vec *vhat = vhats + m * NN;
            for (int a = 0; a < NN; ++a) {
                vhat[a] = inverse[m * DIM] * nodal[a * DIM];
                for (int i = 1; i < DIM; ++i) vhat[a] += inverse[m * DIM + i] * nodal[a * DIM + i];
            }
            for (int j = 0; j < NV; ++j) {
                vec s = VOLUME[j][0] * vhat[0];
                for (int a = 1; a < NN; ++a) s += VOLUME[j][a] * vhat[a];
                put(t, t->volume, block, m * NV + j, NUMBERS, s);
            }
        }
#if POWER > 1
        vec div[ND_DIV], loss = all(0.0);
        divergence(vhats, div);
        for (int p = 0; p < ND_DIV; ++p) loss = choose(div[p] > loss, div[p], loss);
        for (int j = 0; j < NS; ++j) {
            vec s = SOURCE[j][0] * div[0];
            for (int p = 1; p < ND_DIV; ++p) s += SOURCE[j][p] * div[p];
            put(t, t->volume, block, DIM * NV + j, NUMBERS, (1.0 - POWER) * s);
        }
#endif
        for (int f = 0; f < NF; ++f) {
            vec s[NQ], magnitude[NQ];
            at_flux_points(t, block, f, nodal, s, magnitude);
            for (int q = 0; q < NQ; ++q) {
                const vec leaving = 0.5 * (magnitude[q] + s[q]);
                put(t, t->out, block, f * NQ + q, NF * NQ, WEIGHTS[q] * leaving);
                put(t, t->in, block, f * NQ + q, NF * NQ, WEIGHTS[q] * 0.5 * (magnitude[q] - s[q]));
                outflow += WEIGHTS[q] * leaving;
                peak = choose(leaving > peak, leaving, peak);
            }
        }
        const vec positive = DEGREE == 0 ? outflow : NF * (DEGREE == 1 ? 1.0 : (DIM + 2.0) / DIM) * peak;
#if POWER > 1
        const vec stable = t->stability * outflow;
        const vec rate = factorial * choose(positive > stable, positive, stable) + (POWER - 1.0) * loss;
#else
        const vec stable = t->stability * outflow, rate = factorial * choose(positive > stable, positive, stable);
#endif
        largest = choose((rate <= largest) | (largest != largest), largest, rate); /* a NaN is kept */
    }
#if POWER > 1
    assemble_walls(t, v);
#endif
    double result = 0.0;
    for (int w = 0; w < LANES; ++w)
        if (!(largest[w] <= result) && result == result) result = largest[w];
    return result;
}

/* The derivative by v [node][DIM] that belongs to derivatives by out, volume and gain, added to gv. */
void contract(const scheme_t *t, const double *v, const double *dout, const double *dvolume, const double *dgain,
              double *gv)
{
#if POWER > 1
    contract_walls(t, v, dgain, gv);
#else
    (void)dgain;
#endif
    for (int64_t block = 0; block * LANES < t->n_owned; ++block) {
        const wide *inverse = (const wide *)t->inverse + block * DIM * DIM;
        const vec det = ((const wide *)t->det)[block];
        vec nodal[NN * DIM], local[NN * DIM];
        at_nodes(t, block, v, nodal);
        for (int i = 0; i < NN * DIM; ++i) local[i] = all(0.0);
        for (int m = 0; m < DIM; ++m) {
            vec by_volume[NV];
            for (int j = 0; j < NV; ++j) by_volume[j] = take(t, dvolume, block, m * NV + j, NUMBERS);
            for (int a = 0; a < NN; ++a) {
                vec s = VOLUME[0][a] * by_volume[0];
                for (int j = 1; j < NV; ++j) s += VOLUME[j][a] * by_volume[j];
                for (int i = 0; i < DIM; ++i) local[a * DIM + i] += s * inverse[m * DIM + i];
            }
        }
#if POWER > 1
        /* what goes past the mass matrix was taken per measure of the reference cell */
        const double measure = DEGREE == 2 ? 1.0 : DIM == 3 ? 1.0 / 6.0 : DIM == 2 ? 0.5 : 1.0;
        vec by_div[ND_DIV];
        for (int p = 0; p < ND_DIV; ++p) by_div[p] = all(0.0);
        for (int j = 0; j < NS; ++j) {
            const vec by_source = (1.0 - POWER) * measure * take(t, dvolume, block, DIM * NV + j, NUMBERS);
            for (int p = 0; p < ND_DIV; ++p) by_div[p] += SOURCE[j][p] * by_source;
        }
        for (int m = 0; m < DIM; ++m)
            for (int a = 0; a < NN; ++a) {
                vec s = DIVERGENCE[0][m][a] * by_div[0];
                for (int p = 1; p < ND_DIV; ++p) s += DIVERGENCE[p][m][a] * by_div[p];
                for (int i = 0; i < DIM; ++i) local[a * DIM + i] += s * inverse[m * DIM + i];
            }
#endif
        for (int f = 0; f < NF; ++f) {
            const wide *normal = (const wide *)t->normals + (block * NF + f) * DIM;
            vec s[NQ], magnitude[NQ], by_node[FV];
            at_flux_points(t, block, f, nodal, s, magnitude);
            for (int a = 0; a < FV; ++a) by_node[a] = all(0.0);
            for (int q = 0; q < NQ; ++q) {
                const vec sign = choose(magnitude[q] > 0.0, s[q] / magnitude[q], all(0.0));
                const vec ds = 0.5 * WEIGHTS[q] * (1.0 + sign) * take(t, dout, block, f * NQ + q, NF * NQ);
                for (int a = 0; a < FV; ++a) by_node[a] += VELOCITY_TRACE[q][a] * ds;
            }
            for (int a = 0; a < FV; ++a)
                for (int i = 0; i < DIM; ++i) local[VELOCITY_FACET_NODES[f][a] * DIM + i] += by_node[a] * normal[i];
        }
        for (int a = 0; a < NN; ++a) {
            const int32_t *node = t->cell_nodes + (block * NN + a) * LANES;
            for (int i = 0; i < DIM; ++i) {
                const vec share = det * local[a * DIM + i];
                for (int64_t w = 0; w < LANES && block * LANES + w < t->n_owned; ++w)
                    gv[(int64_t)DIM * node[w] + i] += share[w];
            }
        }
    }
}
