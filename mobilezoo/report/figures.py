"""Records → chart specifications: Plotly's data and layout as plain JSON, without colours.

Colours belong to the page: a trace names a role (`meta.series`, `meta.role`) and the page's script paints it from the
CSS variables of the light or dark theme. All text is escaped here, because Plotly renders a subset of HTML in labels.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

from mobilezoo.report.curves import Curves
from mobilezoo.report.tables import LatencyRow
from mobilezoo.search.records import SearchResult, TrialRecord

Figure = dict[str, Any]

SERIES = 8
"""Number of series colours the page knows; later series repeat them with another dash."""
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
    for index, run in enumerate(runs):
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
                    "x": run.x,
                    "y": run.columns[column],
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
    return {"title": title, "data": data, "layout": layout, "height": 300}


def latency_figure(rows: Sequence[LatencyRow]) -> Figure:
    """All samples of the artefacts of one device kind: a box and its points per artefact, fastest on top."""
    rows = sorted(rows, key=lambda row: row.summary.median_ms)
    upper = max(row.summary.p99_ms for row in rows) * 1.15
    wide = rows[-1].summary.median_ms > 20 * rows[0].summary.median_ms
    data, labels = [], []
    for index, row in enumerate(rows):
        at = len(rows) - 1 - index
        data.append(_box(row, at))
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
    beyond = sum(sample > upper for row in rows for sample in row.samples_ms)
    note = f"{beyond} of {sum(len(r.samples_ms) for r in rows)} samples lie beyond the axis." if beyond else ""
    return {"title": "", "data": data, "layout": layout, "height": 90 + 62 * len(rows), "note": note}


def _box(row: LatencyRow, at: int) -> Figure:
    return {
        "type": "box",
        "orientation": "h",
        "name": escape(row.label),
        "x": list(row.samples_ms),
        "y": [at] * len(row.samples_ms),
        "boxpoints": "all",
        "jitter": 0.5,
        "pointpos": 0,
        "width": 0.42,
        "line": {"width": 1.5},
        "marker": {"size": 3, "opacity": 0.35},
        "meta": {"series": row.series % SERIES},
        "hoverinfo": "x",
    }


def front_figure(search: SearchResult) -> Figure:
    """Accuracy against latency of every finished network, coloured by reward, with the front and the target.

    Networks of the front that were measured again are drawn there too.
    """
    done = [t for t in search.trials if t.state == "complete" and t.duplicate_of is None and t.latency]
    front = [search.trial(number) for number in search.front]
    best = [t for t in done if t.number == search.best]
    data: list[Figure] = []
    if front and len(search.criteria) == 2:  # a front of more criteria is no line here
        line = _scatter(front, "front", _first_ms) | {"mode": "lines", "line": {"width": 2, "shape": "hv"}}
        data.append(line | {"meta": {"role": "front"}, "hoverinfo": "skip"})
    points = _scatter(done, "networks", _first_ms) | {"meta": {"role": "reward"}}
    points["marker"] = {
        "size": 9,
        "line": {"width": 1},
        "color": [t.reward for t in done],
        "colorbar": {"title": {"text": "reward", "side": "right"}, "thickness": 10, "outlinewidth": 0},
    }
    data.append(points)
    if best:
        mark = {"marker": {"size": 17, "symbol": "star", "line": {"width": 1}}, "meta": {"role": "best"}}
        data.append(_scatter(best, "highest reward", _first_ms) | mark)
    again = [t for t in front if t.remeasured]
    if again:
        ring = {"marker": {"size": 9, "symbol": "circle-open", "line": {"width": 2}}, "meta": {"series": 1}}
        data.append(_scatter(again, "front, measured again", _again_ms) | ring)
    target = search.objective.target_ms
    layout = {
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": {"title": {"text": "latency in ms" + _on(search.devices[:1])}},
        "yaxis": {"title": {"text": "top-1 in %"}},
        "shapes": [{"type": "line", "x0": target, "x1": target, "yref": "paper", "y0": 0, "y1": 1}],
        "annotations": [
            {"x": target, "yref": "paper", "y": 0, "text": f"target {target:g} ms", "showarrow": False}
            | {"xanchor": "left", "yanchor": "bottom", "xshift": 4}
        ],
    }
    return {"title": "", "data": data, "layout": layout, "height": 460}


def criterion_figures(search: SearchResult) -> list[Figure]:
    """Accuracy against each further criterion: other devices, size, memory."""
    done = [t for t in search.trials if t.state == "complete" and t.duplicate_of is None and t.latency]
    chosen = [t for t in done if t.number in search.front]
    figures = []
    for name in search.criteria[2:]:
        at = partial(criterion, name=name)
        points = _scatter(done, "networks", at) | {"meta": {"series": 0}}
        marks = _scatter(chosen, "front", at) | {"meta": {"series": 1}}
        words = {"size_mb": "size in MB", "memory_mb": "peak memory in MB"}
        layout = {
            "hovermode": "closest",
            "xaxis": {"title": {"text": words.get(name) or "latency in ms" + _on([name.removesuffix("_ms")])}},
            "yaxis": {"title": {"text": "top-1 in %"}},
        }
        data = [points | {"marker": {"size": 6}}, marks | {"marker": {"size": 9}}]
        figures.append({"title": words.get(name) or name.removesuffix("_ms"), "data": data, "layout": layout})
    return [figure | {"height": 300} for figure in figures]


def criterion(trial: TrialRecord, name: str) -> float | None:
    """A trial's value of one of `SearchResult.criteria`."""
    if name in ("top1", "size_mb", "memory_mb"):
        value: float | None = getattr(trial, name)
        return value
    estimate = trial.elsewhere.get(name.removesuffix("_ms"), trial.latency)
    return estimate.ms if estimate else None


