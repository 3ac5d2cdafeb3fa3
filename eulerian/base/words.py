"""Numbers as messages say them."""


def percent(share: float, sign: str = "") -> str:
    """A share in per cent with two digits, or as many as a number has before its point: 170 %, not 1.7e+02 %.

    Args:
        share: dimensionless, 1 being 100 %.
        sign: "+" for a sign in front of positive ones too.
    """
    value = 100.0 * share
    return f"{value:{sign}.0f} %" if abs(value) >= 99.5 else f"{value:{sign}.2g} %"
