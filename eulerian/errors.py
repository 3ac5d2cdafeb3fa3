"""What can go wrong, by name."""


class EulerianError(Exception):
    """Root of every error that this package raises on purpose."""

    exit_code = 2


class InputError(EulerianError):
    """The input is wrong: found before any computation, told once, exit code 1.

    Args:
        what: one sentence on what is wrong.
        key: dotted configuration key or name of the argument or file at fault.
        value: the offending value.
        remedy: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, key: str | None = None, value: object = None, remedy: str | None = None) -> None:
        self.what, self.key, self.value, self.remedy = what, key, value, remedy
        parts = [f"{key}: {what}" if key else what]
        if value is not None:
            text = repr(value)
            parts.append(f"got {text if len(text) <= 200 else text[:200] + '…'}")
        message = "; ".join(parts)
        super().__init__(f"{message}. {remedy}" if remedy else message)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between ranks: rebuild from the parts, because the keywords are not positional.
        return (_input_error, (self.what, self.key, _plain(self.value), self.remedy))


class ComputationError(EulerianError):
    """The computation failed although the input was valid: exit code 2, what was computed is kept."""


class RejectedEvaluation(ComputationError):
    """A trial point at which J cannot be evaluated (too many time steps, overflow): +∞ to a line search."""


def _input_error(what: str, key: str | None, value: object, remedy: str | None) -> InputError:
    return InputError(what, key=key, value=value, remedy=remedy)


def _plain(value: object) -> object:
    """``value`` itself where it is a plain literal, else its text, so that it can always be sent to another rank."""
    return value if value is None or isinstance(value, str | int | float | bool) else _Literal(repr(value))


class _Literal(str):
    """A text that shows without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
