"""Up to which errors a run counts as resolved. Quick to load: what measures these errors loads much of SciPy."""

from typing import Final

DENSITY: Final = 0.05
"""Of ρ(T) in L¹, relative to the mass, for every label."""

OBJECTIVE: Final = 0.01
"""Of J, relative to the sum of the absolute values of its parts."""

NATS: Final = 0.005
"""Of J where it has an entropy of ρ(T), absolute."""
