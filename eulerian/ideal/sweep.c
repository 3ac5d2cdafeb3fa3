/* One sweep of the splitting method for the convex problem over the cells of a mesh (see admm.py).
 *
 * Compile-time constant: DIM (1, 2, 3). Potentials phi are continuous and piecewise linear in space and time: arrays
 * (n_nodes, L + 1). On a cell and a time slab n of length tau they give
 *
 *     a  = - mean over the cell of (phi^{n+1} - phi^n) / tau          (weight |K| tau)
 *     b- = grad phi^n,  b+ = grad phi^{n+1}                           (weight |K| tau omega^2 / 2 each)
 *
 * and the constraint is a + (|b-|^2 + |b+|^2) / (4 lambda) <= 0. The state z has 1 + 2 DIM components, (n_cells,
 * 1 + 2 DIM, L): time runs fastest, so that the loops over slabs are vectorised. q is the projection of z on the
 * constraint, mu its multiplier (n_cells, L): q_a = z_a - mu and q_b = z_b / (1 + kappa mu), kappa = 1/(lambda omega^2).
 */
#include <math.h>
#include <stdint.h>

#define CORNERS (DIM + 1)
#define PARTS (1 + 2 * DIM)

typedef struct {
    int64_t n_cells, layers;
    const int32_t *nodes;     /* (n_cells, DIM + 1) */
    const double *gradients;  /* (n_cells, DIM + 1, DIM) of the barycentric coordinates */
    const double *volumes;    /* (n_cells,) */
    double tau, omega, lambda;
    double *work;             /* (n_workspace(L),) */
} slabs_t;

int64_t n_workspace(int64_t layers) { return (1 + DIM) * (layers + 1) + 3 * layers + PARTS * layers + (1 + DIM) * (layers + 1); }

/* Mean (L + 1) and gradient (DIM, L + 1) of phi on a cell. */
static void cell_potential(const slabs_t *s, int64_t cell, const double *restrict phi, double *restrict mean,
                           double *restrict grad)
{
    const int64_t n = s->layers + 1;
    for (int64_t t = 0; t < n; ++t)
        mean[t] = 0.0;
    for (int64_t t = 0; t < DIM * n; ++t)
        grad[t] = 0.0;
    for (int i = 0; i < CORNERS; ++i) {
        const double *restrict row = phi + n * s->nodes[cell * CORNERS + i];
        const double *g = s->gradients + (cell * CORNERS + i) * DIM;
        for (int64_t t = 0; t < n; ++t)
            mean[t] += row[t] / CORNERS;
        for (int d = 0; d < DIM; ++d)
            for (int64_t t = 0; t < n; ++t)
                grad[d * n + t] += g[d] * row[t];
    }
}

/* Multiplier of the projection of z on a + c |b|^2 <= 0 (mean square of b- and b+) in the metric da^2 + omega^2 db^2:
 * the root of f(mu) = z_a - mu + c s / (1 + kappa mu)^2, decreasing and convex. Newton's method from the left of the root
 * is monotone, and from the right it jumps to the left once; the old multiplier is where it starts. */
static void project(const slabs_t *s, const double *restrict z, double *restrict mu, double *restrict level,
                    double *restrict lower, double *restrict height)
{
    const int64_t n = s->layers;
    const double c = 0.5 / s->lambda, kappa = 1.0 / (s->lambda * s->omega * s->omega);
    for (int64_t t = 0; t < n; ++t)
        level[t] = 0.0;
    for (int part = 1; part < PARTS; ++part)
        for (int64_t t = 0; t < n; ++t)
            level[t] += 0.5 * c * z[part * n + t] * z[part * n + t];
    for (int64_t t = 0; t < n; ++t) {
        const double a = z[t];
        const int active = a + level[t] > 0.0;
        level[t] = active ? level[t] : 0.0;
        height[t] = active ? a : 0.0;
        lower[t] = height[t] > 0.0 ? height[t] : 0.0;
        mu[t] = mu[t] > lower[t] ? mu[t] : lower[t];
    }
    for (int sweep = 0; sweep < 60; ++sweep) {
        int64_t moving = 0;
        for (int64_t t = 0; t < n; ++t) {
            const double shrink = 1.0 / (1.0 + kappa * mu[t]);
            const double bend = level[t] * shrink * shrink;
            const double step = (height[t] - mu[t] + bend) / (1.0 + 2.0 * kappa * bend * shrink);
            double next = mu[t] + step;
            next = next > lower[t] ? next : lower[t];
            moving += fabs(next - mu[t]) > 1e-14 * next;
            mu[t] = next;
        }
        if (!moving)
            break;
    }
}

