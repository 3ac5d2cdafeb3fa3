/* Who sees whom in a polygon with holes, and what is near (see geodesics.py).
 *
 * The domain lies on the left of the edges. A place sees as far as the nearest edge that leads out of the domain; that
 * edge is the same between two consecutive corners, sorted by angle about the place: its view. Views of bends are kept.
 * Angles are those of a rhombus, in [0, 4).
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    int64_t n, r;
    const double *corners;     /* (n, 2) */
    const int32_t *following;  /* (n,) next corner along the boundary */
    const int32_t *preceding;  /* (n,) */
    double slack, inset;       /* lengths: rounding, and what places are moved off a wall by */
    const double *bends;       /* (r, 2) corners around which paths bend */
    const double *moved;       /* (r, 2) the same, moved off the walls */
    const double *sides;       /* (r, 4) unit vectors along the edge before and after the bend */
    double aperture;           /* sine by which the directions of taut paths may be wrong */
    const int32_t *starts;     /* (r + 1,) where the view of a bend begins */
    const double *limits;      /* angles at which the sectors of the views begin */
    const int32_t *edges;      /* what is seen in each, -1 for nothing */
} walls_t;

typedef struct {
    double angle;
    int32_t corner;
} ray_t;

/* Places z (c, 2) with losses, in blocks of some that are near each other. */
typedef struct {
    int64_t blocks;
    const int32_t *first;  /* (blocks + 1,) */
    const double *boxes;   /* (blocks, 4) lower and upper corner */
    const double *least;   /* (blocks,) of losses - gains */
    const double *z;       /* (c, 2) */
    const double *losses;  /* (c,) */
    const double *gains;   /* (c,) by how much the loss may be less near by */
    double stiffness, spacing;
} cloud_t;

static double angle(double x, double y)
{
    const double size = fabs(x) + fabs(y);
    if (size == 0.0)
        return 0.0;
    return y >= 0.0 ? 1.0 - x / size : 3.0 + x / size;
}

static int by_angle(const void *a, const void *b)
{
    const double p = ((const ray_t *)a)->angle, q = ((const ray_t *)b)->angle;
    return (p > q) - (p < q);
}

/* Twice the area of (a, b, c): > 0 where c is on the left of the edge from a to b. */
static inline double area(const double *a, const double *b, const double *c)
{
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
}

static inline double distance(const double *a, const double *b)
{
    return sqrt((a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1]));
}

/* Sort the corners by angle, then turn once around with a list of the edges that the ray meets. Returns the number of
 * sectors; limits, edges (n + 1,). */
static int64_t view_from(const walls_t *w, const double *s, ray_t *rays, int32_t *place, double *limits, int32_t *edges)
{
    const int64_t n = w->n;
    int32_t *active = place + n; /* and how many */
    int64_t count = 0, sectors = 0;
    double *turn = (double *)(place + 2 * n);
    for (int64_t i = 0; i < n; ++i) {
        turn[i] = angle(w->corners[2 * i] - s[0], w->corners[2 * i + 1] - s[1]);
        rays[i] = (ray_t){turn[i], (int32_t)i};
        place[i] = -1;
    }
    qsort(rays, n, sizeof(ray_t), by_angle);
    for (int32_t a = 0; a < n; ++a) { /* edges across the first ray */
        const int32_t b = w->following[a];
        if (turn[a] > turn[b] && turn[b] + 4.0 - turn[a] < 2.0 && area(w->corners + 2 * a, w->corners + 2 * b, s) > 0.0) {
            place[a] = (int32_t)count;
            active[count++] = a;
        }
    }
    for (int64_t k = 0; k < n; ++k) {
        const int32_t a = rays[k].corner, old = w->preceding[a], b = w->following[a];
        double span = turn[b] - turn[a];
        span += span < 0.0 ? 4.0 : 0.0;
        if (place[old] >= 0) {
            active[place[old]] = active[--count];
            place[active[count]] = place[old];
            place[old] = -1;
        }
        if (place[a] < 0 && span > 0.0 && span < 2.0 && area(w->corners + 2 * a, w->corners + 2 * b, s) > 0.0) {
            place[a] = (int32_t)count;
            active[count++] = a;
        }
        double next = k + 1 < n ? rays[k + 1].angle : rays[0].angle + 4.0;
        if (next <= rays[k].angle)
            continue;
        double middle = 0.5 * (rays[k].angle + next);
        middle -= middle >= 4.0 ? 4.0 : 0.0;
        const double x = middle < 2.0 ? 1.0 - middle : middle - 3.0, y = middle < 2.0 ? 1.0 - fabs(x) : fabs(x) - 1.0;
        int32_t nearest = -1;
        double least = INFINITY;
        for (int64_t i = 0; i < count; ++i) {
            const double *p = w->corners + 2 * active[i], *q = w->corners + 2 * w->following[active[i]];
            const double u = q[0] - p[0], v = q[1] - p[1];
            const double far = ((p[0] - s[0]) * v - (p[1] - s[1]) * u) / (x * v - y * u);
            if (far < least) {
                least = far;
                nearest = active[i];
            }
        }
        if (!sectors || edges[sectors - 1] != nearest) {
            limits[sectors] = rays[k].angle;
            edges[sectors++] = nearest;
        }
    }
    return sectors;
}

