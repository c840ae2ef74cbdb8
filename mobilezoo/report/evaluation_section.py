"""The section of an evaluation: key figures, charts, confusions, classes, and mistakes as pictures."""

from collections.abc import Callable
from typing import Any

from mobilezoo.evaluation_report import ClassScore, EvaluationReport, percent
from mobilezoo.report.evaluation_figures import calibration_figure, confidence_figure, matrix_figure, recall_figure
from mobilezoo.report.figures import Figure

SHOWN_CONFUSIONS = 15
SHOWN_CLASSES = 20
"""Rows that are always open; more classes are folded away."""
MOST_CLASSES = 1000
"""Rows of a table; of more classes the worst ones are shown."""


def evaluation_section(index: int, report: EvaluationReport, add: Callable[[str, Figure], Figure]) -> dict[str, Any]:
    """Returns the template's values for one evaluation.

    Args:
        index: position of the evaluation on the page, from 0; makes its anchors unique.
        report: the evaluation.
        add: keeps a chart under a key and returns what the template needs of it.
    """
    mark = f"evaluation-{index + 1}"
    names = {one.index: one.label for one in report.classes}
    images = {one.index: one.images for one in report.classes}
    small = report.complete and len(report.classes) > 1
    charts = [calibration_figure(report), confidence_figure(report.calibration)]
    charts += [] if small else [recall_figure(report.classes)]
    ranked = sorted(report.classes, key=_worst_first)[:MOST_CLASSES]
    wrong = [one for one in report.confusions if one.truth != one.guess][:SHOWN_CONFUSIONS]
    return {
        "anchor": mark,
        "report": report,
        "cards": _cards(report),
        "matrix": add(f"{mark}-matrix", matrix_figure(report)) if small else None,
        "charts": [add(f"{mark}-{i}", figure) for i, figure in enumerate(charts)],
        "confusions": [(names[one.truth], names[one.guess], one.images, images[one.truth]) for one in wrong],
        "compared": report.agreement is not None,
        "classes": [_class_row(one) for one in ranked],
        "open": SHOWN_CLASSES,
        "hidden": len(report.classes) - len(ranked),
        "mistakes": [(one, names[one.truth], names[one.guess]) for one in report.mistakes],
    }


def _worst_first(one: ClassScore) -> tuple[bool, float, int]:
    """Classes without images last."""
    return (one.images == 0, one.recall or 0.0, one.index)


def _class_row(one: ClassScore) -> dict[str, Any]:
    agreed = one.agreed
    pytorch = one.pytorch_correct
    return {
        "score": one,
        "agreed": None if agreed is None else percent(agreed, one.images),
        "pytorch": None if pytorch is None else percent(pytorch, one.images),
    }


def _cards(report: EvaluationReport) -> list[dict[str, str]]:
    """The key figures of an evaluation."""
    drop = "" if report.pytorch_top1 is None else f"PyTorch {report.pytorch_top1:.2f} %"
    recalls = [one.recall for one in report.classes if one.recall is not None]
    worst = min((one for one in report.classes if one.images), key=_worst_first)
    cards = [
        {"label": "top-1", "value": f"{report.top1:.2f}", "unit": "%", "detail": drop},
        {"label": "top-5", "value": f"{report.top5:.2f}", "unit": "%"},
        {"label": "mean recall of classes", "value": f"{sum(recalls) / len(recalls):.2f}", "unit": "%"}
        | {"detail": f"worst: {worst.label}, {worst.recall:.1f} %"},
        {"label": "calibration error", "value": f"{100 * report.ece:.2f}", "unit": "%"},
    ]
    if report.agreement is not None:
        changed = round((1 - report.agreement) * report.images)
        cards.append(
            {"label": "same answer as PyTorch", "value": f"{100 * report.agreement:.2f}", "unit": "%"}
            | {"detail": f"{changed:,} of {report.images:,} images differ"}
        )
    return cards
