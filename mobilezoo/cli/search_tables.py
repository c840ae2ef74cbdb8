"""Searches as tables."""

from typing import TYPE_CHECKING

from mobilezoo.cli.tables import print_table

if TYPE_CHECKING:
    from mobilezoo.search.finetune_result import FinetuneResult
    from mobilezoo.search.records import LatencyEstimate, SearchResult, TrialRecord
    from mobilezoo.search.results import SearchStatus


def print_front(result: "SearchResult") -> None:
    """The front, fastest first: latencies of the search, those measured again, and where the YAMLs lie."""
    members = [result.trial(number) for number in result.front]
    again = list(dict.fromkeys(device for member in members for device in member.remeasured))
    further = [name for name in ("size_mb", "memory_mb") if name in result.criteria]
    devices = result.devices or ("device",)
    columns = ("network", "top-1 %", *(f"{d} ms" for d in devices), *(f"{d} ms again" for d in again))
    rows = []
    for member, file in zip(members, result.front_yaml, strict=True):
        latencies = [member.latency, *member.elsewhere.values()]
        measured = [_ms(member.remeasured.get(device)) for device in again]
        figures = [f"{getattr(member, name):.3f}" for name in further]
        best = "best" if member.number == result.best else ""
        rows.append(
            (file, f"{member.top1:.2f}", *map(_ms, latencies), *measured, *figures, f"{member.reward:.4f}", best)
        )
    names = {"size_mb": "size MB", "memory_mb": "memory MB"}
    title = f"front of {len(result.trials)} trials"
    print_table(title, (*columns, *(names[name] for name in further), "reward", ""), rows)
    for source in dict.fromkeys(m.latency.source for m in members if m.latency):
        print(f"latency {source}")


def _ms(estimate: "LatencyEstimate | None") -> str:
    if estimate is None:
        return ""
    error = f" ±{estimate.error_percent:.0f}%" if estimate.error_percent is not None else ""
    return f"{estimate.ms:.3f}{error}{' noisy' if estimate.noisy else ''}"


def print_status(found: "SearchStatus") -> None:
    """States, the best so far, and who works on what."""
    done = sum(found.states[state] for state in ("complete", "pruned", "failed"))
    rows = [("trials", f"{done} of {found.limit}")]
    rows += [(state, str(count)) for state, count in found.states.items() if count]
    if found.seconds_per_trial is not None:
        rows.append(("seconds per trial", f"{found.seconds_per_trial:.1f} (median)"))
    if found.best is not None:
        rows.append(("best so far", _said(found.best)))
    rows += [(f"running trial {r.number}", f"{r.worker} since {r.since}") for r in found.running]
    print_table(f"{found.name}: {found.engine} in {found.storage}", ("what", ""), rows)


def _said(trial: "TrialRecord") -> str:
    ms = _ms(trial.latency)
    return f"trial {trial.number}: top-1 {trial.top1:.2f}%, ms: {ms}, reward {trial.reward or 0:.4f}"


def print_finetune(done: "FinetuneResult") -> None:
    """What the search said beside what came out."""
    rows: list[tuple[str, str, str]] = [
        ("top-1 %", _percent(done.search_top1), f"{_percent(done.top1)} (file: {done.file_top1:.2f})")
    ]
    first = next(iter(done.latency), None)
    rows += [(f"{d} ms", _ms(done.search_latency) if d == first else "", _ms(ms)) for d, ms in done.latency.items()]
    print_table(f"trial {done.number}, finished", ("what", "search", "finished"), rows)
    print(f"weights {done.checkpoint}\nfile    {done.file}")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
