"""A flame graph of per-operator times: network, operator types and operators, widths proportional to time.

Plain SVG without scripts; hovering shows the figures (title elements).
"""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mobilezoo_export.records import OperatorProfile

WIDTH, ROW, GAP = 1200, 34, 2
COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999933", "#cc6677", "#88ccee", "#bbbbbb")
"""Paul Tol's bright scheme and three of his muted one, which color-blind readers can distinguish."""
LETTER_PX = 7.2


class Box(NamedTuple):
    """A labeled part of a row."""

    label: str
    title: str
    ms: float
    color: int


def flame(name: str, profile: "OperatorProfile") -> str:
    """Draws the picture; operators stand below their type, most expensive type first.

    Args:
        name: the file, for the top row.
        profile: per-operator times.

    Returns:
        SVG text.
    """
    from mobilezoo_latency.operators import by_type

    types = by_type(profile.operators)
    whole = [Box(name, f"{name}: {profile.sum_ms:.3f} ms summed, {profile.whole_ms:.3f} ms as one", profile.sum_ms, -1)]
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
    rows = "".join(_row(boxes, number) for number, boxes in enumerate((whole, middle, single)))
    height = 3 * (ROW + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" '
        f'font-size="12" role="img" aria-label="time per operator of {escape(name, quote=True)}">{rows}</svg>\n'
    )


def _row(boxes: Sequence[Box], number: int) -> str:
    total = sum(box.ms for box in boxes) or 1.0
    x, parts = 0.0, []
    for box in boxes:
        width = WIDTH * box.ms / total
        color = COLORS[box.color % len(COLORS)] if box.color >= 0 else "#dddddd"
        y = number * (ROW + GAP)
        parts.append(
            f'<g><title>{escape(box.title)}</title><rect x="{x:.2f}" y="{y}" width="{max(width - 0.5, 0.1):.2f}" '
            f'height="{ROW}" fill="{color}"/>{_text(box.label, x, y, width)}</g>'
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