/* Adds - Lambda^T (u - q) = Lambda^T (2 q - z) of a cell to rhs (n_nodes, L + 1). */
static void scatter(const slabs_t *s, int64_t cell, const double *restrict z, const double *restrict mu,
                    const double *restrict shrink, double *restrict sums, double *restrict rhs)
{
    const int64_t n = s->layers, m = n + 1;
    const double volume = s->volumes[cell], side = 0.5 * volume * s->tau * s->omega * s->omega;
    double *restrict across = sums + m;
    for (int64_t t = 0; t < (1 + DIM) * m; ++t)
        sums[t] = 0.0;
    for (int64_t t = 0; t < n; ++t) {
        const double flow = volume * (z[t] - 2.0 * mu[t]) / CORNERS;
        sums[t] += flow;
        sums[t + 1] -= flow;
    }
    for (int d = 0; d < DIM; ++d) {
        for (int64_t t = 0; t < n; ++t)
            across[d * m + t] += side * (2.0 * shrink[t] - 1.0) * z[(1 + d) * n + t];
        for (int64_t t = 0; t < n; ++t)
            across[d * m + t + 1] += side * (2.0 * shrink[t] - 1.0) * z[(1 + DIM + d) * n + t];
    }
    for (int i = 0; i < CORNERS; ++i) {
        double *restrict row = rhs + m * s->nodes[cell * CORNERS + i];
        const double *g = s->gradients + (cell * CORNERS + i) * DIM;
        for (int64_t t = 0; t < m; ++t)
            row[t] += sums[t];
        for (int d = 0; d < DIM; ++d)
            for (int64_t t = 0; t < m; ++t)
                row[t] += g[d] * across[d * m + t];
    }
}

/* z += relaxation (Lambda phi - q), then the new multipliers, and rhs += Lambda^T (2 q - z).
 *
 * totals += {|p - q_old|^2, |q - q_old|^2, |q|^2, |u|^2, sum of weight mu |b_q|^2 / (2 lambda), sum of weight mu}, p =
 * Lambda phi, u = z - q, norms in the weights above. */
