/* Eight numbers at once: the vector types of GNU C and what is done with them, for a layout with WIDTH labels of one cell
 * side by side (see `kernels.c`). Not intrinsics: one source serves AVX-512, AVX2 and NEON.
 */
#define LANES 8
#define CELLS (LANES / WIDTH)
#define SUMS (WIDTH == LANES ? 1 : LANES) /* sums over labels are kept by lane, but for one cell they are added up */

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
