"""The section of a search: charts, the front as pictures, and the networks that were trained in full."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mobilezoo.report.figures import Figure
from mobilezoo.report.importance import importances
from mobilezoo.report.picture import architecture_svg, describe
from mobilezoo.report.search_figures import criterion_figures, front_figure, importance_figure, reward_figure
from mobilezoo.search.finetune_result import FinetuneResult
from mobilezoo.search.records import SearchResult, TrialRecord


@dataclass(frozen=True)
class FinetuneFound:
    """A network of a search, trained in full."""

    record: FinetuneResult
    files: tuple[tuple[Path, str], ...]
    """Its weights and its exported file, each with its fault; empty for a good one."""


@dataclass(frozen=True)
class SearchFound:
    """A search and its fine-tuned networks."""

    result: SearchResult
    finetunes: tuple[FinetuneFound, ...] = ()


def search_section(index: int, found: SearchFound, page: Path, add: Callable[[str, Figure], Figure]) -> dict[str, Any]:
    """Returns the template's values for one search.

    Args:
        index: position of the search on the page, from 0; makes its anchors unique.
        found: the search and its fine-tuned networks.
        page: path of the page, from whose folder links lead.
        add: keeps a chart under a key and returns what the template needs of it.
    """
    search = found.result
    mark = f"-{index + 1}" if index else ""
    done = [t for t in search.trials if t.state == "complete" and t.latency]
    shares = importances(search)
    return {
        "anchor": f"search{mark}",
        "result": search,
        "complete": len(done),
        "ended": [t for t in search.trials if t.state != "complete"],
        "front": add(f"front{mark}", front_figure(search)) if done else None,
        "further": [add(f"front{mark}-{i}", f) for i, f in enumerate(criterion_figures(search))] if done else [],
        "reward": add(f"reward{mark}", reward_figure(search)) if done else None,
        "importance": add(f"importance{mark}", importance_figure(shares)) if shares else None,
        "best": None if search.best is None else _member(search, search.trial(search.best)),
        "finetunes": [_finetune(search, one, page) for one in found.finetunes],
        "members": [_member(search, search.trial(number)) for number in search.front],
    }


def _finetune(search: SearchResult, found: FinetuneFound, page: Path) -> dict[str, Any]:
    """A fine-tuned network: its figures before and after, and links to its files."""
    done = found.record
    before = done.search_latency
    rows = [("top-1 in %", _percent(done.search_top1), f"{_percent(done.top1)} (file {done.file_top1:.2f})")]
    for number, (device, estimate) in enumerate(done.latency.items()):
        rows.append((f"ms on {device}", f"{before.ms:.3g}" if before and not number else "–", f"{estimate.ms:.3g}"))
    if not done.latency and before:
        rows.append(("ms", f"{before.ms:.3g}", "–"))
    known = any(trial.number == done.number for trial in search.trials)
    files = [{"name": path.name, "href": _href(path, page), "fault": fault} for path, fault in found.files]
    return {"number": done.number, "known": known, "rows": rows, "files": files}


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _href(path: Path, page: Path) -> str:
    """The file as a link in the page: relative, so that both may move together."""
    try:
        return quote(Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix())
    except ValueError:  # another drive
        return path.resolve().as_uri()


def _member(search: SearchResult, trial: TrialRecord) -> dict[str, Any]:
    """A network of the front: figures, picture, and the words for its stages."""
    assert trial.point is not None
    number = search.front.index(trial.number) if trial.number in search.front else None
    path = None if number is None or number >= len(search.front_yaml) else search.front_yaml[number]
    words = [describe(stage) for stage in trial.point.stages]
    return {
        "trial": trial,
        "svg": architecture_svg(trial.point, f"Architecture of trial {trial.number}"),
        "stages": list(zip(words, trial.arch, strict=False)),
        "yaml": path,
        "more": _more(trial),
    }


def _more(trial: TrialRecord) -> list[str]:
    """Second measurements, other devices, size and memory of a front member, in words."""
    lines = [f"measured again: {estimate.ms:.3g} ms on {device}" for device, estimate in trial.remeasured.items()]
    lines += [f"{estimate.ms:.3g} ms on {device}" for device, estimate in trial.elsewhere.items()]
    lines += [f"{trial.size_mb:.2f} MB"] if trial.size_mb is not None else []
    return lines + ([f"{trial.memory_mb:.1f} MB of memory"] if trial.memory_mb is not None else [])