void sweep(const slabs_t *s, const double *phi, double relaxation, double *z, double *mu, double *rhs, double *totals)
{
    const int64_t n = s->layers, m = n + 1;
    const double kappa = 1.0 / (s->lambda * s->omega * s->omega), omega2 = 0.5 * s->omega * s->omega;
    double *mean = s->work, *grad = mean + m, *level = grad + DIM * m, *lower = level + n, *height = lower + n;
    double *old = height + n, *sums = old + PARTS * n;
    for (int64_t cell = 0; cell < s->n_cells; ++cell) {
        double *restrict zc = z + cell * PARTS * n, *restrict muc = mu + cell * n;
        double miss = 0.0, move = 0.0, size = 0.0, dual = 0.0, energy = 0.0, mass = 0.0;
        cell_potential(s, cell, phi, mean, grad);
        for (int64_t t = 0; t < n; ++t) {
            const double q = zc[t] - muc[t], p = (mean[t] - mean[t + 1]) / s->tau;
            lower[t] = (p - q) * (p - q);
            old[t] = q;
            zc[t] += relaxation * (p - q);
        }
        for (int64_t t = 0; t < n; ++t)
            height[t] = 1.0 / (1.0 + kappa * muc[t]);
        for (int part = 1; part < PARTS; ++part) {
            const int d = (part - 1) % DIM, late = part > DIM;
            const double *restrict b = grad + d * m + late;
            for (int64_t t = 0; t < n; ++t) {
                const double q = zc[part * n + t] * height[t], gap = b[t] - q;
                lower[t] += omega2 * gap * gap;
                old[part * n + t] = q;
                zc[part * n + t] += relaxation * gap;
            }
        }
        for (int64_t t = 0; t < n; ++t)
            miss += lower[t];
        project(s, zc, muc, level, lower, height);
        for (int64_t t = 0; t < n; ++t) {
            const double q = zc[t] - muc[t];
            height[t] = 1.0 / (1.0 + kappa * muc[t]);
            move += (q - old[t]) * (q - old[t]);
            size += q * q;
            dual += muc[t] * muc[t];
            mass += muc[t];
            level[t] = 0.0;
        }
        for (int part = 1; part < PARTS; ++part)
            for (int64_t t = 0; t < n; ++t) {
                const double x = zc[part * n + t], q = x * height[t];
                move += omega2 * (q - old[part * n + t]) * (q - old[part * n + t]);
                size += omega2 * q * q;
                dual += omega2 * (x - q) * (x - q);
                level[t] += q * q;
            }
        for (int64_t t = 0; t < n; ++t)
            energy += muc[t] * level[t];
        scatter(s, cell, zc, muc, height, sums, rhs);
        const double weight = s->volumes[cell] * s->tau;
        totals[0] += weight * miss;
        totals[1] += weight * move;
        totals[2] += weight * size;
        totals[3] += weight * dual;
        totals[4] += weight * energy * 0.25 / s->lambda;
        totals[5] += weight * mass;
    }
}

/* A penalty that grows by 1/factor shrinks u = z - q and mu by factor and leaves q; rhs += Lambda^T (2 q - z). */
void rescale(const slabs_t *s, double factor, double *z, double *mu, double *rhs)
{
    const int64_t n = s->layers, m = n + 1;
    const double kappa = 1.0 / (s->lambda * s->omega * s->omega);
    double *shrink = s->work, *sums = shrink + n;
    for (int64_t cell = 0; cell < s->n_cells; ++cell) {
        double *restrict zc = z + cell * PARTS * n, *restrict muc = mu + cell * n;
        for (int part = 1; part < PARTS; ++part)
            for (int64_t t = 0; t < n; ++t)
                zc[part * n + t] *= (1.0 + kappa * factor * muc[t]) / (1.0 + kappa * muc[t]);
        for (int64_t t = 0; t < n; ++t) {
            zc[t] += (factor - 1.0) * muc[t];
            muc[t] *= factor;
            shrink[t] = 1.0 / (1.0 + kappa * muc[t]);
        }
        scatter(s, cell, zc, muc, shrink, sums, rhs);
    }
    (void)m;
}

/* worst (L) = max over the cells of a + (|b-|^2 + |b+|^2) / (4 lambda); cells raise it, so it must be set before. */
void violation(const slabs_t *s, const double *phi, double *worst)
{
    const int64_t n = s->layers, m = n + 1;
    double *mean = s->work, *grad = mean + m, *square = grad + DIM * m;
    for (int64_t cell = 0; cell < s->n_cells; ++cell) {
        cell_potential(s, cell, phi, mean, grad);
        for (int64_t t = 0; t < n; ++t)
            square[t] = 0.0;
        for (int d = 0; d < DIM; ++d)
            for (int64_t t = 0; t < n; ++t)
                square[t] += grad[d * m + t] * grad[d * m + t] + grad[d * m + t + 1] * grad[d * m + t + 1];
        for (int64_t t = 0; t < n; ++t) {
            const double excess = (mean[t] - mean[t + 1]) / s->tau + 0.25 / s->lambda * square[t];
            worst[t] = excess > worst[t] ? excess : worst[t];
        }
    }
}
