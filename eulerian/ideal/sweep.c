/* The inner loops of the splitting method for the convex problem (see splitting.py), over the cells of a mesh.
 *
 * Compile-time constant: DIM (1, 2, 3). Time runs fastest in all arrays, so that the loops over it are vectorised.
 *
 *   phi   (n_nodes, L + 1)                  potential at vertices and instants
 *   falls (n_nodes, L)                      a, -(phi^{n+1} - phi^n)/tau blurred over vertices and slabs
 *   za    (n_nodes, L)                      state of a, weight tau M_i W_i
 *   zb    (n_cells, DIM + 1, 2 DIM, L)      state of the copy that vertex i of a cell has of the cell's gradients at both
 *                                           ends of a slab, weight tau omega^2 / 2 |K|/(DIM + 1) W_i
 *   mu    (n_nodes, L)                      multiplier of the constraint at a vertex and slab
 *   shrink (n_nodes, L)                     1 / (1 + kappa mu): q_a = z_a - mu and q_b = shrink z_b is the projection
 */
#include <math.h>
#include <stdint.h>

#define CORNERS (DIM + 1)
#define PARTS (2 * DIM)

typedef struct {
    int64_t n_cells, n_nodes, layers;
    const int32_t *nodes;     /* (n_cells, DIM + 1) */
    const double *gradients;  /* (n_cells, DIM + 1, DIM) of the barycentric coordinates */
    const double *volumes;    /* (n_cells,) */
    const double *masses;     /* (n_nodes,) this rank's part of M_i, the volume that belongs to a vertex */
    const double *weights;    /* (n_nodes,) W_i, the weight of a vertex in the metric */
    double tau, omega, lambda;
    double *work;             /* (DIM (L + 1) + L,) */
} slabs_t;

/* Gradient of phi on a cell, (DIM, L + 1). */
static void cell_gradient(const slabs_t *s, int64_t cell, const double *restrict phi, double *restrict gradient)
{
    const int64_t m = s->layers + 1;
    for (int64_t t = 0; t < DIM * m; ++t)
        gradient[t] = 0.0;
    for (int i = 0; i < CORNERS; ++i) {
        const double *restrict row = phi + m * s->nodes[cell * CORNERS + i];
        const double *g = s->gradients + (cell * CORNERS + i) * DIM;
        for (int d = 0; d < DIM; ++d)
            for (int64_t t = 0; t < m; ++t)
                gradient[d * m + t] += g[d] * row[t];
    }
}

/* zb += relaxation (gradient - q_b); squares (n_nodes, L) += |K|/(DIM + 1) |z_b|^2 / 2 of the cells around a vertex.
 * Returns the weighted |gradient - q_b|^2. */
double spread(const slabs_t *s, const double *phi, const double *shrink, double relaxation, double *zb, double *squares)
{
    const int64_t n = s->layers, m = n + 1;
    double *gradient = s->work, *missed = gradient + DIM * m, total = 0.0;
    for (int64_t cell = 0; cell < s->n_cells; ++cell) {
        const double share = 0.5 * s->volumes[cell] / CORNERS;
        double sum = 0.0;
        cell_gradient(s, cell, phi, gradient);
        for (int64_t t = 0; t < n; ++t)
            missed[t] = 0.0;
        for (int i = 0; i < CORNERS; ++i) {
            const int64_t node = s->nodes[cell * CORNERS + i];
            const double *restrict factor = shrink + n * node;
            double *restrict square = squares + n * node;
            const double weight = s->weights[node];
            for (int part = 0; part < PARTS; ++part) {
                const double *restrict b = gradient + (part % DIM) * m + part / DIM;
                double *restrict z = zb + ((cell * CORNERS + i) * PARTS + part) * n;
                for (int64_t t = 0; t < n; ++t) {
                    const double gap = b[t] - factor[t] * z[t];
                    const double next = z[t] + relaxation * gap;
                    missed[t] += weight * gap * gap;
                    square[t] += share * next * next;
                    z[t] = next;
                }
            }
        }
        for (int64_t t = 0; t < n; ++t)
            sum += missed[t];
        total += share * sum;
    }
    return total * s->tau * s->omega * s->omega;
}

/* Running costs of the density, g(rho) = V rho + congestion/2 rho^2 + entropy ((rho + floor) log(rho + floor) - ...). */
typedef struct {
    const double *potential; /* (n_nodes,) V at the vertices */
    double congestion, entropy, floor, penalty;
} prices_t;

/* za += relaxation (a - q_a), then the projection on a + c |b|^2 <= 0, |b|^2 the mean square (n_nodes, L) around a vertex,
 * in the metric da^2 + omega^2 db^2: mu is the root of f(mu) = z_a - mu + c |z_b|^2 / (1 + kappa mu)^2, decreasing and
 * convex. Newton's method is monotone from the left of the root, and jumps there once from the right; it starts from the
 * old multiplier. totals += {|a - q_a|^2 weighted, sum of weight mu |q_b|^2 / (2 lambda)}.
 *
 * With running costs it is the proximal map of g*(a + c |b|^2) instead: the same with f(mu) - g'(rho), which is decreasing
 * and convex too, rho = r W mu with the penalty r. Where its tangent leads below zero, which the logarithm's does from
 * far right, a step shrinks mu by STRIDE. Both are written once; the compiler leaves out what is not asked for. */
