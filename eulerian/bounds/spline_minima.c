/* Local minima of a tensor product of cubic splines plus a quadratic, for many points (see dual_ascent.py).
 *
 * DIM is the dimension. Newton's method in the box, damped where a step does not lower the value; where the second
 * derivative is not positive its eigenvalues are made so.
 */
#include <math.h>
#include <stdint.h>

enum { PIECES = DIM == 1 ? 4 : DIM == 2 ? 16 : 64 };

typedef struct {
    const double *lower, *upper, *width;  /* (DIM,) of the box, and of the intervals */
    const int32_t *intervals;             /* (DIM,) */
    const double *coefficients;           /* (intervals + 3, ..) */
    double alpha, widest, still;          /* a step below still * widest is the last one */
    int64_t steps;
} splines_t;

/* The four pieces at s in [0, 1], with their first and second derivatives. */
static void pieces(double s, double h, double p[3][4])
{
    const double t = 1.0 - s;
    p[0][0] = t * t * t / 6.0;
    p[0][1] = (4.0 + s * s * (3.0 * s - 6.0)) / 6.0;
    p[0][2] = (4.0 + t * t * (3.0 * t - 6.0)) / 6.0;
    p[0][3] = s * s * s / 6.0;
    p[1][0] = -0.5 * t * t / h;
    p[1][1] = 0.5 * s * (3.0 * s - 4.0) / h;
    p[1][2] = -0.5 * t * (3.0 * t - 4.0) / h;
    p[1][3] = 0.5 * s * s / h;
    p[2][0] = t / (h * h);
    p[2][1] = (3.0 * s - 2.0) / (h * h);
    p[2][2] = (3.0 * t - 2.0) / (h * h);
    p[2][3] = s / (h * h);
}

/* Value at z, and unless they are NULL the first and second derivatives there. */
static double jet(const splines_t *q, const double *z, double *slope, double (*bend)[DIM])
{
    double p[3][3][4] = {{{0.0}}};
    int64_t start = 0, strides[DIM];
    for (int i = DIM - 1, stride = 1; i >= 0; --i) {
        strides[i] = stride;
        stride *= q->intervals[i] + 3;
    }
    for (int i = 0; i < DIM; ++i) {
        double place = (z[i] - q->lower[i]) / q->width[i];
        place = place > 0.0 ? (place < q->intervals[i] ? place : q->intervals[i]) : 0.0;
        int64_t first = (int64_t)place;
        first = first < q->intervals[i] - 1 ? first : q->intervals[i] - 1;
        pieces(place - first, q->width[i], p[i]);
        start += first * strides[i];
    }
    double value = 0.0, g[3] = {0.0}, b[3][3] = {{0.0}};
    for (int k = 0; k < PIECES; ++k) {
        int at[DIM], left = k;
        int64_t index = start;
        for (int i = DIM - 1; i >= 0; --i) {
            at[i] = left % 4;
            left /= 4;
            index += at[i] * strides[i];
        }
        const double c = q->coefficients[index];
        double product = c;
        for (int i = 0; i < DIM; ++i)
            product *= p[i][0][at[i]];
        value += product;
        if (!slope)
            continue;
        for (int i = 0; i < DIM; ++i)
            for (int j = i; j <= DIM; ++j) {  /* j = DIM: the first derivative along i */
                double term = c;
                for (int a = 0; a < DIM; ++a)
                    term *= p[a][(a == i) + (a == j)][at[a]];
                if (j == DIM)
                    g[i] += term;
                else
                    b[i][j] += term;
            }
    }
    if (slope)
        for (int i = 0; i < DIM; ++i) {
            slope[i] = g[i];
            for (int j = i; j < DIM; ++j)
                bend[i][j] = bend[j][i] = b[i][j];
        }
    return value;
}

