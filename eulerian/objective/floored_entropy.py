"""ρ log ρ with a floor: finite and smooth where a density is zero.

e(ρ) = (ρ + δ) log(ρ + δ) for ρ ≥ 0, and its tangent at 0 below, where only rounding (or a solve without limiter) leads.
"""

import numpy as np

from eulerian.base.arrays import Floats


def entropy(rho: Floats, floor: float) -> Floats:
    """e(ρ), for any shape."""
    # Below zero the first term stays at δ log δ, and the second one is the tangent there.
    raised = np.maximum(rho, 0.0) + floor
    return np.asarray(raised * np.log(raised) + np.minimum(rho, 0.0) * (np.log(floor) + 1.0))


def entropy_slope(rho: Floats, floor: float) -> Floats:
    """e'(ρ)."""
    return np.asarray(np.log(np.maximum(rho, 0.0) + floor) + 1.0)