#define STRIDE 0.05
#define ROUNDS 60

static inline __attribute__((always_inline)) void proximal(
    const slabs_t *s, const prices_t *g, const int priced, const int logarithm, const double *falls, const double *squares,
    double relaxation, double *za, double *mu, double *shrink, double *totals)
{
    const int64_t n = s->layers;
    const double c = 0.5 / s->lambda, kappa = 1.0 / (s->lambda * s->omega * s->omega);
    double *restrict level = s->work, *restrict lower = level + n;
    for (int64_t node = 0; node < s->n_nodes; ++node) {
        const double *restrict row = falls + n * node, *restrict square = squares + n * node;
        double *restrict z = za + n * node, *restrict x = mu + n * node, *restrict factor = shrink + n * node;
        const double scale = priced ? g->penalty * s->weights[node] : 0.0; /* of rho over mu */
        const double slope = priced ? 1.0 + g->congestion * scale : 1.0;
        const double price = priced ? g->potential[node] + (logarithm ? g->entropy : 0.0) : 0.0;
        const double first = logarithm ? g->entropy * log(g->floor) : 0.0; /* the logarithm's part of g'(0) */
        double missed = 0.0, energy = 0.0;
        for (int64_t t = 0; t < n; ++t) {
            const double gap = row[t] - (z[t] - x[t]);
            missed += gap * gap;
            z[t] += relaxation * gap;
        }
        for (int64_t t = 0; t < n; ++t) {
            const double height = z[t] - price, top = c * square[t];
            const int active = height - first + top > 0.0;
            level[t] = active ? top : 0.0;
            lower[t] = active && height > 0.0 ? height / slope : 0.0;
            factor[t] = active ? height : 0.0; /* the height of f, until mu is found */
            x[t] = x[t] > lower[t] ? x[t] : lower[t];
            if (logarithm) { /* has no such lower bound: where there is one, write whether mu > 0 */
                lower[t] = active;
                x[t] = active ? x[t] : 0.0;
            }
        }
        for (int round = 0; round < ROUNDS; ++round) {
            int64_t moving = 0;
            for (int64_t t = 0; t < n; ++t) {
                const double f = 1.0 / (1.0 + kappa * x[t]);
                const double bend = level[t] * f * f;
                double value = factor[t] - slope * x[t] + bend, steep = slope + 2.0 * kappa * bend * f;
                double known = fabs(factor[t]); /* what the value is a difference of */
                if (logarithm) {
                    const double rho = scale * x[t] + g->floor, part = g->entropy * log(rho);
                    value -= lower[t] * part;
                    steep += g->entropy * scale / rho;
                    known = (known + fabs(part)) / steep;
                }
                double next = x[t] + value / steep;
                const double least = logarithm ? STRIDE * x[t] : lower[t];
                next = next > least ? next : least;
                moving += fabs(next - x[t]) > 1e-14 * next + 1e-15 * known;
                x[t] = next;
            }
            if (!moving)
                break;
        }
        for (int64_t t = 0; t < n; ++t)
            factor[t] = 1.0 / (1.0 + kappa * x[t]);
        for (int64_t t = 0; t < n; ++t)
            energy += x[t] * square[t] * factor[t] * factor[t];
        totals[0] += s->masses[node] * s->weights[node] * s->tau * missed;
        totals[1] += s->masses[node] * s->weights[node] * s->tau * energy * c;
    }
}

/* Without running costs. */
void project(const slabs_t *s, const double *falls, const double *squares, double relaxation, double *za, double *mu,
             double *shrink, double *totals)
{
    proximal(s, 0, 0, 0, falls, squares, relaxation, za, mu, shrink, totals);
}

/* With running costs, penalty r. */
void charge(const slabs_t *s, const double *potential, double congestion, double entropy, double floor, double penalty,
            const double *falls, const double *squares, double relaxation, double *za, double *mu, double *shrink,
            double *totals)
{
    const prices_t g = {potential, congestion, entropy, floor, penalty};
    if (entropy > 0.0)
        proximal(s, &g, 1, 1, falls, squares, relaxation, za, mu, shrink, totals);
    else
        proximal(s, &g, 1, 0, falls, squares, relaxation, za, mu, shrink, totals);
}

