"""Signals that ask a run to end: it ends within seconds, on all ranks, and what it has found is kept.

A thread on every rank waits for signals, since the main thread may be inside compiled loops or wait for other ranks. A
run that calls ``asked`` often enough ends by itself. Otherwise the thread on rank 0 writes what is known so far (the
``last_words`` of the run) and ends the job. Only the command line listens
like that. Calls from Python touch no signal but Ctrl-C, while they minimise, and only where nobody else handles it:
``CtrlC``.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Self, final

from mpi4py import MPI

from eulerian.base import parallel  # starts MPI

# Ctrl-C, the end of a session, and what schedulers send before the wall time is over.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

EXIT_CODE = 2

type LastWords = Callable[[str], str]

_PATIENCE = 4.0  # seconds until a run that asks often should have come by
_ENDING = 4.0  # seconds more for its orderly end
_ALONE = 3.0  # seconds after which a rank that was asked no longer waits for rank 0
_TWICE = 1.0  # seconds between two of one wish: a launcher and a terminal may both pass it on
_LOOK = 0.2  # seconds between two looks for messages of other ranks


@final
class CtrlC:
    """A context in which the first Ctrl-C only sets ``pressed``; the second raises KeyboardInterrupt as usual.

    It leaves signals alone where somebody else handles Ctrl-C already (the command line, a notebook's kernel with a
    handler of its own), and outside of the main thread, where Python does not let it. Not collective: whoever acts on
    ``pressed`` has to agree with the other ranks.

    Attributes:
        pressed: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._listens = False
        self._when = 0.0

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        self._listens = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._listens:
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self.pressed and time.monotonic() > self._when + _TWICE:
            signal.default_int_handler(number, frame)
        if not self.pressed:
            self.pressed, self._when = True, time.monotonic()


def _plain_words(name: str) -> str:
    return f"interrupted by {name}"


@final
class Listener:
    """Waits for signals from its creation until ``close``; one per process, made by its main thread.

    Args:
        comm: the job.
        complain: called with the text for the user, from any thread.
    """

    def __init__(self, comm: MPI.Comm, complain: Callable[[str], None]) -> None:
        """Collective."""
        self._comm, self._complain = comm.Dup(), complain
        # Threads of mpi4py's MPI may nearly always call it; where not, ranks do without messages to rank 0.
        self._messages = comm.size > 1 and MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self._number, self._deadline, self._pressed = 0, 0.0, 0.0
        self._words: list[tuple[LastWords, float]] = [(_plain_words, 0.0)]
        self.lock = threading.RLock()
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        # Where a signal is ignored (as nohup does with SIGHUP), it stays so.
        self._before = {
            number: signal.signal(number, _leave_to_the_thread)
            for number in SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        self._thread = threading.Thread(target=self._listen, name="eulerian-signals", daemon=True)
        self._thread.start()

    def asked(self) -> str | None:
        """The signal that any rank was sent, the same answer on all ranks, or None. Collective."""
        number = self._comm.allreduce(self._number, MPI.MAX)
        if number == 0:
            return None
        self._note(number)
        self._deadline = max(self._deadline, time.monotonic() + _ENDING)
        return signal.Signals(number).name

    @contextlib.contextmanager
    def last_words(self, words: LastWords, *, asks: bool = False) -> Iterator[None]:
        """What rank 0 is to do, in the listener's thread, if the job is ended inside the context. Not collective.

        Args:
            words: writes what is known; takes the name of the signal, and returns the text for the user.
            asks: whether the run calls ``asked`` inside the context, which the thread then waits for first.
        """
        with self.lock:
            self._words.append((words, _PATIENCE if asks else 0.0))
        try:
            yield
        finally:
            with self.lock:
                self._words.pop()

    def close(self) -> None:
        """Stop listening, and restore the handlers of before. Not collective."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._write_end)
        self._thread.join()
        os.close(self._read_end)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        rank = self._comm.rank
        while True:
            idle = self._number == 0 and not (self._messages and rank == 0)
            ready, _, _ = select.select([self._read_end], [], [], None if idle else _LOOK)
            received = os.read(self._read_end, 64) if ready else b""
            if ready and not received:
                return  # closed
            for number in received:
                if number in set(SIGNALS):
                    self._receive(number)
            if self._messages and rank == 0 and self._comm.Iprobe():
                self._note(int(self._comm.recv()))
            if self._number and time.monotonic() > self._deadline + (_ALONE if rank else 0.0):
                self._end()

    def _receive(self, number: int) -> None:
        """A signal that was sent to this very process; Ctrl-C pressed again means at once."""
        if number == signal.SIGINT:
            if self._pressed and time.monotonic() > self._pressed + _TWICE:
                parallel.end_job(EXIT_CODE)
            self._pressed = self._pressed or time.monotonic()
        if not self._number and self._messages and self._comm.rank > 0:
            self._comm.isend(number, 0)
        self._note(number)

    def _note(self, number: int) -> None:
        if self._number == 0:
            with self.lock:
                self._deadline = time.monotonic() + self._words[-1][1]
                self._number = number

    def _end(self) -> None:
        """Call the last words, and end the job."""
        with self.lock:  # not while the main thread is writing
            if self._comm.rank == 0:
                try:
                    text = self._words[-1][0](signal.Signals(self._number).name)
                except Exception as error:  # noqa: BLE001 - the job ends in any case
                    text = f"interrupted; what was found could not be kept ({type(error).__name__}: {error})"
                self._complain(text)
            parallel.end_job(EXIT_CODE)


def _leave_to_the_thread(_number: int, _frame: FrameType | None) -> None:
    """Signals reach the thread through the wake-up pipe."""


_current: Listener | None = None


@contextlib.contextmanager
def listening(comm: MPI.Comm, complain: Callable[[str], None]) -> Iterator[None]:
    """Listen to signals while a command runs. **Collective**."""
    global _current  # signals belong to the process
    _current = Listener(comm, complain)
    try:
        yield
    finally:
        _current.close()
        _current = None


def asked() -> str | None:
    """The signal that asks this run to end, the same on all ranks, or None. **Collective** where anybody listens."""
    return None if _current is None else _current.asked()


@contextlib.contextmanager
def last_words(words: LastWords, *, asks: bool = False) -> Iterator[None]:
    """See ``Listener.last_words``; nothing where nobody listens."""
    with contextlib.nullcontext() if _current is None else _current.last_words(words, asks=asks):
        yield


def undisturbed() -> contextlib.AbstractContextManager[object]:
    """A lock against the last words, for files that they write too. Not collective."""
    return contextlib.nullcontext() if _current is None else _current.lock
