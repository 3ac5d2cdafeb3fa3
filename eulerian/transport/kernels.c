/* Compiled loops of the transport scheme, specialised at compile time.
 *
 * DIM, DEGREE        space dimension, polynomial degree
 * POWER              m: what moves is the m-th power of a density; 1 for densities themselves
 * GROUPS, WIDTH      densities (labels) that move together: GROUPS times WIDTH, a power of two up to eight
 * ND, NN             nodes of a cell for the density and for the velocity
 * FN, FV, NQ         nodes of a facet for the density and for the velocity, flux points of a facet
 * NV, NL, STAGES     numbers per cell and direction of the volume term, points of the limiter, Runge-Kutta stages
 * ND_DIV, NS         POWER > 1: points that determine div v on a cell, numbers per cell of the source
 *
 * Upper-case tables are those of `element.py`. Densities are values at Lagrange nodes, eight side by side:
 * [batch][group][node][lane], where the lanes are CELLS cells of WIDTH labels each; the batches of owned cells come
 * first, then those of ghost cells. A cell counts its vertices by their global numbers, so both cells of a facet see
 * its nodes and flux points in the same order. What labels share is kept once per cell, [batch][...][cell].
 *
 * With the flux F_q = in_q u(across) - out_q u(own) out of flux point q the operator is
 *     B u = M^-1 (sum_q trace^T F_q + volume u),
 * and since what flows in here flows out across, its transpose in L2 is
 *     B* y = M^-1 (sum_q trace^T out_q (y(across) - y(own)) + volume^T y):
 * the adjoint carries y, the representative in L2 of the derivative, and its derivative by out_q is one product.
 *
 * The power q = rho^m of a density has the source -(m - 1) q div v, which stands behind the volume term's numbers. A
 * wall that stops the flow is a negative divergence on the boundary: there q gains (m - 1) rho^m (v.n)+, taken from the
 * density's mean in the cell. (Taken from q it would feed on itself and grow like exp(v t / h) where the density grows
 * like t / h; and at the wall itself the polynomials of cells that are pressed are many times their means.) So powers
 * are stepped forward beside the steps that their density has taken, and the adjoint hands on what they owe to it.
 *
 * Work is done where mass is. Behind every stage cells with next to no mass are set to zero; a batch of zeros with
 * nothing but zeros around it stays zero, and is left out. Backward, what was set to zero has no derivative, so a batch
 * that was zero is left out as well. To the last bit, this is what computing everywhere gives. Who wants the derivative
 * by what densities start from asks for more (through_zeros): for that of mass that might be where none is.
 */
#include <math.h>
#include <stdint.h>

#include "simd.h"

#define NF (DIM + 1)
#if POWER > 1
#define NUMBERS (DIM * NV + NS) /* of the volume term and the source, per cell */
#else
#define NUMBERS (DIM * NV)
#endif
#define UNLIMITED 255 /* deciding points where none has decided */
#define EMPTIED 254
#define LIMITED 1 /* flags of batches: something in it was limited; all of it is zero */
#define ZERO 2

typedef struct {
    int64_t n_owned;             /* cells */
    int64_t n_batches;           /* of owned cells */
    int64_t size;                /* numbers in one density, ghosts included */
    const int32_t *neighbours;   /* [batch][NF][FN][cell] where the facet's nodes stand across, for the first group */
    const int32_t *cell_nodes;   /* [block][NN][8], blocks of eight cells */
    const double *inverse;       /* [block][DIM][DIM][8] d(reference)/d(physical) */
    const double *normals;       /* [block][NF][DIM][8] outward area normal / |det J|, or zero without a neighbour */
    const double *sizes;         /* [block][NF][8] its length */
    const double *det;           /* [block][8] |det J| */
    double *in, *out;            /* [batch][NF][NQ][cell], and room for one more batch */
    double *volume;              /* [batch][NUMBERS][cell]: [DIM][NV], [NS]; and room for one more batch */
    double delta;                /* smoothing of |v.n| */
    double empty;                /* cells whose mean is below this are set to zero */
    int64_t through_zeros;       /* backward, cells that are zero hand on what comes in, as if nothing was limited */
    double stability;            /* linear stability limit of the scheme: time step x outflow rate <= 1 / stability */
    double coefficient;          /* SSP coefficient: stages are Euler steps of the time step over this */
    int64_t n_send, n_receive;   /* ghost exchange: positions of the first group's numbers, and their buffers */
    const int32_t *send, *receive;
    double *send_buffer, *receive_buffer;
    int32_t n_requests;          /* persistent MPI requests on the buffers */
    void *requests, *statuses;
    int (*start_all)(int, void *);
    int (*wait_all)(int, void *, void *);
    int64_t exchanges;           /* so far */
    int64_t n_walls;             /* facets of owned cells without a neighbour */
    const int32_t *wall_cells;   /* [wall] */
    const int32_t *wall_facets;  /* [wall] */
    const double *wall_normals;  /* [wall][DIM] as in `normals` */
    const uint8_t *at_walls;     /* [batch] whether one of its cells has a wall */
    const uint8_t *at_ghosts;    /* [batch] whether one of its cells has a ghost for neighbour */
    const int32_t *around_begin; /* [batch + 1] where its part of `around` begins */
    const int32_t *around;       /* batches with neighbours of its cells */
    uint8_t *start_flags;        /* [batch][group] work space: flags of what steps start from */
    double *forcing;             /* [batch][group][node][lane] work space, used where at_walls says so */
    double *gain;                /* [wall][NQ] POWER > 1: what a unit of rho^m gives to its power */
    int64_t source_width, source_groups, source_size; /* how the loops of the density hold it: WIDTH, GROUPS, size */
    int64_t n_columns, n_sources; /* powers, and densities they are of */
    const uint8_t *summed;       /* [column][source] whether a power is of a sum that has this density in it */
} scheme_t;

/* One translation unit: only where all of them are at hand does the compiler build a product into the stages. */
#include "product.c"
#include "limiter.c"
#include "powers.c"
#include "step.c"
#include "assemble.c"

/* result = B u; ghosts of u up to date. */
void apply(const scheme_t *t, const double *u, double *result)
{
    for (int64_t b = 0; b < t->n_batches; ++b)
        for (int k = 0; k < GROUPS; ++k)
            product(t, b, (const wide *)u + (b * GROUPS + k) * ND, u + k * ND * LANES,
                    (wide *)result + (b * GROUPS + k) * ND);
}

/* result = B* y, and the derivative of <y, B u> by out and volume added to dout and dvolume; ghosts of y up to date. */
void apply_vjp(const scheme_t *t, const double *y, const double *u, double *result, double *dout, double *dvolume)
{
    for (int64_t b = 0; b < t->n_batches; ++b)
        for (int k = 0; k < GROUPS; ++k) {
            const int64_t at = (b * GROUPS + k) * ND;
            product_vjp(t, b, (const wide *)y + at, y + k * ND * LANES, (wide *)result + at, (const wide *)u + at, 1.0,
                        dout, dvolume);
        }
}
