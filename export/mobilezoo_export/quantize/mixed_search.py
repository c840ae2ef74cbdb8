"""Search for the int8 file with the fewest float segments: `mobilezoo export … --precision int8 --max-drop 1.0`.

Each segment of the network is kept in float alone, once; the gain in signal-to-error ratio ranks the segments. The
first of that ranking are then kept in float, as few as hold top-1 within the limit; bisection finds their number.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import ExportError
from mobilezoo.scratch import temporary_folder
from mobilezoo_export.quantize.mixed import SEGMENTS
from mobilezoo_export.records import ExportResult, MixedPrecision

Make = Callable[[tuple[int, ...], Path], ExportResult]
"""Exports the int8 file with these segments in float into a folder."""
Score = Callable[[Path], float]
"""Top-1 of a file, in percent."""
REMEDIES = "allow more, or train for int8"


def search(
    make: Make,
    score: Score,
    top1_float: float,
    max_drop: float,
    on_message: Callable[[str], None],
    remedies: str = REMEDIES,
) -> MixedPrecision:
    """Find the fewest float segments that keep top-1 within a limit.

    Args:
        make: exports the file with given segments in float.
        score: measures the top-1 of a file.
        top1_float: top-1 of the float network, in percent.
        max_drop: accepted loss of top-1, in percentage points.
        on_message: called with a line of text before each file is made or scored.
        remedies: what else there is where no file is within the limit.

    Raises:
        ExportError: a file cannot be made or run, or the limit is exceeded even with a single segment in int8.
    """
    with temporary_folder("mixed") as folder:
        maker = _Maker(make, score, folder, on_message)
        plain, top1_int8 = maker.scored(())
        kept: tuple[int, ...] = ()
        gains: dict[int, float] = {}
        if top1_float - top1_int8 > max_drop:
            gains = {segment: maker.snr_db((segment,)) - plain for segment in range(SEGMENTS)}
            order = sorted(gains, key=lambda segment: -gains[segment])
            kept = _fewest(maker, order, top1_float, max_drop, remedies)
        top1 = maker.scored(kept)[1]
    return MixedPrecision(
        float_segments=kept, top1_float=top1_float, top1_int8=top1_int8, top1=top1, gains_db=gains, tried=maker.tried
    )


def _fewest(
    maker: "_Maker", order: Sequence[int], top1_float: float, max_drop: float, remedies: str
) -> tuple[int, ...]:
    low, high = 1, SEGMENTS - 1

    def chosen(count: int) -> tuple[int, ...]:
        return tuple(sorted(order[:count]))

    best = top1_float - maker.scored(chosen(high))[1]
    if best > max_drop:
        raise ExportError(
            f"no mixed int8 file stays within {max_drop:g} points: with one segment of {SEGMENTS} in int8 "
            f"top-1 still falls by {best:.2f}; {remedies}"
        )
    while low < high:
        middle = (low + high) // 2
        if top1_float - maker.scored(chosen(middle))[1] <= max_drop:
            high = middle
        else:
            low = middle + 1
    return chosen(high)


class _Maker:
    """Makes and scores each file once."""

    def __init__(self, make: Make, score: Score, folder: Path, on_message: Callable[[str], None]) -> None:
        self._make, self._score, self._folder, self._on_message = make, score, folder, on_message
        self._files: dict[tuple[int, ...], Artifact] = {}
        self._top1: dict[tuple[int, ...], float] = {}

    @property
    def tried(self) -> int:
        return len(self._files)

    def snr_db(self, segments: tuple[int, ...]) -> float:
        parity = self._file(segments).parity
        if parity is None:
            raise ExportError("mixed precision is chosen by running files, and these cannot be run on this machine")
        return parity.snr_db

    def scored(self, segments: tuple[int, ...]) -> tuple[float, float]:
        """Return (SNR in dB, top-1 in percent) of the file with these segments in float."""
        snr_db = self.snr_db(segments)
        if segments not in self._top1:
            self._on_message(f"top-1 with {_named(segments)}")
            self._top1[segments] = self._score(self._path(segments) / self._files[segments].path)
        return snr_db, self._top1[segments]

    def _path(self, segments: tuple[int, ...]) -> Path:
        return self._folder / ("-".join(map(str, segments)) or "none")

    def _file(self, segments: tuple[int, ...]) -> Artifact:
        if segments not in self._files:
            self._on_message(_named(segments))
            result = self._make(segments, self._path(segments))
            if result.artifact is None:
                raise ExportError(result.reason)
            self._files[segments] = result.artifact
        return self._files[segments]


def _named(segments: tuple[int, ...]) -> str:
    return f"segments {', '.join(map(str, segments))} of {SEGMENTS} in float" if segments else "everything in int8"
