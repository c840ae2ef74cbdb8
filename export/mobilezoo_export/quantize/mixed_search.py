"""int8 files with as little left in float as an accuracy allows: `mobilezoo export … --precision int8 --max-drop 1.0`.

Each segment of the network is left in float alone, once, and the file's signal-to-error ratio tells what that gains.
Then the most telling segments are left in float, as few as keep top-1 within the limit; halving finds their number.
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


def search(make: Make, score: Score, top1_float: float, max_drop: float, tell: Callable[[str], None]) -> MixedPrecision:
    """The fewest segments in float that keep top-1 within `max_drop` percentage points of `top1_float`.

    Raises ExportError when a file cannot be made, or when not even one segment in int8 stays within the limit.
    """
    with temporary_folder("mixed") as folder:
        maker = _Maker(make, score, folder, tell)
        plain, top1_int8 = maker.scored(())
        kept: tuple[int, ...] = ()
        gains: dict[int, float] = {}
        if top1_float - top1_int8 > max_drop:
            gains = {segment: maker.snr_db((segment,)) - plain for segment in range(SEGMENTS)}
            order = sorted(gains, key=lambda segment: -gains[segment])
            kept = _fewest(maker, order, top1_float, max_drop)
        top1 = maker.scored(kept)[1]
    return MixedPrecision(
        float_segments=kept, top1_float=top1_float, top1_int8=top1_int8, top1=top1, gains_db=gains, tried=maker.tried
    )


def _fewest(maker: "_Maker", order: Sequence[int], top1_float: float, max_drop: float) -> tuple[int, ...]:
    low, high = 1, SEGMENTS - 1

    def chosen(count: int) -> tuple[int, ...]:
        return tuple(sorted(order[:count]))

    best = top1_float - maker.scored(chosen(high))[1]
    if best > max_drop:
        raise ExportError(
            f"no mixed int8 file stays within {max_drop:g} points: with one segment of {SEGMENTS} in int8 "
            f"top-1 still falls by {best:.2f}; allow more, or train for int8"
        )
    while low < high:
        middle = (low + high) // 2
        if top1_float - maker.scored(chosen(middle))[1] <= max_drop:
            high = middle
        else:
            low = middle + 1
    return chosen(high)


class _Maker:
    """Makes each file once and remembers what it was worth."""

    def __init__(self, make: Make, score: Score, folder: Path, tell: Callable[[str], None]) -> None:
        self._make, self._score, self._folder, self._tell = make, score, folder, tell
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
        """(SNR in dB, top-1 in percent)"""
        snr_db = self.snr_db(segments)
        if segments not in self._top1:
            self._tell(f"top-1 with {_named(segments)}")
            self._top1[segments] = self._score(self._path(segments) / self._files[segments].path)
        return snr_db, self._top1[segments]

    def _path(self, segments: tuple[int, ...]) -> Path:
        return self._folder / ("-".join(map(str, segments)) or "none")

    def _file(self, segments: tuple[int, ...]) -> Artifact:
        if segments not in self._files:
            self._tell(_named(segments))
            result = self._make(segments, self._path(segments))
            if result.artifact is None:
                raise ExportError(result.reason)
            self._files[segments] = result.artifact
        return self._files[segments]


def _named(segments: tuple[int, ...]) -> str:
    return f"segments {', '.join(map(str, segments))} of {SEGMENTS} in float" if segments else "everything in int8"
