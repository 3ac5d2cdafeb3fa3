/* McCalpin's triad: what one core can move to and from memory. */
#include <stdint.h>

typedef struct {
    int64_t n;
    double *a;
    const double *b, *c;
    double s;
} triad_t;

void triad(const triad_t *t)
{
    double *restrict a = t->a;
    const double *restrict b = t->b, *restrict c = t->c;
    for (int64_t i = 0; i < t->n; ++i) a[i] = b[i] + t->s * c[i];
}
