/* The operator's coefficients from the velocity at its nodes, and the derivative by that velocity.
 *
 * Here eight cells side by side are a block, whatever the batches are. Facets without a neighbour have normal zero, and
 * so has what fills up the last block.
 */

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
        const vec emptying = DEGREE == 0 ? outflow : NF * (DEGREE == 1 ? 1.0 : (DIM + 2.0) / DIM) * peak;
        const vec positive = emptying / t->coefficient, stable = t->stability * outflow;
        vec rate = factorial * choose(positive > stable, positive, stable);
#if POWER > 1
        rate += (POWER - 1.0) / t->coefficient * loss;
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
