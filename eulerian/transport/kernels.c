/* Compiled loops of the transport scheme, specialised at compile time.
 *
 * DIM      space dimension                     DEGREE  polynomial degree of the density
 * ND       density modes per cell              NN      velocity nodes per cell
 * NQ       flux points per facet               NS      (facet, vertex order) pairs of the reference cell
 * NL       points of the limiter               K       columns (labels) moved together
 *
 * Densities are [cell][mode][label]. The operator B = M^-1 A is stored by rows of blocks, [cell][1 + facet][ND][ND]:
 * slot 0 couples a cell with itself, slot 1 + f with its neighbour across facet f. Rows of ghost cells are assembled
 * too: their blocks that face an owned cell are complete, which is all that the transposed product needs.
 */
#include <math.h>
#include <stdint.h>

#define NF (DIM + 1)
#define BLOCK (ND * ND)
#define ROW ((NF + 1) * BLOCK)
#define UNLIMITED 255
#define EMPTIED 254

typedef struct {
    int64_t n_owned, n_cells;
    const int32_t *cell_nodes;   /* [cell][NN] */
    const int32_t *neighbours;   /* [cell][NF], -1: none */
    const int32_t *nb_facets;    /* [cell][NF] */
    const int32_t *orientation;  /* [cell][NF] */
    const double *inverse;       /* [cell][DIM][DIM] d(reference)/d(physical) */
    const double *normals;       /* [cell][NF][DIM] area normal / |det J| */
    const double *volume;        /* [NN][DIM][ND][ND] reference integrals of N_a phi_j d_m phi_i */
    const double *phi;           /* [NS][NQ][ND] density basis at flux points */
    const double *lagrange;      /* [NS][NQ][NN] velocity basis at flux points */
    const double *weights;       /* [NQ], sum 1 */
    const double *limiter;       /* [NL][ND] density basis at the limiter's points */
    const double *bound;         /* [ND] largest |phi_i| at the limiter's points */
    double phi0;                 /* the constant basis function */
    double delta;                /* smoothing of |v.n| */
    double empty;                /* cell means below this count as zero */
    double stability;            /* linear stability limit of the scheme: time step x outflow rate <= 1 / stability */
} scheme_t;

static inline double dot(const double *a, const double *b)
{
    double s = 0.0;
    for (int i = 0; i < DIM; ++i) s += a[i] * b[i];
    return s;
}

/* Normal velocity at a flux point and its smoothed absolute value, both times area / |det J|. */
static inline double normal_velocity(const double *lagrange, const double *vn, double smooth, double *magnitude)
{
    double s = 0.0;
    for (int a = 0; a < NN; ++a) s += lagrange[a] * vn[a];
    *magnitude = sqrt(s * s + smooth * smooth);
    return s;
}

static inline double nodal_normals(const scheme_t *t, int64_t c, int f, const double *v, double *vn)
{
    const double *n = t->normals + (c * NF + f) * DIM;
    for (int a = 0; a < NN; ++a) vn[a] = dot(v + (int64_t)DIM * t->cell_nodes[c * NN + a], n);
    return t->delta * sqrt(dot(n, n));
}

/* Velocity in reference coordinates, [NN][DIM]. */
static inline void reference_velocity(const scheme_t *t, int64_t c, const double *v, double *vhat)
{
    const double *inverse = t->inverse + c * DIM * DIM;
    for (int a = 0; a < NN; ++a)
        for (int m = 0; m < DIM; ++m)
            vhat[a * DIM + m] = dot(inverse + m * DIM, v + (int64_t)DIM * t->cell_nodes[c * NN + a]);
}

/* Blocks of B for the velocity v [node][DIM]; returns the largest rate r of an owned cell: the scheme keeps cell means
 * positive and is stable for time steps <= 1 / r. */
