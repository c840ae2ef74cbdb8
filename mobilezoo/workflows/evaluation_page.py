"""What an evaluation saw → its record, and the page of `mobilezoo eval --report`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilezoo.errors import require, writable_place
from mobilezoo.evaluation_report import (
    EVALUATION,
    MATRIX_CLASSES,
    TOP_CONFUSIONS,
    CalibrationBin,
    ClassScore,
    Confusion,
    EvaluationReport,
)
from mobilezoo.files import sha256_of, write_text
from mobilezoo.workflows.tally import Seen, Tally

if TYPE_CHECKING:
    from mobilezoo.workflows.evaluate import Scores

BINS = 15
"""Of the calibration curve, of equal width, as Guo et al. (2017, https://arxiv.org/abs/1706.04599) have them."""
OTHER_ORDER = "the split came in another order for PyTorch than for the file: their answers are not compared"


def hash_of(model: str) -> str:
    """SHA-256 of the checkpoint or exported file that a name stands for; empty where there is none to be read.

    Args:
        model: as somebody named it, or as a record of any origin does: never a pipe, a device, or a whole disk.
    """
    from mobilezoo.workflows.load_model import WEIGHTS
    from mobilezoo_export.registry import file_suffixes

    path, of_files = Path(model), file_suffixes()
    try:
        is_one = path.suffix in (*WEIGHTS, ".safetensors", *of_files) and path.is_file()
        return sha256_of(path) if is_one or (path.suffix in of_files and path.is_dir()) else ""
    except (OSError, ValueError):  # a name that is no path here, or a place that is not ours to read
        return ""


def check_place(out: Path) -> None:
    """Raises MobilezooError where no page can be written, before the work for it is done."""
    require("jinja2", "report")
    require("plotly", "report")
    writable_place(out, "--report")


def evaluation_report(scores: "Scores", names: tuple[str, ...], seen: Seen, pytorch: Seen | None) -> EvaluationReport:
    """The record of an evaluation.

    Args:
        scores: of the network or file.
        names: of the outputs.
        seen: answers of the network or file.
        pytorch: of a file, answers of the network that it was made of.
    """
    note = ""
    if pytorch is not None and not np.array_equal(seen.truth, pytorch.truth):
        pytorch, note = None, OTHER_ORDER
    bins = calibration_bins(seen)
    images = len(seen.truth)
    confusions, complete = _confusions(seen)
    return EvaluationReport(
        model=scores.model,
        sha256=hash_of(scores.model),
        data=scores.data,
        runs_in=scores.runs_in,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        images=images,
        top1=scores.top1,
        top5=scores.top5,
        loss=scores.loss,
        output=scores.output or "logits",
        ece=sum(abs(one.correct - one.confidence * one.images) for one in bins if one.images) / images,
        agreement=None if pytorch is None else float(np.mean(seen.guess == pytorch.guess)),
        pytorch_top1=scores.pytorch.top1 if scores.pytorch is not None else None,
        note=note,
        classes=_classes(names, seen, pytorch),
        confusions=confusions,
        complete=complete,
        calibration=bins,
        mistakes=seen.mistakes,
    )


def _classes(names: tuple[str, ...], seen: Seen, pytorch: Seen | None) -> tuple[ClassScore, ...]:
    """The classes that occur or were answered, in the network's order."""

    def counted(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(chosen, minlength=len(names))

    truth, guess = seen.truth, seen.guess
    images, predicted, correct = counted(truth), counted(guess), counted(truth[truth == guess])
    compared: dict[str, np.ndarray] = {}
    if pytorch is not None:
        compared["agreed"] = counted(truth[guess == pytorch.guess])
        compared["pytorch_correct"] = counted(truth[truth == pytorch.guess])
    return tuple(
        ClassScore(
            index=int(index),
            label=names[index],
            images=int(images[index]),
            predicted=int(predicted[index]),
            correct=int(correct[index]),
            **{key: int(counts[index]) for key, counts in compared.items()},
        )
        for index in np.flatnonzero(images + predicted)
    )


def _confusions(seen: Seen) -> tuple[tuple[Confusion, ...], bool]:
    """Pairs of classes by frequency, and whether they are all; of many classes the most frequent mistakes."""
    pairs, counts = np.unique(np.stack((seen.truth, seen.guess)), axis=1, return_counts=True)
    complete = len(np.unique(pairs)) <= MATRIX_CLASSES
    if not complete:
        wrong = pairs[0] != pairs[1]
        pairs, counts = pairs[:, wrong], counts[wrong]
    order = np.argsort(-counts, kind="stable")
    found: list[Any] = [
        Confusion(truth=int(pairs[0, i]), guess=int(pairs[1, i]), images=int(counts[i])) for i in order
    ][: None if complete else TOP_CONFUSIONS]
    return tuple(found), complete


def calibration_bins(seen: Seen) -> tuple[CalibrationBin, ...]:
    """Confidence and right answers in `BINS` bins of equal width; a confidence on a bound belongs to the lower bin.

    Args:
        seen: answers with their confidence.
    """
    bounds = np.linspace(0, 1, BINS + 1)
    places = np.clip(np.searchsorted(bounds, seen.confidence, side="left") - 1, 0, BINS - 1)
    right = seen.truth == seen.guess
    found = []
    for place in range(BINS):
        inside = places == place
        low, high = float(bounds[place]), float(bounds[place + 1])
        found.append(
            CalibrationBin(
                low=low,
                high=high,
                images=int(inside.sum()),
                confidence=float(seen.confidence[inside].astype(np.float64).mean())
                if inside.any()
                else (low + high) / 2,
                correct=int((right & inside).sum()),
            )
        )
    return tuple(found)


class Watched:
    """The tallies of one evaluation and the page made of them; without a page, none of either."""

    def __init__(self, out: Path | None, *, of_file: bool) -> None:
        """`out` is the page; `of_file`: a file is scored, with or without the network it was made of."""
        self._out = out
        self.network = Tally(pictures=not of_file) if out is not None else None
        self.file = Tally() if out is not None and of_file else None

    def write(self, scores: "Scores") -> None:
        """Writes the page, and beside it the record, which `mobilezoo report` shows too.

        Args:
            scores: of the network or file.
        """
        from mobilezoo.report import ReportContents, build_report
        from mobilezoo.workflows.answers import UNITS

        if self._out is None or self.network is None:
            return
        pytorch = self.network.finish("logits") if scores.pytorch is not None else None
        tally, output = self.file or self.network, scores.output or "logits"
        report = evaluation_report(scores, tally.names, tally.finish(output, UNITS.get(output, 1.0)), pytorch)
        write_text(self._out.with_suffix(EVALUATION), report.model_dump_json() + "\n")
        build_report(self._out, ReportContents(title=f"Evaluation of {Path(scores.model).name}", evaluations=[report]))
