"""Records → chart specifications: Plotly's data and layout as plain JSON, without colors.

Colors belong to the page: a trace names a role (`meta.series`, `meta.role`) and the page's script paints it from the
CSS variables of the light or dark theme. All text is escaped here, because Plotly renders a subset of HTML in labels.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from mobilezoo.report.curves import Curves
from mobilezoo.report.tables import LatencyRow

Figure = dict[str, Any]

MAX_POINTS = 4000
"""Most points of one chart: a page with more is slow to scroll and prints megabytes."""
MAX_SAMPLES = 400
"""Most dots of one box."""

SERIES = 8
"""Number of series colors in the page's style; later series repeat them with another dash."""
DASHES = ("solid", "dash", "dot")
LABELS = {
    "val_top1": ("Validation top-1", "%"),
    "val_loss": ("Validation loss", ""),
    "train_loss": ("Training loss", ""),
    "val_top5": ("Validation top-5", "%"),
    "lr": ("Learning rate", ""),
    "images_per_s": ("Throughput", "images/s"),
    "data_wait_share": ("Time spent waiting for data", "share"),
    "memory_mb": ("Memory", "MB"),
    "bad_images": ("Unreadable images", ""),
}
"""Known metrics in the order they are shown; others follow under their own names."""


def evenly(count: int, most: int) -> list[int]:
    """Selects indices evenly, the first and the last among them.

    Args:
        count: length of the sequence.
        most: most indices, at least 2.
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def training_figures(runs: Sequence[Curves]) -> list[Figure]:
    """One chart per metric, one line per run; train and validation loss share a chart."""
    names = dict.fromkeys([*LABELS, *(n for run in runs for n in run.columns if n != "epoch")])
    shown = [n for n in names if any(v for run in runs for v in run.columns.get(n, []))]
    figures = []
    if losses := [n for n in ("train_loss", "val_loss") if n in shown]:
        figures.append(_lines("Loss", "", runs, losses))
    for name in shown:
        if name not in losses:
            title, unit = LABELS.get(name, (name, ""))
            figures.append(_lines(title, unit, runs, [name]))
    figures.sort(key=lambda figure: figure["title"] != "Validation top-1")
    return figures


def _lines(title: str, unit: str, runs: Sequence[Curves], columns: Sequence[str]) -> Figure:
    data = []
    most = max(2, MAX_POINTS // (len(runs) * len(columns)))
    for index, run in enumerate(runs):
        kept = evenly(len(run.x), most)
        for column in columns:
            if column not in run.columns:
                continue
            word = column.split("_")[0] if len(columns) > 1 else ""
            name = " ".join(part for part in (run.name if len(runs) > 1 else "", word) if part)
            faint = len(columns) > 1 and column == "train_loss"
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": escape(name or title),
                    "x": [run.x[i] for i in kept],
                    "y": [run.columns[column][i] for i in kept],
                    "line": {"width": 2, "dash": "dot" if faint else DASHES[index // SERIES % len(DASHES)]},
                    "meta": {"series": index % SERIES},
                    "showlegend": len(runs) > 1 or len(columns) > 1,
                    "hovertemplate": "%{y:.4~g}<extra>%{fullData.name}</extra>",
                }
            )
    layout = {
        "hovermode": "x unified",
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": escape(unit)}, "tickformat": "~s" if unit == "images/s" else ""},
    }
    thinned = any(len(run.x) > most for run in runs)
    note = f"Of each line {most:,} epochs are drawn, evenly apart." if thinned else ""
    return {"title": title, "data": data, "layout": layout, "height": 300, "note": note}


def latency_figure(rows: Sequence[LatencyRow]) -> Figure:
    """The artifacts of one device kind: a box of all samples and dots of some per artifact, fastest on top."""
    rows = sorted(rows, key=lambda row: row.summary.median_ms)
    upper = max(row.summary.p99_ms for row in rows) * 1.15
    wide = rows[-1].summary.median_ms > 20 * rows[0].summary.median_ms
    most = max(2, min(MAX_SAMPLES, MAX_POINTS // len(rows)))
    data, labels = [], []
    for index, row in enumerate(rows):
        at = len(rows) - 1 - index
        data += [_box(row, at), _dots(row, at, most)]
        name = escape(row.label) + (" · <i>noisy</i>" if row.noisy else "")
        labels.append(
            {"xref": "paper", "x": 0, "y": at + 0.42, "xanchor": "left", "yanchor": "middle", "showarrow": False}
            | {"text": name, "align": "left"}
        )
    low = min(min(row.samples_ms) for row in rows)
    layout = {
        "showlegend": False,
        "annotations": labels,
        "xaxis": {
            "title": {"text": "milliseconds per image" + (" (log scale)" if wide else "")},
            "type": "log" if wide else "linear",
            "range": [math.log10(low * 0.85), math.log10(upper)] if wide else [0, upper],
        },
        "yaxis": {"range": [-0.45, len(rows) - 0.35], "showticklabels": False, "showgrid": False, "zeroline": False},
    }
    height = 90 + 62 * len(rows)
    return {"title": "", "data": data, "layout": layout, "height": height, "note": _samples_note(rows, upper, most)}


def _samples_note(rows: Sequence[LatencyRow], upper: float, most: int) -> str:
    """Describes what the chart leaves out."""
    of = f"of {sum(len(row.samples_ms) for row in rows):,} samples"
    beyond = sum(sample > upper for row in rows for sample in row.samples_ms)
    words = [f"{beyond:,} {of} lie beyond the axis."] if beyond else []
    if any(len(row.samples_ms) > most for row in rows):
        words.append(f"{most:,} dots per file at most, evenly by rank; boxes are {of.replace('of', 'of all', 1)}.")
    return " ".join(words)


def _box(row: LatencyRow, at: int) -> Figure:
    """Quartiles of all samples; the whiskers end at the last samples within 1.5 times the box."""
    samples = np.sort(row.samples_ms)
    low, high = np.percentile(samples, (25, 75))
    within = samples[(samples >= low - 1.5 * (high - low)) & (samples <= high + 1.5 * (high - low))]
    return {
        "type": "box",
        "orientation": "h",
        "name": escape(row.label),
        "q1": [float(low)],
        "median": [row.summary.median_ms],
        "q3": [float(high)],
        "lowerfence": [float(within[0])],
        "upperfence": [float(within[-1])],
        "y": [at],
        "width": 0.42,
        "line": {"width": 1.5},
        "meta": {"series": row.series % SERIES},
        "hoverinfo": "x",
    }


def _dots(row: LatencyRow, at: int, most: int) -> Figure:
    """Samples across the box, their heights spread by the golden ratio so that none lie in a row.

    All are one path, each a stroke as long as it is wide: so many markers make a slow page and a large print.
    """
    samples = sorted(row.samples_ms)
    kept = [samples[i] for i in evenly(len(samples), most)]
    heights = [at + 0.36 * (0.618034 * n % 1 - 0.5) for n in range(len(kept))]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escape(row.label),
        "x": [x for sample in kept for x in (sample, sample, None)],
        "y": [y for height in heights for y in (round(height, 3), round(height + 0.05, 3), None)],
        "line": {"width": 2.5},
        "opacity": 0.35,
        "meta": {"series": row.series % SERIES},
        "hoverinfo": "x",
    }
