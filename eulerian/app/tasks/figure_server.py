"""Draws figures beside a run, as a process of its own: ``python -m eulerian.app.tasks.figure_server``.

It loads Matplotlib while the run computes, and neither MPI nor DOLFINx. A line of JSON on the standard input asks for
figures of a folder; each of them is drawn by a process that is forked for it, so that one that crashes takes nothing
with it, and is answered by a line on the standard output. ``drawing.FigureServer`` starts it, asks and listens. When
the run is gone its end of the pipe closes, and all drawing ends at once.
"""

import importlib
import json
import os
import selectors
import signal
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from eulerian.app.runs.files import FIGURES
from eulerian.app.tasks.drawing import draw_run, ending
from eulerian.base.errors import EulerianError, FigureError, explained
from eulerian.base.memory_limits import core_limit, own_cores, sensible_ranks

type Answer = dict[str, Any]

_CHUNK = 1 << 16


def main() -> None:
    """Serve until the standard input ends."""
    answers = os.dup(1)
    os.set_inheritable(answers, False)
    os.dup2(2, 1)  # what a library prints is no answer
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):  # they are meant for the run, which tells of its end
        signal.signal(number, signal.SIG_IGN)
    with suppress(Exception):  # it fails again, with the reason, when a figure is wanted
        importlib.import_module("eulerian.app.figures.draw")
    _Server(answers).serve()


@final
class _Server:
    """Forks a process for every figure, as many at a time as there are cores.

    Args:
        answers: file descriptor.
    """

    def __init__(self, answers: int) -> None:
        self._answers, self._most = answers, sensible_ranks(own_cores(), core_limit())
        self._waiting: deque[tuple[Path, dict[str, Any]]] = deque()
        self._drawing: dict[int, tuple[str, int, bytearray]] = {}  # by pipe: figure, process, its words
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        asked = bytearray()
        self._selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                chunk = os.read(key.fd, _CHUNK)
                if key.fd:
                    self._hear(key.fd, chunk)
                elif chunk:
                    asked += chunk
                else:
                    self._stop()
                    return
            while b"\n" in asked:
                line, _, asked = asked.partition(b"\n")
                self._accept(json.loads(line))
            self._start()

    def _accept(self, request: dict[str, Any]) -> None:
        """One process for each figure that is wanted; a single one that tells why, where Matplotlib does not load."""
        folder = Path(request["folder"])
        names: list[str] = [""]
        with suppress(Exception):
            figures = importlib.import_module("eulerian.app.figures").ALL
            names = [figure.name for figure in figures if figure.can_draw(folder)]
        only, without = request["only"], request["without"]
        wanted = [name for name in names if name not in without and (not only or name in only or not name)]
        self._say({"figures": len(wanted)})
        self._waiting += [(folder, {"only": [name] if name else only, "without": without}) for name in wanted]

    def _start(self) -> None:
        while self._waiting and len(self._drawing) < self._most:
            folder, which = self._waiting.popleft()
            read, write = os.pipe()
            process = os.fork()
            if process == 0:
                os.close(self._answers)  # it ends with the server
                os.write(write, json.dumps(_drawn(folder, which)).encode())
                os._exit(0)
            os.close(write)
            name = folder / FIGURES / f"{which['only'][0]}.png" if which["only"] else "a figure"
            self._drawing[read] = str(name), process, bytearray()
            self._selector.register(read, selectors.EVENT_READ)

    def _hear(self, pipe: int, chunk: bytes) -> None:
        """What a process says, and that it has ended."""
        name, process, said = self._drawing[pipe]
        said += chunk
        if chunk:
            return
        del self._drawing[pipe]
        self._selector.unregister(pipe)
        os.close(pipe)
        _, status = os.waitpid(process, 0)
        crash = f"{name} could not be drawn: its process {ending(os.waitstatus_to_exitcode(status))}"
        self._say(json.loads(said) if said else {"failures": [crash]})

    def _say(self, answer: Answer) -> None:
        os.write(self._answers, json.dumps(answer).encode() + b"\n")

    def _stop(self) -> None:
        for _, process, _ in self._drawing.values():
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _drawn(folder: Path, which: dict[str, Any]) -> Answer:
    """Draw; what failed, and the error where a file could not be written."""
    try:
        draw_run(folder, **which)
    except FigureError as error:
        return {"failures": error.failures}
    except EulerianError as error:
        return {"failures": [], "error": str(error)}
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must reach the run
        return {"failures": [f"a figure could not be drawn: {' '.join(explained(error).split())}"]}
    return {"failures": []}


if __name__ == "__main__":
    main()