double assemble(const scheme_t *t, const double *v, double *blocks)
{
    const double factorial = DIM == 3 ? 6.0 : DIM == 2 ? 2.0 : 1.0; /* |det J| / cell measure */
    double largest = 0.0;
    for (int64_t c = 0; c < t->n_cells; ++c) {
        double vhat[NN * DIM], diagonal[BLOCK] = {0.0}, outflow = 0.0, peak = 0.0;
        double *row = blocks + c * ROW;
        reference_velocity(t, c, v, vhat);
        for (int am = 0; am < NN * DIM; ++am)
            for (int ij = 0; ij < BLOCK; ++ij) diagonal[ij] += vhat[am] * t->volume[am * BLOCK + ij];
        for (int f = 0; f < NF; ++f) {
            double vn[NN], off[BLOCK] = {0.0};
            double *target = row + (1 + f) * BLOCK;
            const int64_t nb = t->neighbours[c * NF + f];
            if (nb >= 0) {
                const int side = t->orientation[c * NF + f];
                const int other = t->orientation[nb * NF + t->nb_facets[c * NF + f]];
                const double smooth = nodal_normals(t, c, f, v, vn);
                for (int q = 0; q < NQ; ++q) {
                    const double *mine = t->phi + (side * NQ + q) * ND, *theirs = t->phi + (other * NQ + q) * ND;
                    double magnitude;
                    const double s = normal_velocity(t->lagrange + (side * NQ + q) * NN, vn, smooth, &magnitude);
                    const double out = 0.5 * (magnitude + s), w_out = t->weights[q] * out;
                    const double w_in = t->weights[q] * 0.5 * (magnitude - s);
                    for (int i = 0; i < ND; ++i)
                        for (int j = 0; j < ND; ++j) {
                            diagonal[i * ND + j] -= w_out * mine[i] * mine[j];
                            off[i * ND + j] += w_in * mine[i] * theirs[j];
                        }
                    outflow += w_out;
                    if (out > peak) peak = out;
                }
            }
            for (int ij = 0; ij < BLOCK; ++ij) target[ij] = off[ij];
        }
        for (int ij = 0; ij < BLOCK; ++ij) row[ij] = diagonal[ij];
        if (c < t->n_owned) {
            const double positive = DEGREE == 0 ? outflow : NF * (DEGREE == 1 ? 1.0 : (DIM + 2.0) / DIM) * peak;
            const double stable = t->stability * outflow, rate = positive > stable ? positive : stable;
            if (!(factorial * rate <= largest)) largest = factorial * rate; /* a NaN, which comparisons drop, is kept */
            if (largest != largest) return largest;
        }
    }
    return largest;
}

/* d/dv of <S, B(v)>, added to gv [node][DIM]; S [cell][1 + NF][ND][ND], owned cells only. */
void contract(const scheme_t *t, const double *v, const double *S, double *gv)
{
    for (int64_t c = 0; c < t->n_owned; ++c) {
        const double *row = S + c * ROW, *inverse = t->inverse + c * DIM * DIM;
        double local[NN * DIM] = {0.0};
        for (int a = 0; a < NN; ++a)
            for (int m = 0; m < DIM; ++m) {
                const double *table = t->volume + (a * DIM + m) * BLOCK;
                double s = 0.0;
                for (int ij = 0; ij < BLOCK; ++ij) s += table[ij] * row[ij];
                for (int i = 0; i < DIM; ++i) local[a * DIM + i] += inverse[m * DIM + i] * s;
            }
        for (int f = 0; f < NF; ++f) {
            const int64_t nb = t->neighbours[c * NF + f];
            if (nb < 0) continue;
            const int side = t->orientation[c * NF + f];
            const int other = t->orientation[nb * NF + t->nb_facets[c * NF + f]];
            const double *off = row + (1 + f) * BLOCK, *n = t->normals + (c * NF + f) * DIM;
            double vn[NN];
            const double smooth = nodal_normals(t, c, f, v, vn);
            for (int q = 0; q < NQ; ++q) {
                const double *mine = t->phi + (side * NQ + q) * ND, *theirs = t->phi + (other * NQ + q) * ND;
                const double *lagrange = t->lagrange + (side * NQ + q) * NN;
                double own = 0.0, across = 0.0, magnitude;
                for (int i = 0; i < ND; ++i)
                    for (int j = 0; j < ND; ++j) {
                        own += row[i * ND + j] * mine[i] * mine[j];
                        across += off[i * ND + j] * mine[i] * theirs[j];
                    }
                const double s = normal_velocity(lagrange, vn, smooth, &magnitude);
                const double sign = magnitude > 0.0 ? s / magnitude : 0.0;
                const double ds = -0.5 * t->weights[q] * ((1.0 + sign) * own + (1.0 - sign) * across);
                for (int a = 0; a < NN; ++a)
                    for (int i = 0; i < DIM; ++i) local[a * DIM + i] += ds * lagrange[a] * n[i];
            }
        }
        for (int a = 0; a < NN; ++a)
            for (int i = 0; i < DIM; ++i)
                gv[(int64_t)DIM * t->cell_nodes[c * NN + a] + i] += local[a * DIM + i];
    }
}

