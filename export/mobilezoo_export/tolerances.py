"""How far a file may be from PyTorch, per precision, and the verdict.

fp32 files compute the same sums in another order: the difference is rounding, and grows with depth. Reduced precision
is judged by what it is for: `relative` catches a single wrong class score, `snr_db` an error spread over all of them.
"""

from mobilezoo.artifacts import Parity
from mobilezoo.config import Record


class Tolerance(Record):
    """Limits of one precision."""

    relative: float
    """Largest accepted max-abs difference over the standard deviation of PyTorch's logits."""
    snr_db: float
    """Smallest accepted ratio of the logits' power to the error's."""


TOLERANCES = {
    "fp32": Tolerance(relative=1e-3, snr_db=70.0),
    "fp16": Tolerance(relative=0.1, snr_db=35.0),
}


def tolerance_for(precision: str) -> Tolerance:
    """The limits of a precision; unknown ones are a programming error."""
    return TOLERANCES[precision]


def verdict(parity: Parity, precision: str) -> str | None:
    """Why these figures are not good enough, or None."""
    limit = tolerance_for(precision)
    if not parity.relative <= limit.relative:
        return f"differs from PyTorch by {parity.relative:.3g} of the logits' deviation (limit {limit.relative:g})"
    if not parity.snr_db >= limit.snr_db:
        return f"signal to error is {parity.snr_db:.1f} dB (limit {limit.snr_db:g} dB)"
    return None
