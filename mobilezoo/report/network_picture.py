"""A network as a picture: stages from input to output, their shapes, and where parameters, MACs and time are.

A plain SVG of its own, light or dark as its viewer is.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby, pairwise
from typing import Any, NamedTuple

WIDTH, ROW, TOP = 760, 46, 96
NARROW = 622
"""Width without times."""
NAMES, SHAPES, PARAMS, MACS, TIMES = 16, 186, 350, 490, 630
BAR, BAR_HEIGHT = 116, 10
FOOT_LETTERS = 128
STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif;font-size:12px;fill:#16202c}"
    ".bg{fill:#fff}.h{font-size:19px;font-weight:650}.b{font-weight:600}.s{fill:#5b6878;font-size:11px}"
    ".rail{fill:#e9edf2}.map{fill:#cfe3f7;stroke:#4b93d6}.p{fill:#8a4fc0}.m{fill:#1f6fc4}.t{fill:#c9541b}"
    ".line{stroke:#dfe4ea}.flow{stroke:#4b93d6;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#e6ebf1}.bg{fill:#171e26}.s{fill:#94a3b3}.rail{fill:#2a343f}"
    ".map{fill:#23405e;stroke:#4f9be2}.p{fill:#b98ae6}.m{fill:#5aa7f0}.t{fill:#f0905a}.line{stroke:#2a343f}"
    ".flow{stroke:#4f9be2}}"
)


class Price(NamedTuple):
    """Time or cycles of some stages in a row."""

    first: int
    last: int
    """Rows of the table."""
    words: str
    """The value with its unit."""
    share: float
    """Of the whole network, 0..1."""


class MapTime(NamedTuple):
    """Time of the operators that write maps of one size."""

    size: tuple[int, int] | None
    """Height and width; None for outputs of no stage's size."""
    ms: float
    share: float
    """Of the sum over all operators, 0..1."""