/* acc += block u, one cell */
static inline void multiply(const double *block, const double *u, double *acc)
{
    for (int i = 0; i < ND; ++i)
        for (int j = 0; j < ND; ++j)
            for (int k = 0; k < K; ++k) acc[i * K + k] += block[i * ND + j] * u[j * K + k];
}

/* acc += block^T u, one cell */
static inline void multiply_transpose(const double *block, const double *u, double *acc)
{
    for (int i = 0; i < ND; ++i)
        for (int j = 0; j < ND; ++j)
            for (int k = 0; k < K; ++k) acc[j * K + k] += block[i * ND + j] * u[i * K + k];
}

static inline void row_product(const scheme_t *t, const double *blocks, const double *u, int64_t c, double *acc)
{
    const double *row = blocks + c * ROW;
    multiply(row, u + c * ND * K, acc);
    for (int f = 0; f < NF; ++f) {
        const int64_t nb = t->neighbours[c * NF + f];
        if (nb >= 0) multiply(row + (1 + f) * BLOCK, u + nb * ND * K, acc);
    }
}

static inline void column_product(const scheme_t *t, const double *blocks, const double *z, int64_t c, double *acc)
{
    multiply_transpose(blocks + c * ROW, z + c * ND * K, acc);
    for (int f = 0; f < NF; ++f) {
        const int64_t nb = t->neighbours[c * NF + f];
        if (nb >= 0) {
            const double *block = blocks + nb * ROW + (1 + t->nb_facets[c * NF + f]) * BLOCK;
            multiply_transpose(block, z + nb * ND * K, acc);
        }
    }
}

/* out = B u on owned cells */
void apply(const scheme_t *t, const double *blocks, const double *u, double *out)
{
    for (int64_t c = 0; c < t->n_owned; ++c) {
        double acc[ND * K] = {0.0};
        row_product(t, blocks, u, c, acc);
        for (int i = 0; i < ND * K; ++i) out[c * ND * K + i] = acc[i];
    }
}

/* out = B^T z on owned cells */
void apply_transpose(const scheme_t *t, const double *blocks, const double *z, double *out)
{
    for (int64_t c = 0; c < t->n_owned; ++c) {
        double acc[ND * K] = {0.0};
        column_product(t, blocks, z, c, acc);
        for (int i = 0; i < ND * K; ++i) out[c * ND * K + i] = acc[i];
    }
}

/* Scale one cell's modes towards its mean until the density is >= 0 at the limiter's points; returns the factor. */
static inline double limit_cell(const scheme_t *t, double *u, int k, uint8_t *lowest_at)
{
    const double mean = t->phi0 * u[k];
    double range = 0.0, lowest = 0.0, factor = 1.0;
    *lowest_at = UNLIMITED;
    if (!(mean >= t->empty)) {
        factor = mean == mean ? 0.0 : mean; /* NaN is passed on */
        *lowest_at = EMPTIED;
    } else {
        for (int i = 1; i < ND; ++i) range += fabs(u[i * K + k]) * t->bound[i];
        if (range <= mean) return 1.0;
        int at = 0;
        for (int l = 0; l < NL; ++l) {
            double value = 0.0;
            for (int i = 1; i < ND; ++i) value += t->limiter[l * ND + i] * u[i * K + k];
            if (value < lowest) lowest = value, at = l;
        }
        if (mean + lowest >= 0.0) return 1.0;
        factor = mean / -lowest;
        *lowest_at = (uint8_t)at;
    }
    for (int i = 1; i < ND; ++i) u[i * K + k] *= factor;
    return factor;
}

