"""Flame graphs of a network's operators: widths proportional to time.

Timed operators stand below their type; counted ones below their type and the map they work on, in the network's order,
with their share of the core's peak. Plain SVG without scripts; hovering shows the figures (title elements).
"""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mobilezoo_export.records import OperatorProfile
    from mobilezoo_latency.emulator.operators import CountedOperator, CountedProfile

WIDTH, ROW, GAP = 1200, 34, 2
PEAK_ROW = 60
"""Height of a bar at the core's peak."""
COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999933", "#cc6677", "#88ccee", "#bbbbbb")
"""Paul Tol's bright scheme and three of his muted one, which color-blind readers can distinguish; the last is of all
further types."""
PLAIN = -1
LETTER_PX = 7.2


class Box(NamedTuple):
    """A labeled part of a row."""

    label: str
    title: str
    size: float
    color: int
    height: float = 1.0
    """Of the row's, 0..1."""


def flame(name: str, profile: "OperatorProfile | CountedProfile") -> str:
    """Draws the picture.

    Args:
        name: the file, for the top row.
        profile: per-operator times or counts.

    Returns:
        SVG text.
    """
    from mobilezoo_latency.emulator.operators import CountedProfile

    return _counted(name, profile) if isinstance(profile, CountedProfile) else _timed(name, profile)


def _timed(name: str, profile: "OperatorProfile") -> str:
    """Operators below their type, most expensive type first."""
    from mobilezoo_latency.operators import by_type

    types = by_type(profile.operators)
    whole = [
        Box(name, f"{name}: {profile.sum_ms:.3f} ms summed, {profile.whole_ms:.3f} ms as one", profile.sum_ms, PLAIN)
    ]
    middle = [
        Box(kind, f"{count} × {kind}: {ms:.3f} ms, {share:.1%}", ms, i)
        for i, (kind, count, ms, share) in enumerate(types)
    ]
    order = {kind: i for i, (kind, *_) in enumerate(types)}
    ordered = sorted(profile.operators, key=lambda op: (order[op.type], -op.ms))
    single = [
        Box(
            op.shape or op.name,
            f"{op.type} {op.shape} ({op.name}): {op.ms:.3f} ms, {op.share:.1%}",
            op.ms,
            order[op.type],
        )
        for op in ordered
    ]
    return _svg(f"time per operator of {name}", [whole, middle, single])


def _counted(name: str, profile: "CountedProfile") -> str:
    """Operators below their type and the map they work on, in the network's order, above their share of peak."""
    from mobilezoo_latency.emulator.operators import by_type

    order = {row.type: i for i, row in enumerate(by_type(profile))}
    stages, types, single = list[Box](), list[Box](), list[Box]()
    for stage, grouped in groupby(profile.operators, key=lambda op: op.stage):
        within = list(grouped)
        stages.append(_sum_of(stage or "no map", within, PLAIN))
        for kind in sorted({op.type for op in within}, key=lambda kind: order[kind]):
            alike = [op for op in within if op.type == kind]
            types.append(_sum_of(kind, alike, order[kind]))
            single += [
                Box(op.shape or op.name, _facts(op), op.cycles, order[kind], op.share_of_peak or 0) for op in alike
            ]
    sums = f"{profile.sum_cycles / 1e6:.2f} M cycles summed, {profile.whole_cycles / 1e6:.2f} M as one"
    whole = [Box(f"{name} on {profile.core}: {sums}", f"{name}: {sums}", profile.sum_cycles, PLAIN)]
    rows = [whole, stages, types, [box._replace(height=1.0) for box in single]]
    legend = [(row.type, f"{row.type} {row.share:.1%}") for row in by_type(profile)]
    return _svg(f"cycles per operator of {name}", rows, single, [text for _, text in legend])


def _sum_of(label: str, operators: "Sequence[CountedOperator]", color: int) -> Box:
    cycles, share = sum(op.cycles for op in operators), sum(op.share for op in operators)
    return Box(label, f"{len(operators)} operators, {label}: {cycles / 1e6:.3f} M cycles, {share:.1%}", cycles, color)


def _facts(op: "CountedOperator") -> str:
    peak = "" if op.share_of_peak is None else f", {op.share_of_peak:.0%} of peak in {op.computes_in}"
    macs = f", {op.macs / 1e6:.2f} M MACs" if op.macs else ""
    return f"{op.type} {op.shape} ({op.name}; {op.kernel}): {op.cycles / 1e6:.3f} M cycles, {op.share:.1%}{macs}{peak}"


def _svg(title: str, rows: Sequence[Sequence[Box]], peaks: Sequence[Box] = (), legend: Sequence[str] = ()) -> str:
    """Rows below each other, bars of the shares of peak, and a line of the types' colors."""
    drawn, y = [], 0.0
    for row in rows:
        drawn.append(_row(row, y, ROW))
        y += ROW + GAP
    if peaks:
        drawn.append(_row([box._replace(label="") for box in peaks], y, PEAK_ROW))
        drawn.append(f'<text x="4" y="{y + PEAK_ROW + 14:.0f}" fill="#000">bars: share of the core\'s peak</text>')
        y += PEAK_ROW + 20
    for text, color, x, line in _places(legend):
        top = y + 18 * line
        drawn.append(f'<rect x="{x:.0f}" y="{top:.0f}" width="12" height="12" fill="{COLORS[color]}"/>')
        drawn.append(f'<text x="{x + 16:.0f}" y="{top + 11:.0f}" fill="#000">{escape(text)}</text>')
    height = y + 18 * (1 + max((line for *_, line in _places(legend)), default=-1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-family="monospace" '
        f'font-size="12" role="img" aria-label="{escape(title, quote=True)}">{"".join(drawn)}</svg>\n'
    )


def _places(legend: Sequence[str]) -> Iterator[tuple[str, int, float, int]]:
    """(text, color, x, line) of each type that has a color of its own."""
    x, line = 4.0, 0
    for color, text in enumerate(legend[: len(COLORS) - 1]):
        width = 28 + LETTER_PX * len(text)
        if x + width > WIDTH:
            x, line = 4.0, line + 1
        yield text, color, x, line
        x += width


def _row(boxes: Sequence[Box], y: float, height: float) -> str:
    total = sum(box.size for box in boxes) or 1.0
    x, parts = 0.0, []
    for box in boxes:
        width = WIDTH * box.size / total
        color = COLORS[min(box.color, len(COLORS) - 1)] if box.color != PLAIN else "#dddddd"
        tall = height * min(box.height, 1.0)
        parts.append(
            f'<g><title>{escape(box.title)}</title><rect x="{x:.2f}" y="{y + height - tall:.2f}" '
            f'width="{max(width - 0.5, 0.1):.2f}" height="{tall:.2f}" fill="{color}"/>'
            f"{_text(box.label, x, y, width)}</g>"
        )
        x += width
    return "".join(parts)


def _text(label: str, x: float, y: float, width: float) -> str:
    """The label, cut to the width; empty if fewer than 3 characters fit."""
    fits = int((width - 8) / LETTER_PX)
    if fits < 3:
        return ""
    shown = label if len(label) <= fits else label[: fits - 1] + "…"
    return f'<text x="{x + 4:.2f}" y="{y + ROW / 2 + 4:.0f}" fill="#000">{escape(shown)}</text>'
