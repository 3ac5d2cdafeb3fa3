/* Ghost exchanges, and whole Runge-Kutta steps with the adjoint. */

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

/* -- where mass is ----------------------------------------------------------------------------------------------- */

/* The flags of what steps start from: zero or not. */
static void look_for_mass(const scheme_t *t, const double *start)
{
    for (int64_t bk = 0; bk < t->n_batches * GROUPS; ++bk) {
        const wide *u = (const wide *)start + bk * ND;
        mask found = (mask){0};
        for (int n = 0; n < ND; ++n) found |= ~(u[n] == 0.0);
        t->start_flags[bk] = any(found) ? 0 : ZERO;
    }
}

/* Whether a stage leaves a batch zero: it is, and so is all around it. flags: of what the stage starts from; first: of
 * what its step starts from. */
static inline int idle(const scheme_t *t, int64_t b, int k, const uint8_t *flags, const uint8_t *first)
{
    if (flags[b * GROUPS + k] != ZERO || first[b * GROUPS + k] != ZERO || t->at_ghosts[b]) return 0;
#if POWER > 1
    if (t->at_walls[b]) return 0;
#endif
    for (int32_t i = t->around_begin[b]; i < t->around_begin[b + 1]; ++i)
        if (flags[(int64_t)t->around[i] * GROUPS + k] != ZERO) return 0;
    return 1;
}

/* -- steps ------------------------------------------------------------------------------------------------------- */

/* Stage i: next = limit(alpha u0 + (1 - alpha)(u + dt/c B u)); its share of the integral over time of all labels' u is
 * added to occupation, [batch][node][SUMS], unless that is null, and `left` times that to moment, likewise. u_flags: of
 * u, u0_flags: of u0; of use where densities are limited. */