static inline int beyond(const walls_t *w, int32_t edge, const double *z)
{
    const double *a = w->corners + 2 * edge, *b = w->corners + 2 * w->following[edge];
    return area(a, b, z) < -w->slack * distance(a, b);
}

static inline int64_t sector(const double *limits, int64_t count, double turn)
{
    int64_t low = -1, high = count; /* limits[low] <= turn < limits[high] */
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (limits[middle] <= turn)
            low = middle;
        else
            high = middle;
    }
    return low < 0 ? count - 1 : low;
}

static inline int seen(const walls_t *w, const double *s, const double *limits, const int32_t *edges, int64_t count,
                       const double *z)
{
    if (!count)
        return 0;
    const int32_t edge = edges[sector(limits, count, angle(z[0] - s[0], z[1] - s[1]))];
    return edge >= 0 && !beyond(w, edge, z);
}

/* Whether a path may bend on its way between a bend and z, its other part unknown: z lies between an edge and the
 * extension of the other one. */
static inline int taut(const walls_t *w, int64_t bend, const double *z, double far)
{
    const double *side = w->sides + 4 * bend, x = z[0] - w->bends[2 * bend], y = z[1] - w->bends[2 * bend + 1];
    const double before = x * side[1] - y * side[0], after = side[2] * y - side[3] * x;
    const double wrong = w->aperture * far + 2.0 * w->inset;
    return (before >= -wrong && after >= -wrong) || (before <= wrong && after <= wrong);
}

static inline int bend_sees(const walls_t *w, int64_t bend, const double *z)
{
    const int32_t start = w->starts[bend];
    return seen(w, w->moved + 2 * bend, w->limits + start, w->edges + start, w->starts[bend + 1] - start, z);
}

/* The views of m places (m, 2): sectors into limits, edges (m, n + 1), their numbers into counts (m,). */
int64_t views(const walls_t *w, int64_t m, const double *s, double *limits, int32_t *edges, int32_t *counts)
{
    const int64_t n = w->n;
    ray_t *rays = malloc(n * sizeof(ray_t));
    int32_t *work = malloc(n * (2 * sizeof(int32_t) + sizeof(double)));
    const int64_t failed = !rays || !work;
    for (int64_t i = 0; i < m && !failed; ++i)
        counts[i] = (int32_t)view_from(w, s + 2 * i, rays, work, limits + i * (n + 1), edges + i * (n + 1));
    free(rays);
    free(work);
    return failed;
}

/* Whether p and q (m, 2) see each other, pair by pair. */
void pairs(const walls_t *w, int64_t m, const double *p, const double *q, uint8_t *free_)
{
    for (int64_t i = 0; i < m; ++i) {
        const double *s = p + 2 * i, *z = q + 2 * i;
        free_[i] = 1;
        for (int64_t e = 0; e < w->n && free_[i]; ++e) {
            const double *a = w->corners + 2 * e, *b = w->corners + 2 * w->following[e];
            if (area(s, z, a) <= 0.0 && area(s, z, b) >= 0.0) {
                const double rounding = w->slack * distance(a, b);
                free_[i] = !(area(a, b, s) > rounding && area(a, b, z) < -rounding);
            }
        }
    }
}