/* rhs (n_nodes, L + 1) += the gradients' part of Lambda^T (2 q - z), this rank's. */
void collect(const slabs_t *s, const double *zb, const double *shrink, double *rhs)
{
    const int64_t n = s->layers, m = n + 1;
    double *restrict flux = s->work;
    for (int64_t cell = 0; cell < s->n_cells; ++cell) {
        const double side = 0.5 * s->volumes[cell] / CORNERS * s->tau * s->omega * s->omega;
        for (int64_t t = 0; t < DIM * m; ++t)
            flux[t] = 0.0;
        for (int i = 0; i < CORNERS; ++i) {
            const int64_t node = s->nodes[cell * CORNERS + i];
            const double *restrict factor = shrink + n * node;
            const double weight = side * s->weights[node];
            for (int part = 0; part < PARTS; ++part) {
                const double *restrict z = zb + ((cell * CORNERS + i) * PARTS + part) * n;
                double *restrict sum = flux + (part % DIM) * m + part / DIM;
                for (int64_t t = 0; t < n; ++t)
                    sum[t] += weight * (2.0 * factor[t] - 1.0) * z[t];
            }
        }
        for (int i = 0; i < CORNERS; ++i) {
            double *restrict row = rhs + m * s->nodes[cell * CORNERS + i];
            const double *g = s->gradients + (cell * CORNERS + i) * DIM;
            for (int d = 0; d < DIM; ++d)
                for (int64_t t = 0; t < m; ++t)
                    row[t] += g[d] * flux[d * m + t];
        }
    }
}

/* The penalty of vertex i grows by 1/factors[i]: u = z - q and mu shrink by the factor, q stays. */
void rescale(const slabs_t *s, const double *factors, double *za, double *zb, double *mu, double *shrink)
{
    const int64_t n = s->layers;
    const double kappa = 1.0 / (s->lambda * s->omega * s->omega);
    for (int64_t cell = 0; cell < s->n_cells; ++cell)
        for (int i = 0; i < CORNERS; ++i) {
            const int64_t node = s->nodes[cell * CORNERS + i];
            const double *restrict old = shrink + n * node;
            const double factor = factors[node];
            for (int part = 0; part < PARTS; ++part) {
                double *restrict z = zb + ((cell * CORNERS + i) * PARTS + part) * n;
                for (int64_t t = 0; t < n; ++t)
                    z[t] *= factor + (1.0 - factor) * old[t]; /* q + factor (z - q), q = old z */
            }
        }
    for (int64_t node = 0; node < s->n_nodes; ++node)
        for (int64_t t = n * node; t < n * (node + 1); ++t) {
            za[t] += (factors[node] - 1.0) * mu[t];
            mu[t] *= factors[node];
            shrink[t] = 1.0 / (1.0 + kappa * mu[t]);
        }
}

/* With the state of one step earlier (old arrays): totals += {|q - q_old|^2, |q|^2, |z - q|^2}, weighted. */
void compare(const slabs_t *s, const double *za, const double *zb, const double *mu, const double *shrink,
             const double *old_za, const double *old_zb, const double *old_mu, const double *old_shrink, double *totals)
{
    const int64_t n = s->layers;
    for (int64_t node = 0; node < s->n_nodes; ++node) {
        double move = 0.0, size = 0.0, rest = 0.0;
        for (int64_t t = n * node; t < n * (node + 1); ++t) {
            const double q = za[t] - mu[t], step = q - (old_za[t] - old_mu[t]);
            move += step * step;
            size += q * q;
            rest += mu[t] * mu[t];
        }
        const double weight = s->masses[node] * s->weights[node] * s->tau;
        totals[0] += weight * move;
        totals[1] += weight * size;
        totals[2] += weight * rest;
    }
    for (int64_t cell = 0; cell < s->n_cells; ++cell) {
        const double weight = 0.5 * s->volumes[cell] / CORNERS * s->tau * s->omega * s->omega;
        for (int i = 0; i < CORNERS; ++i) {
            const int64_t node = s->nodes[cell * CORNERS + i];
            const double *factor = shrink + n * node, *old = old_shrink + n * node;
            double move = 0.0, size = 0.0, rest = 0.0;
            for (int part = 0; part < PARTS; ++part) {
                const int64_t at = ((cell * CORNERS + i) * PARTS + part) * n;
                for (int64_t t = 0; t < n; ++t) {
                    const double q = factor[t] * zb[at + t], step = q - old[t] * old_zb[at + t], u = zb[at + t] - q;
                    move += step * step;
                    size += q * q;
                    rest += u * u;
                }
            }
            totals[0] += weight * s->weights[node] * move;
            totals[1] += weight * s->weights[node] * size;
            totals[2] += weight * s->weights[node] * rest;
        }
    }
}

/* squares (n_nodes, L) += |K|/(DIM + 1) times the mean over both ends of a slab of |grad phi|^2. */
void gradient_squares(const slabs_t *s, const double *phi, double *squares)
{
    const int64_t n = s->layers, m = n + 1;
    double *restrict gradient = s->work, *restrict square = gradient + DIM * m;
    for (int64_t cell = 0; cell < s->n_cells; ++cell) {
        const double share = 0.5 * s->volumes[cell] / CORNERS;
        cell_gradient(s, cell, phi, gradient);
        for (int64_t t = 0; t < n; ++t)
            square[t] = 0.0;
        for (int d = 0; d < DIM; ++d)
            for (int64_t t = 0; t < n; ++t)
                square[t] += gradient[d * m + t] * gradient[d * m + t] + gradient[d * m + t + 1] * gradient[d * m + t + 1];
        for (int i = 0; i < CORNERS; ++i) {
            double *restrict row = squares + n * s->nodes[cell * CORNERS + i];
            for (int64_t t = 0; t < n; ++t)
                row[t] += share * square[t];
        }
    }
}
