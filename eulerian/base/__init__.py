"""What every room stands on: errors, arrays, MPI, signals, compiled code, formulas."""
