"""What Rindle raises and warns of."""


class RindleError(ValueError):
    """What Rindle raises about its input: one message that names the thing, the value and the remedy."""


class RindleWarning(UserWarning):
    """Something legal that the user will want to know: a constant path, an all-zero weight row."""
