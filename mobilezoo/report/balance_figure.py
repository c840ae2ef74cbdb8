"""Images per class of a run's data → chart specification."""

from collections.abc import Sequence
from html import escape

from mobilezoo.evaluation_report import MATRIX_CLASSES
from mobilezoo.report.evaluation_figures import shortened_name
from mobilezoo.report.figures import Figure
from mobilezoo.training_preview import ClassBalance


def balance_figure(classes: Sequence[ClassBalance]) -> Figure:
    """Bars of both splits, the largest class first; of many classes two lines.

    Args:
        classes: of the run.
    """
    ranked = sorted(classes, key=lambda one: -one.train)
    few = len(ranked) <= MATRIX_CLASSES
    data = [
        {
            "type": "bar" if few else "scatter",
            "name": name,
            "x": list(range(1, len(ranked) + 1)),
            "y": values,
            "text": [escape(one.label) for one in ranked],
            "meta": {"series": series},
            "hovertemplate": "%{text}: %{y:,}<extra>" + name + "</extra>",
            **({"textposition": "none"} if few else {"mode": "lines", "line": {"width": 2}}),
        }
        for series, (name, values) in enumerate(
            (("training", [one.train for one in ranked]), ("validation", [one.validation for one in ranked]))
        )
    ]
    xaxis: Figure = {"title": {"text": "" if few else "classes, largest first"}}
    if few:
        names = [escape(shortened_name(one.label)) for one in ranked]
        xaxis |= {"tickvals": list(range(1, len(ranked) + 1)), "ticktext": names, "tickangle": -45}
    layout = {"xaxis": xaxis, "yaxis": {"title": {"text": "images"}, "tickformat": "~s"}}
    return {"title": "Images per class", "data": data, "layout": layout, "height": 300, "note": _spread(ranked)}


def _spread(ranked: Sequence[ClassBalance]) -> str:
    """How uneven the classes are."""
    if not ranked:
        return ""
    most, least = ranked[0], ranked[-1]
    return f"{most.train:,} training images in the largest class, {least.train:,} in the smallest."