/* Whether points (m, 2) are inside, and the points moved off the walls that they are at. */
void inside(const walls_t *w, int64_t m, const double *x, double *moved, uint8_t *in)
{
    for (int64_t i = 0; i < m; ++i) {
        const double *z = x + 2 * i;
        double *to = moved + 2 * i;
        int odd = 0;
        to[0] = z[0];
        to[1] = z[1];
        for (int64_t e = 0; e < w->n; ++e) {
            const double *a = w->corners + 2 * e, *b = w->corners + 2 * w->following[e];
            if ((a[1] > z[1]) != (b[1] > z[1]))
                odd ^= z[0] < a[0] + (z[1] - a[1]) * (b[0] - a[0]) / (b[1] - a[1]);
            const double u = b[0] - a[0], v = b[1] - a[1], length = sqrt(u * u + v * v);
            const double across = area(a, b, z) / length, along = ((z[0] - a[0]) * u + (z[1] - a[1]) * v) / length;
            if (fabs(across) < w->inset && along > -w->inset && along < length + w->inset) {
                to[0] -= w->inset * v / length;
                to[1] += w->inset * u / length;
                odd |= 2;
            }
        }
        in[i] = odd != 0;
    }
}

/* Lengths (m, r) of straight taut lines from points (m, 2), moved off the walls, to the bends, infinite elsewhere. */
void legs(const walls_t *w, int64_t m, const double *x, const double *moved, double *lengths)
{
    for (int64_t i = 0; i < m; ++i)
        for (int64_t b = 0; b < w->r; ++b) {
            const double far = distance(x + 2 * i, w->bends + 2 * b);
            lengths[i * w->r + b] = taut(w, b, x + 2 * i, far) && bend_sees(w, b, moved + 2 * i) ? far : INFINITY;
        }
}

/* Shortest ways (m, r) to the bends, over a first one each, from the lengths of first legs (m, r). */
void ways(const walls_t *w, int64_t m, const double *first, const double *between, double *total, int32_t *over)
{
    const int64_t r = w->r;
    for (int64_t i = 0; i < m; ++i) {
        double *sum = total + i * r;
        int32_t *by = over + i * r;
        for (int64_t b = 0; b < r; ++b) {
            sum[b] = INFINITY;
            by[b] = -1;
        }
        for (int64_t q = 0; q < r; ++q) {
            const double leg = first[i * r + q], *row = between + q * r;
            if (leg < INFINITY)
                for (int64_t b = 0; b < r; ++b)
                    if (leg + row[b] < sum[b]) {
                        sum[b] = leg + row[b];
                        by[b] = (int32_t)q;
                    }
        }
    }
}

/* The shortest way to z (m, 2) over a last bend, with ways (., r) to the bends, whose row is who (m,). */
void last_bends(const walls_t *w, int64_t m, const int32_t *who, const double *total, const double *z,
                const double *moved, double *lengths, int32_t *bends)
{
    for (int64_t i = 0; i < m; ++i) {
        const double *sum = total + (int64_t)who[i] * w->r;
        lengths[i] = INFINITY;
        bends[i] = -1;
        for (int64_t b = 0; b < w->r; ++b) {
            if (!(sum[b] < lengths[i]))
                continue;
            const double far = distance(z + 2 * i, w->bends + 2 * b);
            if (sum[b] + far < lengths[i] && taut(w, b, z + 2 * i, far) && bend_sees(w, b, moved + 2 * i)) {
                lengths[i] = sum[b] + far;
                bends[i] = (int32_t)b;
            }
        }
    }
}

/* Which of m points (r_i, c_i), r ascending, minimise c + t r for some t >= 0: their numbers, r ascending; how many. */
int64_t envelope(int64_t m, const double *r, const double *c, int32_t *kept)
{
    int64_t n = 0;
    for (int64_t i = 0; i < m; ++i) {
        if (n && c[i] >= c[kept[n - 1]])
            continue;
        while (n > 0 && r[kept[n - 1]] >= r[i])
            --n;
        while (n > 1) {
            const int32_t a = kept[n - 2], b = kept[n - 1];
            if ((c[a] - c[b]) * (r[i] - r[b]) > (c[b] - c[i]) * (r[b] - r[a]))
                break;
            --n;
        }
        kept[n++] = (int32_t)i;
    }
    return n;
}

