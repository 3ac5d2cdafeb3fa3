"""The commands of the command line: one file each, and one line here."""

from typing import Final

from eulerian.app.commands.command import Command
from eulerian.app.commands.compare import Compare
from eulerian.app.commands.completion import Completion
from eulerian.app.commands.doctor import Doctor
from eulerian.app.commands.ideal import Ideal
from eulerian.app.commands.init import Init
from eulerian.app.commands.mesh import Mesh
from eulerian.app.commands.plot import Plot
from eulerian.app.commands.push import Push
from eulerian.app.commands.runs import Runs
from eulerian.app.commands.sample import Sample
from eulerian.app.commands.schema import Schema
from eulerian.app.commands.solve import Solve
from eulerian.app.commands.sweep import Sweep
from eulerian.app.commands.train import Train
from eulerian.app.commands.verify import Verify

ALL: Final[tuple[Command, ...]] = (
    Solve(),
    Train(),
    Ideal(),
    Verify(),
    Compare(),
    Sweep(),
    Push(),
    Sample(),
    Runs(),
    Mesh(),
    Plot(),
    Doctor(),
    Init(),
    Schema(),
    Completion(),
)