def importance_figure(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Bars per choice, the most important on top: its share of the variance of reward, top-1 and latency."""
    names = list(shares)[::-1]
    words = list(next(iter(shares.values())))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": word,
            "x": [100 * shares[name][word] for name in names],
            "y": [escape(name) for name in names],
            "meta": {"series": index},
            "hovertemplate": "%{x:.1f}% of the variance<extra>%{fullData.name}</extra>",
        }
        for index, word in enumerate(words)
    ]
    layout = {
        "barmode": "group",
        "xaxis": {"title": {"text": "share of the variance in %"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": ""}, "tickmode": "linear", "dtick": 1},
        "legend": {"traceorder": "normal"},
    }
    return {"title": "", "data": data, "layout": layout, "height": 110 + 30 * len(names)}


def _on(devices: Sequence[str]) -> str:
    return f" on {escape(devices[0])}" if devices else ""


def _first_ms(trial: TrialRecord) -> float | None:
    return trial.latency.ms if trial.latency else None


def _again_ms(trial: TrialRecord) -> float | None:
    return next(iter(trial.remeasured.values())).ms


def _scatter(trials: Sequence[TrialRecord], name: str, x: Callable[[TrialRecord], float | None]) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [x(t) for t in trials],
        "y": [t.top1 for t in trials],
        "text": [_hover(t) for t in trials],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _hover(trial: TrialRecord) -> str:
    assert trial.latency is not None
    assert trial.top1 is not None
    assert trial.reward is not None
    lines = [
        f"<b>trial {trial.number}</b>",
        f"{trial.top1:.2f}% top-1 · {trial.latency.ms:.3g} ms · reward {trial.reward:.4f}",
        *(f"{e.ms:.3g} ms on {escape(device)}" for device, e in trial.elsewhere.items()),
        *(f"{e.ms:.3g} ms again on {escape(device)}" for device, e in trial.remeasured.items()),
        *(escape(stage) for stage in trial.arch),
        f"<i>{escape(trial.latency.source)}</i>",
    ]
    return "<br>".join(lines)


def reward_figure(search: SearchResult) -> Figure:
    """Reward of each trial in order and the best so far."""
    rewards = [(t.number, t.reward) for t in search.trials if t.reward is not None]
    best, reached = [], -math.inf
    for _, reward in rewards:
        reached = max(reached, reward)
        best.append(reached)
    numbers = [number for number, _ in rewards]
    dots = {"type": "scatter", "mode": "markers", "name": "trial", "x": numbers, "y": [r for _, r in rewards]}
    line = {"type": "scatter", "mode": "lines", "name": "best so far", "x": numbers, "y": best}
    layout = {
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": {"title": {"text": "trial"}},
        "yaxis": {"title": {"text": "reward"}},
    }
    data = [
        line | {"line": {"width": 2, "shape": "hv"}, "meta": {"role": "front"}},
        dots | {"marker": {"size": 7}, "meta": {"series": 0}},
    ]
    return {"title": "", "data": data, "layout": layout, "height": 300}
