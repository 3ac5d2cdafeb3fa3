/* What walls add to powers of densities, in time steps and by the velocity, and what powers owe to their densities. */

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
static void receive_handed(const scheme_t *t, const double *handed)
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
