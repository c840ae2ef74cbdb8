"""Searches → chart specifications, as in `figures`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape

from mobilezoo.report.figures import MAX_POINTS, Figure, evenly
from mobilezoo.search.records import SearchResult, TrialRecord


def front_figure(search: SearchResult) -> Figure:
    """Accuracy against latency of every finished network, colored by reward, with the front and the target.

    Networks of the front that were measured again are drawn there too.
    """
    every = _finished(search)
    done = _some(every)
    front = [search.trial(number) for number in search.front]
    best = [t for t in every if t.number == search.best]
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
    note = f"{len(done):,} of {len(every):,} networks are drawn, besides the front." if len(done) < len(every) else ""
    return {"title": "", "data": data, "layout": layout, "height": 460, "note": note}


def _finished(search: SearchResult) -> list[TrialRecord]:
    return [t for t in search.trials if t.state == "complete" and t.duplicate_of is None and t.latency]


def _some(trials: list[TrialRecord]) -> list[TrialRecord]:
    return [trials[i] for i in evenly(len(trials), MAX_POINTS)]


def criterion_figures(search: SearchResult) -> list[Figure]:
    """Accuracy against each further criterion: other devices, size, memory."""
    every = _finished(search)
    done = _some(every)
    chosen = [t for t in every if t.number in search.front]
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
    """Returns a trial's value of a criterion; None if it was not measured.

    Args:
        trial: a finished trial.
        name: one of `SearchResult.criteria`.
    """
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
    every = [(t.number, t.reward) for t in search.trials if t.reward is not None]
    rewards = [every[i] for i in evenly(len(every), MAX_POINTS // 2)]
    steps: list[tuple[int, float]] = []
    for number, reward in every:
        if not steps or reward > steps[-1][1]:
            steps.append((number, reward))
    steps += [(number, steps[-1][1]) for number, _ in every[-1:]]
    dots = {"type": "scatter", "mode": "markers", "name": "trial"} | _columns(rewards)
    line = {"type": "scatter", "mode": "lines", "name": "best so far"} | _columns(steps)
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


def _columns(pairs: Sequence[tuple[int, float]]) -> Figure:
    return {"x": [x for x, _ in pairs], "y": [y for _, y in pairs]}
