"""The inner loops of the transport, in C (see ``kernels.c``)."""

from pathlib import Path

from eulerian.base.jit import Library

LIBRARY = Library(Path(__file__).with_name("kernels.c"), "scheme_t")
ffi, pointer, load_kernels = LIBRARY.ffi, LIBRARY.pointer, LIBRARY.load
