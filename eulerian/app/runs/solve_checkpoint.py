"""The densities that a forward solve leaves on its way, in a folder. All of it is **collective**."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from eulerian.app.runs.solve_checkpoint_file import Arrays, Header, read_densities, write_densities
from eulerian.base.arrays import Floats
from eulerian.base.errors import InputError
from eulerian.base.parallel import on_root, sum_all
from eulerian.control.control import ControlProblem
from eulerian.mesh.cell_order import CellOrder
from eulerian.objective.parts import part_names
from eulerian.transport.observer import SweepState


@final
class SolveCheckpoint:
    """Positions of a forward solve as files, to the last bit, written and read on any number of ranks.

    Args:
        folder: of the files.
        problem: whose forward solve it is.
    """

    def __init__(self, folder: Path, problem: ControlProblem) -> None:
        self.folder = folder
        self._space, self._groups = problem.density_space, problem.groups
        self._layouts = [stepper.layout for stepper in problem.trajectory.steppers]
        self._powers = [stepper.layout for stepper in problem.trajectory.power_steppers]
        self._orders = problem.trajectory.orders
        self._charged = len(part_names("density")) + len(problem.running.functionals)
        self._order = CellOrder(self._space.mesh)

    @cached_property
    def mesh(self) -> str:
        """The fingerprint of the mesh."""
        return self._order.fingerprint(self._space.geometry)

    def write(self, header: Header, position: SweepState, more: Arrays | None = None) -> None:
        """Keep a position; ``more`` arrays are the same on all ranks.

        Raises:
            ComputationError: it cannot be written.
        """
        order, layouts = self._order, self._layouts
        nodes = [layout.unpack_nodes(rho) for layout, rho in zip(layouts, position.densities, strict=False)]
        shares = [
            np.stack([layout.split_totals(sums) for sums in orders], axis=2)
            for layout, orders in zip(layouts, position.occupation, strict=False)
        ]
        density, occupation = order.gather(np.concatenate(nodes, axis=2)), order.gather(np.stack(shares, axis=2))
        charged, vertices = (
            sum_all(order.comm, position.charged),
            order.vertices(self._space.geometry) if header.step == 0 else None,
        )
        arrays = {"density": density, "occupation": occupation, "charged": charged, "vertices": vertices}
        arrays |= self._power_arrays(position)
        given: Arrays = {**{name: array for name, array in arrays.items() if array is not None}, **(more or {})}
        on_root(order.comm, lambda: write_densities(self.folder, header, given))

    def read(self, header: Header) -> SweepState:
        """The position of a file.

        Raises:
            InputError: it is damaged.
        """
        layouts, order = self._layouts, self._order
        names = ("density", "occupation", "charged", *(self._power_shapes if self._powers else ()))
        whole = self._read(header, names, self._fits)
        density, occupation = order.scatter(whole.get("density")), order.scatter(whole.get("occupation"))
        charged = whole["charged"] if whole else np.zeros(self._charged)  # sums over ranks: one of them has it all
        values = self._with_ghosts(density)
        powers, power_occupation = self._read_powers(whole)
        return SweepState(
            header.step,
            [*(layout.pack_nodes(values[..., group], fill=1.0) for layout, group in self._grouped), *powers],
            [
                *(
                    np.stack([layout.join_totals(occupation[:, :, g, order]) for order in range(occupation.shape[3])])
                    for g, layout in enumerate(layouts)
                ),
                *power_occupation,
            ],
            charged,
        )

    def theta(self, header: Header) -> Floats:
        """θ, of the file of step 0.

        Raises:
            InputError: it is damaged.
        """
        theta: Floats = self._order.comm.bcast(self._read(header, ("theta",)).get("theta"), 0)
        return theta

    def _with_ghosts(self, owned: Floats) -> Floats:
        values = np.zeros((self._space.n_cells, *owned.shape[1:]))
        values[: self._space.n_owned] = owned
        self._space.update_ghosts(values)
        return values

    @property
    def _power_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the arrays that powers have: their columns, and how the sums over these are kept, side by side."""
        cells, nd = self._order.n_cells, self._space.nd
        columns, shares = (sum(getattr(p, name) for p in self._powers) for name in ("columns", "shares"))
        return {"powers": (cells, nd, columns), "power_occupation": (cells, nd, self._orders, shares)}

    def _power_arrays(self, position: SweepState) -> dict[str, NDArray[Any] | None]:
        """Arrays of the powers of a position, on rank 0."""
        if not self._powers:
            return {}
        n, order = len(self._layouts), self._order
        nodes = [p.unpack_nodes(q) for p, q in zip(self._powers, position.densities[n:], strict=True)]
        shares = [
            np.stack([p.split_totals(sums) for sums in orders], axis=2)
            for p, orders in zip(self._powers, position.occupation[n:], strict=True)
        ]
        found = (np.concatenate(nodes, axis=2), np.concatenate(shares, axis=3))
        return {name: order.gather(array) for name, array in zip(self._power_shapes, found, strict=True)}

    def _read_powers(self, whole: Arrays) -> tuple[list[Floats], list[Floats]]:
        """Powers and their occupation as a position has them, from arrays on rank 0."""
        if not self._powers:
            return [], []
        values, occupation = (self._order.scatter(whole.get(name)) for name in self._power_shapes)
        values, powers, occupations, column, share = self._with_ghosts(values), [], [], 0, 0
        for p in self._powers:
            powers.append(p.pack_nodes(values[..., column : column + p.columns], fill=1.0))
            mine = occupation[..., share : share + p.shares]
            occupations.append(np.stack([p.join_totals(mine[:, :, order]) for order in range(self._orders)]))
            column, share = column + p.columns, share + p.shares
        return powers, occupations

    @property
    def _grouped(self) -> list[tuple[Any, list[int]]]:
        return list(zip(self._layouts, self._groups, strict=True))

    def _read(
        self, header: Header, names: tuple[str, ...], check: Callable[[Arrays], None] = lambda _: None
    ) -> dict[str, NDArray[Any]]:
        """Arrays on rank 0; elsewhere nothing."""
        held: dict[str, NDArray[Any]] = {}

        def work() -> None:
            held.update(read_densities(self.folder / header.name, names))
            check(held)

        on_root(self._order.comm, work)
        return held

    def _fits(self, arrays: Arrays) -> None:
        """Raise InputError unless arrays have the shapes that they are written with."""
        cells, nd, layouts = self._order.n_cells, self._space.nd, self._layouts
        shapes = {
            "density": (cells, nd, self._space.n_labels),
            "occupation": (cells, nd, len(layouts), self._orders, layouts[0].shares),
            "charged": (self._charged,),
            **(self._power_shapes if self._powers else {}),
        }
        for name, shape in shapes.items():
            if arrays[name].shape != shape or arrays[name].dtype != np.float64:
                raise InputError(f"{name} must be {shape} numbers", key=str(self.folder), value=arrays[name].shape)