/* One Runge-Kutta stage: out = limit(alpha u0 + beta (u + dt B u)) on owned cells, and total += weight u.
 * The limiter's factors and points are recorded for the adjoint; limited = 0 leaves the limiter out. */
void stage(const scheme_t *t, const double *blocks, const double *u, const double *u0, double alpha, double beta,
           double dt, int limited, double *out, double *factors, uint8_t *lowest_at, double weight, double *total)
{
    for (int64_t c = 0; c < t->n_owned; ++c) {
        const double *uc = u + c * ND * K, *u0c = u0 + c * ND * K;
        double *oc = out + c * ND * K, *sum = total + c * ND * K;
        double acc[ND * K] = {0.0};
        row_product(t, blocks, u, c, acc);
        for (int i = 0; i < ND * K; ++i) {
            oc[i] = alpha * u0c[i] + beta * (uc[i] + dt * acc[i]);
            sum[i] += weight * uc[i];
        }
        for (int k = 0; k < K; ++k) {
            if (DEGREE > 0 && limited) {
                factors[c * K + k] = limit_cell(t, oc, k, lowest_at + c * K + k);
            } else {
                factors[c * K + k] = 1.0;
                lowest_at[c * K + k] = UNLIMITED;
            }
        }
    }
}

/* Reverse of the limiter, in place on g [owned cell][mode][label].
 *
 * With mean m, lowest deviation l at point x and factor f = m / -l the limited modes are w_i = f u_i, and w_j / m is
 * u_j / -l: the derivative is written with that ratio, which stays finite where m and l underflow. */
void limit_vjp(const scheme_t *t, const double *w, const double *factors, const uint8_t *lowest_at, double *g)
{
    if (DEGREE == 0) return;
    for (int64_t c = 0; c < t->n_owned; ++c)
        for (int k = 0; k < K; ++k) {
            const uint8_t at = lowest_at[c * K + k];
            if (at == UNLIMITED) continue;
            double *gc = g + c * ND * K + k;
            const double factor = factors[c * K + k];
            if (at == EMPTIED) {
                for (int i = 1; i < ND; ++i) gc[i * K] *= factor;
                continue;
            }
            const double *wc = w + c * ND * K + k;
            const double mean = t->phi0 * wc[0];
            double s = 0.0;
            for (int i = 1; i < ND; ++i) s += gc[i * K] * (wc[i * K] / mean);
            gc[0] += t->phi0 * s;
            for (int i = 1; i < ND; ++i) gc[i * K] = factor * (gc[i * K] + t->limiter[at * ND + i] * s);
        }
}

/* Reverse of one stage behind the limiter: z is the cotangent of alpha u0 + beta (u + dt B u) (ghosts up to date).
 * Adds to the cotangents gu (of u) and g0 (of u0), weight * running to gu, and beta dt z u^T to S. */
void stage_vjp(const scheme_t *t, const double *blocks, const double *z, const double *u, double alpha, double beta,
               double dt, double weight, const double *running, double *gu, double *g0, double *S)
{
    for (int64_t c = 0; c < t->n_owned; ++c) {
        const double *zc = z + c * ND * K;
        double acc[ND * K] = {0.0}, scaled[ND * K];
        column_product(t, blocks, z, c, acc);
        for (int i = 0; i < ND * K; ++i) {
            scaled[i] = beta * dt * zc[i];
            gu[c * ND * K + i] += beta * (zc[i] + dt * acc[i]) + weight * running[c * ND * K + i];
            g0[c * ND * K + i] += alpha * zc[i];
        }
        double *row = S + c * ROW;
        for (int slot = 0; slot <= NF; ++slot) {
            const int64_t nb = slot ? t->neighbours[c * NF + slot - 1] : c;
            if (nb < 0) continue;
            const double *un = u + nb * ND * K;
            for (int i = 0; i < ND; ++i)
                for (int j = 0; j < ND; ++j) {
                    double s = 0.0;
                    for (int k = 0; k < K; ++k) s += scaled[i * K + k] * un[j * K + k];
                    row[slot * BLOCK + i * ND + j] += s;
                }
        }
    }
}