static int hidden(const walls_t *w, const double *s, const double *limits, const int32_t *edges, int64_t count,
                  const double *box)
{
    const double corners[8] = {box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]};
    if (s[0] >= box[0] && s[0] <= box[2] && s[1] >= box[1] && s[1] <= box[3])
        return 0;
    int64_t one = -1;
    for (int i = 0; i < 4; ++i) {
        const int64_t k = sector(limits, count, angle(corners[2 * i] - s[0], corners[2 * i + 1] - s[1]));
        if ((i && k != one) || edges[k] < 0 || !beyond(w, edges[k], corners + 2 * i))
            return 0;
        one = k;
    }
    /* One sector may be wide enough to have all corners and not the box, but for a convex sector. */
    const double width = one + 1 < count ? limits[one + 1] - limits[one] : limits[0] + 4.0 - limits[one];
    return width < 2.0;
}

/* For points s (m, 2), moved off the walls: up to `most` visible places of the cloud with the least loss + stiffness/2
 * |s - z|^2, below a bound (m,) or maybe so near by, far from each other: numbers (m, most), -1 for none. */
int64_t nearest(const walls_t *w, const cloud_t *cloud, int64_t m, const double *s, const double *bound, int64_t most,
                int32_t *found)
{
    const int64_t n = w->n, size = cloud->first[cloud->blocks];
    double *limits = malloc((n + 1) * sizeof(double)), *costs = malloc((size + 1) * sizeof(double));
    int32_t *edges = malloc((n + 1) * sizeof(int32_t)), *which = malloc((size + 1) * sizeof(int32_t));
    ray_t *rays = malloc(n * sizeof(ray_t));
    int32_t *work = malloc(n * (2 * sizeof(int32_t) + sizeof(double)));
    const int64_t failed = !limits || !costs || !edges || !which || !rays || !work;
    for (int64_t i = 0; i < m && !failed; ++i) {
        const double *x = s + 2 * i, half = 0.5 * cloud->stiffness;
        const int64_t count = view_from(w, x, rays, work, limits, edges);
        int64_t hits = 0;
        for (int64_t b = 0; b < cloud->blocks && count; ++b) {
            const double *box = cloud->boxes + 4 * b;
            const double u = fmax(fmax(box[0] - x[0], x[0] - box[2]), 0.0), v = fmax(fmax(box[1] - x[1], x[1] - box[3]), 0.0);
            const double far = fmax(sqrt(u * u + v * v) - 1.5 * cloud->spacing, 0.0);
            if (cloud->least[b] + half * far * far >= bound[i] || hidden(w, x, limits, edges, count, box))
                continue;
            for (int32_t j = cloud->first[b]; j < cloud->first[b + 1]; ++j) {
                const double *z = cloud->z + 2 * j, away = distance(x, z);
                const double cost = cloud->losses[j] + half * away * away;
                if (cost - cloud->gains[j] - 1.5 * cloud->stiffness * away * cloud->spacing < bound[i]
                    && seen(w, x, limits, edges, count, z)) {
                    costs[hits] = cost;
                    which[hits++] = j;
                }
            }
        }
        for (int64_t k = 0; k < most; ++k) {
            int64_t best = -1;
            for (int64_t j = 0; j < hits; ++j) {
                int far = 1;
                for (int64_t l = 0; l < k && far; ++l)
                    far = distance(cloud->z + 2 * which[j], cloud->z + 2 * found[i * most + l]) > 4.0 * cloud->spacing;
                if (far && (best < 0 || costs[j] < costs[best]))
                    best = j;
            }
            found[i * most + k] = best < 0 ? -1 : which[best];
            if (best < 0) {
                for (int64_t l = k; l < most; ++l)
                    found[i * most + l] = -1;
                break;
            }
        }
    }
    free(limits);
    free(costs);
    free(edges);
    free(which);
    free(rays);
    free(work);
    return failed;
}
