/* min_j {f_j + half (x - z_j)^2} at many places x, for many lines of values f (see grid_search.py).
 *
 * Seen as functions of x these are parabolas of one shape: the minimum follows their lower envelope, which is found in
 * one pass along the line (Felzenszwalb and Huttenlocher 2012, doi:10.4086/toc.2012.v008a019). Nothing is assumed of f.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    int64_t lines, size, places;
    const double *values;  /* (lines, size) f, infinite where there is none */
    const double *z;       /* (size,) ascending */
    const double *x;       /* (places,) ascending */
    double half;           /* >= 0 */
} lines_t;

/* The parabolas of one line that are somewhere below all others, and where each begins to be; how many. */
static int64_t envelope(const lines_t *p, const double *f, int32_t *who, double *from)
{
    int64_t n = 0;
    for (int64_t j = 0; j < p->size; ++j) {
        if (!(f[j] < INFINITY))
            continue;
        double begin = -INFINITY;
        while (n) {
            const int32_t i = who[n - 1];
            const double rise = f[j] - f[i], apart = p->z[j] - p->z[i];
            begin = p->half > 0.0 ? 0.5 * (rise / (p->half * apart) + p->z[i] + p->z[j])
                                  : (rise < 0.0 ? -INFINITY : INFINITY);
            if (begin > from[n - 1])
                break;
            --n;
        }
        if (n && begin == INFINITY)
            continue;
        from[n] = n ? begin : -INFINITY;
        who[n++] = (int32_t)j;
    }
    return n;
}

/* Minima and their j, both (lines, places); j = 0 where all is infinite. Returns 0, or 1 without memory. */
int32_t min_plus(const lines_t *p, double *minima, int32_t *chosen)
{
    int32_t *who = malloc(p->size * sizeof *who);
    double *from = malloc(p->size * sizeof *from);
    if (!who || !from) {
        free(who);
        free(from);
        return 1;
    }
    for (int64_t line = 0; line < p->lines; ++line) {
        const double *f = p->values + line * p->size;
        const int64_t n = envelope(p, f, who, from);
        for (int64_t i = 0, k = 0; i < p->places; ++i) {
            double least = INFINITY;
            int32_t best = 0;
            while (k + 1 < n && from[k + 1] <= p->x[i])
                ++k;
            for (int64_t near = k > 0 ? k - 1 : 0; near < n && near < k + 2; ++near) {  /* rounding */
                const double way = p->x[i] - p->z[who[near]], value = f[who[near]] + p->half * (way * way);
                if (value < least) {
                    least = value;
                    best = who[near];
                }
            }
            minima[line * p->places + i] = least;
            chosen[line * p->places + i] = best;
        }
    }
    free(who);
    free(from);
    return 0;
}