static void stage(const scheme_t *t, int i, const double *u, const double *u0, double dt, int limited, char *record,
                  double *occupation, double *moment, double left, const double *density, const uint8_t *u_flags,
                  const uint8_t *u0_flags)
{
#if POWER > 1
    force(t, density);
#else
    (void)density;
#endif
    const double alpha = ALPHA[i], beta = 1.0 - alpha, euler = dt / t->coefficient;
    const double now = CURRENT_WEIGHT[i] * dt, first = START_WEIGHT[i] * dt;
    double *next = state_of(t, record, i);
    wide *factors = factors_of(t, record, i);
    uint8_t *points = points_of(t, record, i), *flags = flags_of(t, record, i);
    for (int64_t b = 0; b < t->n_batches; ++b)
        for (int k = 0; k < GROUPS; ++k) {
            const int64_t bk = b * GROUPS + k;
            const wide *own = (const wide *)u + bk * ND, *start = (const wide *)u0 + bk * ND;
            wide *target = (wide *)next + bk * ND;
            if (limited && idle(t, b, k, u_flags, u0_flags)) {
                if (flags[bk] != ZERO) /* records are used again: what was zero there still is */
                    for (int n = 0; n < ND; ++n) target[n] = all(0.0);
                flags[bk] = ZERO;
                continue;
            }
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
            for (int n = 0; n < ND; ++n) change[n] = beta * (here[n] + euler * change[n]);
            if (alpha != 0.0)
                for (int n = 0; n < ND; ++n) change[n] += alpha * start[n];
            if (limited) flags[bk] = (uint8_t)limit_batch(t, change, factors + bk, points + bk * LANES);
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
                  int limited, double *occupation, double *moment, double left, int64_t done,
                  const double *source_start, char *const *source_records)
{
    const double *first = start;
    const uint8_t *first_flags = t->start_flags;
    if (limited) look_for_mass(t, start);
    for (int64_t s = 0; s < count; ++s) {
        char *record = records[s % n_records];
        const double *current = first;
        const uint8_t *flags = first_flags;
        for (int i = 0; i < STAGES; ++i) {
            double *next = state_of(t, record, i);
            stage(t, i, current, first, dt, limited, record, occupation, moment, time_left(left, done + s, dt),
                  POWER > 1 ? source_state(t, source_start, source_records, s, i) : 0, flags, first_flags);
            exchange(t, next);
            current = next;
            flags = flags_of(t, record, i);
        }
        first = current;
        first_flags = flags;
    }
}

/* Adjoint of stage i behind its limiter. g[i + 1] is the cotangent of alpha u0 + (1 - alpha)(u + dt/c B u), ghosts up to
 * date; that of u goes to target. Stage 0 adds what the later stages owe to u0, so there target may be g[STAGES].
 * running: [batch][node][cell], the same for all labels; tilt, likewise or null, counts `left` times. forced: whether
 * `forcing` belongs to the cotangent of u. `before`, the record and stage that u came from, has the adjoint of its
 * limiter applied to the target at once; null if that is left to the caller. */
static void stage_vjp(const scheme_t *t, int i, double *const *g, const double *u, double dt, const double *running,
                      const double *tilt, double left, int forced, double *target_, char *before, int before_stage,
                      double *dout, double *dvolume)
{
    const double beta = 1.0 - ALPHA[i], weight = WEIGHT[i] * dt, euler = dt / t->coefficient, *z = g[i + 1];
    const wide *factors = before ? factors_of(t, before, before_stage) : 0;
    const uint8_t *points = before ? points_of(t, before, before_stage) : 0;
    const uint8_t *flags = before ? flags_of(t, before, before_stage) : 0;
    for (int64_t b = 0; b < t->n_batches; ++b)
        for (int k = 0; k < GROUPS; ++k) {
            const int64_t bk = b * GROUPS + k;
            const wide *own = (const wide *)z + bk * ND, *state = (const wide *)u + bk * ND;
            wide *target = (wide *)target_ + bk * ND;
            if (flags && flags[bk] == ZERO && !t->through_zeros) {
                /* which has no derivative, nor a share in that by the coefficients */
                for (int n = 0; n < ND; ++n) target[n] = all(0.0);
                continue;
            }
            vec here[ND], density[ND], change[ND];
            for (int n = 0; n < ND; ++n) here[n] = own[n], density[n] = state[n];
            product_vjp(t, b, here, z + k * ND * LANES, change, density, beta * euler, dout, dvolume);
            for (int n = 0; n < ND; ++n) change[n] = beta * (here[n] + euler * change[n]);
            if (running)
                for (int n = 0; n < ND; ++n) change[n] += weight * spread(running + (b * ND + n) * CELLS);
            if (tilt)
                for (int n = 0; n < ND; ++n) change[n] += weight * left * spread(tilt + (b * ND + n) * CELLS);
            if (forced && t->at_walls[b])
                for (int n = 0; n < ND; ++n) change[n] += ((const wide *)t->forcing)[bk * ND + n];
            if (i == 0)
                for (int j = 1; j < STAGES; ++j) {
                    if (ALPHA[j] == 0.0) continue;
                    const wide *later = (const wide *)g[j + 1] + bk * ND;
                    for (int n = 0; n < ND; ++n) change[n] += ALPHA[j] * later[n];
                }
            if (flags) behind_stage_vjp(t, density, factors + bk, points + bk * LANES, flags[bk], change);
            for (int n = 0; n < ND; ++n) target[n] = change[n];
        }
}

/* Adjoint of the limiter behind a stage of a record, in place on g. */
void limit_vjp(const scheme_t *t, char *record, int stage, double *g)
{
    const uint8_t *flags = flags_of(t, record, stage), *points = points_of(t, record, stage);
    const wide *states = (const wide *)state_of(t, record, stage), *factors = factors_of(t, record, stage);
    for (int64_t bk = 0; bk < t->n_batches * GROUPS; ++bk) {
        behind_stage_vjp(t, states + bk * ND, factors + bk, points + bk * LANES, flags[bk], (wide *)g + bk * ND);
    }
}

/* Adjoint of `count` steps from `start` that left records[0 .. count - 1]. Collective.
 *
 * cotangents: STAGES + 1 densities, of which some may be one and the same (SSPScheme.cotangents); the last holds the
 * cotangent of the result and then that of `start`.
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
            force_vjp(t, g[i + 1], source_state(t, source_start, source_records, s, i),
                      (1.0 - ALPHA[i]) * dt / t->coefficient, handed + (s * STAGES + i) * n_handed, dgain);
#else
            if (handed) receive_handed(t, handed + (s * STAGES + i) * n_handed);
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
