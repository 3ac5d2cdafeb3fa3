"""The inner loops of the transport, in C (see ``kernels.c``)."""

from pathlib import Path

from eulerian.base.jit import Library

_SIGNATURES = """
void exchange(scheme_t *, double *u);
double assemble(const scheme_t *, const double *v);
void contract(const scheme_t *, const double *v, const double *dout, const double *dvolume, const double *dgain,
              double *gv);
void apply(const scheme_t *, const double *u, double *result);
void apply_vjp(const scheme_t *, const double *y, const double *u, double *result, double *dout, double *dvolume);
void step_forward(scheme_t *, const double *start, char *const *records, int64_t n_records, int64_t count, double dt,
           int limited, double *occupation, double *moment, double left, int64_t done, const double *source_start,
           char *const *source_records);
void limit_vjp(const scheme_t *, char *record, int stage, double *g);
void step_adjoint(scheme_t *, const double *start, char *const *records, int64_t count, double dt, int limited,
            const double *const *running, int64_t n_running, const double *tilt, double left, int64_t done,
            double *const *cotangents, double *dout, double *dvolume, double *dgain, const double *source_start,
            char *const *source_records, double *handed);
"""

LIBRARY = Library(Path(__file__).with_name("kernels.c"), "scheme_t", _SIGNATURES)
ffi, pointer, load_kernels = LIBRARY.ffi, LIBRARY.pointer, LIBRARY.load