def network_svg(
    table: Mapping[str, Any], prices: Sequence[Price] = (), foot_words: Sequence[str] = (), heading: str = "time"
) -> str:
    """Draws a network; all text is escaped.

    Args:
        table: name, family, resolution, params, macs and stages, as `mobilezoo show --json` prints them.
        prices: of stages; () draws no such column.
        foot_words: lines below the table, which name what the prices are.
        heading: of the prices' column.
    """
    stages, wide = table["stages"], WIDTH if prices else NARROW
    rows = [_stage(number, stage, table) for number, stage in enumerate(stages)]
    rows += [_between(number, before, after) for number, (before, after) in enumerate(pairwise(stages))]
    rows += [_price(price) for price in prices]
    foot = TOP + ROW * len(stages) + 22
    words = [line for text in foot_words for line in textwrap.wrap(text, FOOT_LETTERS)]
    height = foot + 16 * len(words)
    rows += [_text(NAMES, foot + 16 * i, line, "s") for i, line in enumerate(words)]
    head = f"{table['resolution']} px · {si(table['params'])} parameters · {si(table['macs'])} MACs"
    columns = [(SHAPES, "output"), (PARAMS, "parameters"), (MACS, "MACs"), *([(TIMES, heading)] if prices else [])]
    name = str(table["name"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {height}" role="img" '
        f'aria-label="{escape(f"{name}: {head}", quote=True)}"><style>{STYLE}</style>'
        f'<rect class="bg" width="{wide}" height="{height}" rx="14"/>'
        + _text(NAMES, 34, _cut(name, 50), "h")
        + _text(NAMES, 56, f"{table['family']} · {head}", "s")
        + "".join(_text(x, TOP - 12, word, "s") for x, word in columns)
        + f'<line class="line" x1="0" x2="{wide}" y1="{TOP - 4}" y2="{TOP - 4}"/>{"".join(rows)}</svg>\n'
    )


def _stage(number: int, stage: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    """A row: name and layers, the output as a box as wide as its channels and as high as its map, and two bars."""
    top = TOP + ROW * number
    shape = "×".join(map(str, stage["output"]))
    width, height = _box(stage["output"])
    layers = str(stage["layers"])
    words = f"{stage['stage']}: {layers}, output {shape or 'none'}"
    parts = [
        f"<title>{escape(words)}</title>",
        _text(NAMES, top + 19, _cut(str(stage["stage"]), 22), "b"),
        _text(NAMES, top + 34, _cut(layers, 25), "s"),
    ]
    if shape:
        y = top + (ROW - height) / 2
        parts.append(f'<rect class="map" x="{SHAPES}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="3"/>')
        parts.append(_text(SHAPES + 78, top + 27, shape, "s"))
    for x, key, css in ((PARAMS, "params", "p"), (MACS, "macs", "m")):
        parts.append(_bar(x, top, stage[key] / table[key] if table[key] else 0.0, si(stage[key]), css))
    return f"<g>{''.join(parts)}</g>"


def _box(output: Sequence[int]) -> tuple[float, float]:
    """Width by the logarithm of the channels, height by that of the map's height."""
    if not output:
        return 0.0, 0.0
    high = output[1] if len(output) == 3 else 1
    return min(70.0, 6 + 6 * math.log2(max(output[0], 1))), min(34.0, 6 + 4 * math.log2(max(high, 1)))


def _between(number: int, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The line from one output to the next."""
    if not (before["output"] and after["output"]):
        return ""
    low = TOP + ROW * (number + 0.5) + _box(before["output"])[1] / 2
    high = TOP + ROW * (number + 1.5) - _box(after["output"])[1] / 2
    x = SHAPES + 6
    return f'<line class="flow" x1="{x}" x2="{x}" y1="{low:.1f}" y2="{high:.1f}"/>'


def _bar(x: int, top: float, share: float, words: str, css: str) -> str:
    rail = f'<rect class="rail" x="{x}" y="{top + 24:.1f}" width="{BAR}" height="{BAR_HEIGHT}" rx="3"/>'
    width = BAR * max(share, 0.0)
    part = f'<rect class="{css}" x="{x}" y="{top + 24:.1f}" width="{width:.1f}" height="{BAR_HEIGHT}" rx="3"/>'
    return _text(x, top + 18, f"{words} · {share:.1%}", "") + rail + part


def _price(price: Price) -> str:
    """A bar, beside a line over all its stages."""
    top = TOP + ROW * (price.first + price.last) / 2
    low, high = TOP + ROW * price.first + 5, TOP + ROW * (price.last + 1) - 5
    line = f'<line class="line" x1="{TIMES - 10}" x2="{TIMES - 10}" y1="{low}" y2="{high}"/>'
    return _bar(TIMES, top, price.share, price.words, "t") + line


def map_prices(
    stages: Sequence[Mapping[str, Any]], times: Sequence[MapTime], timed_in: str
) -> tuple[list[Price], list[str]]:
    """Times by the size of map as prices of the first rows of that size that follow each other, and words for the foot.

    Args:
        stages: rows of the table.
        times: by the size of the maps that are written.
        timed_in: runtime and whole time.
    """
    known = {time.size: time for time in times}
    sizes = [_size(stage) for stage in stages]
    prices, first = list[Price](), 0
    for size, rows in groupby(sizes):
        last = first + len(list(rows)) - 1
        time = known.pop(size, None) if size is not None else None
        if time is not None:
            prices.append(Price(first, last, f"{time.ms:.3g} ms", time.share))
        first = last + 1
    words = [f"Time: operators by the size of the maps that they write; {timed_in}."]
    if known:
        ms, share = sum(time.ms for time in known.values()), sum(time.share for time in known.values())
        words.append(f"{ms:.3g} ms ({share:.1%}) are operators that write other sizes, such as vectors and strips.")
    return prices, words


def _size(stage: Mapping[str, Any]) -> tuple[int, int] | None:
    output = tuple(stage["output"])
    return (output[1], output[2]) if len(output) == 3 else None


def si(value: float) -> str:
    """A count with its SI prefix.

    Returns:
        For example `3.41 M`.
    """
    for factor, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= 0.9995 * factor:  # 999.5 k is written as 1 M
            return f"{value / factor:.3g}{prefix}"
    return f"{value:g}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text(x: float, y: float, text: str, css: str) -> str:
    return f'<text class="{css}" x="{x:g}" y="{y:g}">{escape(text)}</text>'
