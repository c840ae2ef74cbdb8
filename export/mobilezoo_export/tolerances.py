"""Accepted differences between a file and PyTorch, per precision.

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
    # Half arithmetic in PyTorch itself: 36 dB on MobileNetV2 with random norms, 49 to 65 dB on MnasNet, SHViT and
    # GhostNetV2.
    "fp16": Tolerance(relative=0.4, snr_db=25.0),
    # Half arithmetic of ARM kernels, which also add up in half: 34 dB on trained EfficientNet-Lite0, 21 dB on
    # MobileNetV2 with random norms.
    "half arithmetic": Tolerance(relative=1.0, snr_db=15.0),
    # Half-precision weights that float32 kernels multiply.
    "fp16-weights": Tolerance(relative=0.4, snr_db=25.0),
    # Eight bits of activations and weights keep about 14 dB through a network with random norms (measured: 13.7 to
    # 16.8 dB on MobileNetV2); a wrong scale or a dropped channel falls below 6 dB. The worst single score of 64,000 is
    # 2.9 in ExecuTorch, whose ranges cut rare peaks: 1 dB more than in the other formats, but a longer tail.
    "int8": Tolerance(relative=3.0, snr_db=8.0),
    "int8-dynamic": Tolerance(relative=2.0, snr_db=8.0),
    # Eight bits of weights alone: 17 (MobileNetV2, random norms) to 26 dB, largest single difference 0.9, 20 dB on
    # trained EfficientNet-Lite0; with activations of eight bits the same networks have 13 to 16 dB, and 19.
    "w8a16": Tolerance(relative=2.0, snr_db=12.0),
    "w8a8": Tolerance(relative=2.5, snr_db=8.0),
    "pal6": Tolerance(relative=2.0, snr_db=8.0),
    "pal4": Tolerance(relative=4.0, snr_db=0.0),
}


def tolerance_for(precision: str) -> Tolerance:
    """Return the limits of a precision; an unknown one is a programming error (KeyError)."""
    return TOLERANCES[precision]


def verdict(parity: Parity, precision: str) -> str | None:
    """Return why a file is out of tolerance, or None if it is within.

    Args:
        parity: measured differences.
        precision: precision of the file, which sets the limits.
    """
    limit = tolerance_for(precision)
    if not parity.relative <= limit.relative:
        return f"differs from PyTorch by {parity.relative:.3g} of the logits' deviation (limit {limit.relative:g})"
    if not parity.snr_db >= limit.snr_db:
        return f"signal to error is {parity.snr_db:.1f} dB (limit {limit.snr_db:g} dB)"
    return None
