"""A network of the search space as a small SVG: a row per stage, a box per block, the box as wide as its channels."""

import math
from html import escape

from mobilezoo.search.space import Point
from mobilezoo.search.stages import EXPANDING, MIXERS, Stage

WIDTH, ROW, LEFT, RIGHT = 360, 30, 44, 292
GAP, BOX = 4, 20


def architecture_svg(point: Point, title: str) -> str:
    """Draws a network as an inline `<svg>`; colors come from the page's CSS classes, all text is escaped.

    Args:
        point: the network.
        title: accessible name of the picture.
    """
    pixels = point.resolution // 2
    rows = [_label(0, pixels, "stem")]
    widest = max(_row_width(stage) for stage in point.stages)
    for number, stage in enumerate(point.stages, start=1):
        pixels //= stage.stride
        rows.append(_stage_row(number, stage, pixels, min(1.0, (RIGHT - LEFT) / widest)))
    height = ROW * (len(point.stages) + 1) + 6
    return (
        f'<svg class="arch" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{''.join(rows)}</svg>"
    )


def _label(number: int, pixels: int, name: str) -> str:
    y = ROW * number + ROW / 2 + 3
    stem = ""
    if name == "stem":
        stem = f'<rect class="b-cn" x="{LEFT}" y="{y - BOX / 2}" width="62" height="{BOX}" rx="4"/>'
        stem += _text(LEFT + 31, y, "3×3 stem", "b-text")
    return f'<text class="px" x="{LEFT - 8}" y="{y}" text-anchor="end">{pixels}²</text>{stem}'


def _stage_row(number: int, stage: Stage, pixels: int, scale: float) -> str:
    y = ROW * number + ROW / 2 + 3
    width = _box_width(stage) * scale
    parts = [_label(number, pixels, "")]
    kind = "mixer" if stage.block in MIXERS else escape(stage.block)
    for block in range(stage.depth):
        x = LEFT + block * (width + GAP * scale)
        parts.append(
            f'<rect class="b-{kind}" x="{x:.1f}" y="{y - BOX / 2}" width="{width:.1f}" height="{BOX}" rx="4"/>'
        )
        parts.append(_text(x + width / 2, y, _caption(stage, width), "b-text"))
        if stage.attention != "none":
            parts.append(
                f'<rect class="att" x="{x:.1f}" y="{y + BOX / 2 - 3}" width="{width:.1f}" height="3" rx="1.5"/>'
            )
    note = f"{stage.width} ch" + ("" if stage.attention == "none" else f" {stage.attention[:6]}")
    parts.append(f'<text class="px" x="{WIDTH - 2}" y="{y + 0.5}" text-anchor="end">{escape(note)}</text>')
    return f"<g><title>{escape(describe(stage))}</title>{''.join(parts)}</g>"


def _caption(stage: Stage, width: float) -> str:
    """Caption as long as fits: kernel, and the expansion or the block type; for a mixer its name."""
    if stage.block in MIXERS:
        return next((name for name in (stage.block, stage.block[:4]) if 5.6 * len(name) <= width - 2), "")
    kernel = f"{stage.kernel}×{stage.kernel}"
    expand = f"e{stage.expansion:g}" if stage.block in EXPANDING else stage.block
    for text in (f"{kernel} {expand}", kernel):
        if 5.6 * len(text) <= width - 2:
            return text
    return str(stage.kernel)


def _text(x: float, y: float, text: str, css: str) -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y + 0.5}" text-anchor="middle">{escape(text)}</text>'


def _box_width(stage: Stage) -> float:
    """Width of a block's box, by the logarithm of its channels: 30 units for 8 channels, 83 for 320."""
    return 30 + 10 * math.log2(max(stage.width, 8) / 8)


def _row_width(stage: Stage) -> float:
    return stage.depth * (_box_width(stage) + GAP) - GAP


def describe(stage: Stage) -> str:
    """Describes a stage in words."""
    kinds = {
        "cn": "convolution",
        "ds": "depthwise separable",
        "er": f"fused inverted residual, expansion {stage.expansion:g}",
        "ir": f"inverted residual, expansion {stage.expansion:g}",
    }
    if stage.block in MIXERS:
        words = [f"inverted residual, then {stage.depth} × {stage.block}", f"{stage.width} channels"]
    else:
        words = [f"{stage.depth} × {kinds[stage.block]}", f"{stage.kernel}×{stage.kernel}", f"{stage.width} channels"]
    words += [f"stride {stage.stride}"] if stage.stride > 1 else []
    words += [f"{stage.attention} attention"] if stage.attention != "none" else []
    words += ["no skip"] if not stage.skip else []
    return ", ".join(words)
