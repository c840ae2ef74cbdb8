"""Evaluations → chart specifications: confusion matrix, calibration, confidence, recall by class."""

from html import escape

from mobilezoo.evaluation_report import CalibrationBin, ClassScore, EvaluationReport
from mobilezoo.report.figures import Figure

NUMBERED = 12
"""Most classes of a matrix whose cells have numbers."""
LONGEST_NAME = 18
HOVER = "%{text} images, %{z:.1%} of the class"


def matrix_figure(report: EvaluationReport) -> Figure:
    """The confusion matrix: a row per true class; right and wrong answers have a color scale each, as shares of a row.

    Args:
        report: one with all confusions.
    """
    place = {one.index: number for number, one in enumerate(report.classes)}
    names = [escape(shortened_name(one.label)) for one in report.classes]
    images = [one.images for one in report.classes]
    cells = [(place[one.truth], place[one.guess], one.images) for one in report.confusions]
    data = []
    for role in ("right", "wrong"):
        shown = [cell for cell in cells if (cell[0] == cell[1]) == (role == "right")]
        shares: list[list[float | None]] = [[None] * len(names) for _ in names]
        counts: list[list[int | str]] = [[""] * len(names) for _ in names]  # Plotly writes None as a word
        for truth, guess, count in shown:
            shares[truth][guess], counts[truth][guess] = round(count / images[truth], 4), count
        most = max((value for row in shares for value in row if value is not None), default=1)
        data.append(
            {
                "type": "heatmap",
                "z": shares,
                "text": counts,
                "texttemplate": "%{text}" if len(names) <= NUMBERED else "",
                "zmin": 0,
                "zmax": 1 if role == "right" else most,
                "xgap": 1,
                "ygap": 1,
                "showscale": False,
                "hoverongaps": False,
                "meta": {"role": role},
                "hovertemplate": f"<b>%{{y}}</b> taken for <b>%{{x}}</b><br>{HOVER}<extra></extra>",
                "x": list(range(len(names))),
                "y": list(range(len(names))),
            }
        )
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False, "zeroline": False}
    layout = {
        "xaxis": {**ticks, "title": {"text": "answered"}, "tickangle": -90 if len(names) > NUMBERED else -45},
        "yaxis": {**ticks, "title": {"text": "true class"}, "autorange": "reversed"},
    }
    height = 170 + (40 if len(names) <= NUMBERED else 19) * len(names)
    note = "Shares of a row: what is right in blue, what is wrong in orange, darkest where it is most frequent."
    return {"title": "Confusion matrix", "data": data, "layout": layout, "height": height, "note": note}


def calibration_figure(report: EvaluationReport) -> Figure:
    """Accuracy over confidence; a calibrated network lies on the diagonal.

    Args:
        report: the evaluation.
    """
    bins = [one for one in report.calibration if one.images]
    line = {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "line": {"width": 1.5, "dash": "dot"}}
    curve = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "measured",
        "x": [round(one.confidence, 4) for one in bins],
        "y": [round(one.correct / one.images, 4) for one in bins],
        "customdata": [one.images for one in bins],
        "marker": {"size": [round(7 + 17 * (one.images / report.images) ** 0.5, 1) for one in bins]},
        "line": {"width": 2},
        "meta": {"series": 0},
        "hovertemplate": "confidence %{x:.1%}<br>right %{y:.1%}<br>%{customdata:,} images<extra></extra>",
    }
    perfect = {**line, "name": "perfectly calibrated", "meta": {"role": "front"}, "hoverinfo": "skip"}
    layout = {
        "xaxis": {"title": {"text": "confidence"}, "range": [-0.03, 1.05], "tickformat": ".0%"},
        "yaxis": {"title": {"text": "right"}, "range": [-0.03, 1.05], "tickformat": ".0%"},
    }
    note = f"Expected calibration error {report.ece:.2%}. Larger dots hold more images."
    return {"title": "Calibration", "data": [perfect, curve], "layout": layout, "height": 330, "note": note}


def confidence_figure(bins: tuple[CalibrationBin, ...]) -> Figure:
    """How many images are answered with which confidence, right and wrong ones stacked.

    Args:
        bins: of the evaluation.
    """
    kinds = (("right", 0, [b.correct for b in bins]), ("wrong", 1, [b.images - b.correct for b in bins]))
    data = [
        {
            "type": "bar",
            "name": name,
            "x": [round((one.low + one.high) / 2, 4) for one in bins],
            "y": counts,
            "customdata": [f"{one.low:.0%} to {one.high:.0%}" for one in bins],
            "meta": {"series": series},
            "hovertemplate": "%{customdata}: %{y:,} " + name + "<extra></extra>",
        }
        for name, series, counts in kinds
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.08,
        "xaxis": {"title": {"text": "confidence"}, "range": [0, 1], "tickformat": ".0%"},
        "yaxis": {"title": {"text": "images"}, "tickformat": "~s"},
    }
    return {"title": "Confidence of right and wrong answers", "data": data, "layout": layout, "height": 330}


def recall_figure(classes: tuple[ClassScore, ...]) -> Figure:
    """Recall of many classes, sorted; of a file with that of PyTorch in the same order.

    Args:
        classes: those of the evaluation.
    """
    ranked = sorted((one for one in classes if one.images), key=lambda one: one.recall or 0)
    names = [escape(shortened_name(one.label)) for one in ranked]
    lines = [("recall", 0, [one.correct / one.images for one in ranked])]
    if ranked and ranked[0].pytorch_correct is not None:
        lines.append(("PyTorch's", 1, [(one.pytorch_correct or 0) / one.images for one in ranked]))
    data = [
        {
            "type": "scatter",
            "mode": "lines" if name == "recall" else "markers",
            "name": name,
            "x": list(range(1, len(ranked) + 1)),
            "y": [round(value, 4) for value in values],
            "text": names,
            "line": {"width": 2},
            "marker": {"size": 4},
            "opacity": 1 if name == "recall" else 0.5,
            "meta": {"series": series},
            "showlegend": len(lines) > 1,
            "hovertemplate": "%{text}: %{y:.1%}<extra>" + name + "</extra>",
        }
        for name, series, values in lines
    ]
    layout = {
        "xaxis": {"title": {"text": "classes, worst first"}},
        "yaxis": {"title": {"text": "recall"}, "range": [-0.03, 1.05], "tickformat": ".0%"},
    }
    return {"title": "Recall by class", "data": data, "layout": layout, "height": 330}


def shortened_name(label: str) -> str:
    """A class name for an axis."""
    return label if len(label) <= LONGEST_NAME else f"{label[: LONGEST_NAME - 1]}…"
