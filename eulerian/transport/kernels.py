"""The inner loops of the transport, in C (see ``kernels.c``)."""

from pathlib import Path

from eulerian.compiled import Library

_SIGNATURES = """
double assemble(const scheme_t *, const double *v, double *blocks);
void contract(const scheme_t *, const double *v, const double *S, double *gv);
void apply(const scheme_t *, const double *blocks, const double *u, double *out);
void apply_transpose(const scheme_t *, const double *blocks, const double *z, double *out);
void stage(const scheme_t *, const double *blocks, const double *u, const double *u0, double alpha, double beta,
           double dt, int limited, double *out, double *factors, uint8_t *lowest_at, double weight, double *total);
void limit_vjp(const scheme_t *, const double *w, const double *factors, const uint8_t *lowest_at, double *g);
void stage_vjp(const scheme_t *, const double *blocks, const double *z, const double *u, double alpha, double beta,
               double dt, double weight, const double *running, double *gu, double *g0, double *S);
"""

LIBRARY = Library(Path(__file__).with_name("kernels.c"), "scheme_t", _SIGNATURES)
ffi, pointer, load_kernels = LIBRARY.ffi, LIBRARY.pointer, LIBRARY.load