/* Eigenvalues and, in columns, eigenvectors of a symmetric matrix, which is lost (Jacobi 1846). */
static void eigen(double (*m)[DIM], double *values, double (*v)[DIM])
{
    for (int i = 0; i < DIM; ++i)
        for (int j = 0; j < DIM; ++j)
            v[i][j] = i == j;
    for (int sweep = 0; sweep < 30; ++sweep) {
        double off = 0.0, size = 0.0;
        for (int i = 0; i < DIM; ++i)
            for (int j = 0; j < DIM; ++j)
                *(i == j ? &size : &off) += m[i][j] * m[i][j];
        if (!(off > 1e-30 * size))
            break;
        for (int i = 0; i < DIM; ++i)
            for (int j = i + 1; j < DIM; ++j) {
                if (m[i][j] == 0.0)
                    continue;
                const double r = (m[j][j] - m[i][i]) / (2.0 * m[i][j]);
                const double t = (r >= 0.0 ? 1.0 : -1.0) / (fabs(r) + sqrt(r * r + 1.0));
                const double c = 1.0 / sqrt(t * t + 1.0), s = t * c;
                for (int k = 0; k < DIM; ++k) {
                    const double a = m[k][i], b = m[k][j];
                    m[k][i] = c * a - s * b;
                    m[k][j] = s * a + c * b;
                }
                for (int k = 0; k < DIM; ++k) {
                    const double a = m[i][k], b = m[j][k], x = v[k][i], y = v[k][j];
                    m[i][k] = c * a - s * b;
                    m[j][k] = s * a + c * b;
                    v[k][i] = c * x - s * y;
                    v[k][j] = s * x + c * y;
                }
            }
    }
    for (int i = 0; i < DIM; ++i)
        values[i] = m[i][i];
}

/* A step of Newton's method where walls hold some of the axes. */
static void newton(const splines_t *q, double (*bend)[DIM], const double *slope, const int *held, double damping,
                   double *step)
{
    double m[DIM][DIM], values[DIM], v[DIM][DIM], least = INFINITY;
    for (int i = 0; i < DIM; ++i)
        for (int j = 0; j < DIM; ++j)
            m[i][j] = held[i] || held[j] ? i == j : bend[i][j] + (i == j ? q->alpha : 0.0);
    eigen(m, values, v);
    for (int i = 0; i < DIM; ++i)
        least = fmin(least, values[i]);
    for (int i = 0; i < DIM; ++i)
        step[i] = 0.0;
    for (int k = 0; k < DIM; ++k) {
        double along = 0.0;
        for (int i = 0; i < DIM; ++i)
            along += held[i] ? 0.0 : v[i][k] * slope[i];
        along /= (least > 1e-3 * q->alpha ? values[k] : fmax(fabs(values[k]), 1e-3 * q->alpha)) + damping;
        for (int i = 0; i < DIM; ++i)
            step[i] -= held[i] ? 0.0 : v[i][k] * along;
    }
}

static double cost(const splines_t *q, const double *x, const double *z)
{
    double squares = 0.0;
    for (int i = 0; i < DIM; ++i)
        squares += (x[i] - z[i]) * (x[i] - z[i]);
    return jet(q, z, 0, 0) + 0.5 * q->alpha * squares;
}

/* From guesses z (n, DIM), which are replaced, to minima with their values (n,). */
void minima(const splines_t *q, int64_t n, const double *points, double *guesses, double *values)
{
    for (int64_t p = 0; p < n; ++p) {
        const double *x = points + p * DIM;
        double *z = guesses + p * DIM, damping = 0.0, value = cost(q, x, z);
        for (int64_t count = 0; count < q->steps; ++count) {
            double slope[DIM], bend[DIM][DIM], trial[DIM], moved = 0.0;
            int held[DIM];
            jet(q, z, slope, bend);
            for (int i = 0; i < DIM; ++i) {
                slope[i] += q->alpha * (z[i] - x[i]);
                held[i] = (z[i] <= q->lower[i] && slope[i] > 0.0) || (z[i] >= q->upper[i] && slope[i] < 0.0);
            }
            newton(q, bend, slope, held, damping, trial);
            for (int i = 0; i < DIM; ++i) {
                trial[i] = fmin(fmax(z[i] + trial[i], q->lower[i]), q->upper[i]);
                moved = fmax(moved, fabs(trial[i] - z[i]));
            }
            const double reached = cost(q, x, trial);
            if (reached <= value) {
                for (int i = 0; i < DIM; ++i)
                    z[i] = trial[i];
                value = reached;
                damping *= 0.1;
            } else {
                damping = 4.0 * fmax(damping, 0.1 * q->alpha);
            }
            if (!(moved > q->still * q->widest && damping < 1e8 * q->alpha))
                break;
        }
        values[p] = value;
    }
}
