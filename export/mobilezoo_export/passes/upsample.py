"""Nearest upsampling by whole factors as concatenations of the map with itself.

XNNPACK has no nearest upsampling, in LiteRT or in ExecuTorch: each one ends a delegated partition (GhostNetV2: ten of
them). Repeating columns is concatenating copies behind each pixel, repeating rows behind each row; at most four axes.
"""

from torch.fx import GraphModule, Node

from mobilezoo_export.passes.graph import aten, calls, replace, shape_of

NEAREST = (aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default)


def run(model: GraphModule) -> int:
    """For targets that store NCHW."""
    return rewrite(model, channels_last=False)


def rewrite(model: GraphModule, *, channels_last: bool) -> int:
    """`channels_last` writes it so that pixels of all channels move together."""
    changed = 0
    for node in calls(model, *NEAREST):
        source = node.args[0]
        assert isinstance(source, Node)
        before, after = shape_of(source)[2:], shape_of(node)[2:]
        if any(new % old for old, new in zip(before, after, strict=True)):
            continue
        factors = after[0] // before[0], after[1] // before[1]
        with model.graph.inserting_before(node):
            replace(node, _repeated(model, source, factors, channels_last))
        changed += 1
    return changed


def _repeated(model: GraphModule, source: Node, factors: tuple[int, int], channels_last: bool) -> Node:
    call = model.graph.call_function
    n, c, h, w = shape_of(source)
    rows, columns = factors
    # One pixel is `inner` neighbouring elements, one plane of pixels repeats `outer` times.
    outer, inner = (n, c) if channels_last else (n * c, 1)
    x = call(aten.permute.default, (source, [0, 2, 3, 1])) if channels_last else source

    def repeat(x: Node, shape: list[int], times: int) -> Node:
        flat = call(aten.reshape.default, (x, shape))
        return flat if times == 1 else call(aten.cat.default, ([flat] * times, 2))

    x = repeat(x, [outer * h, w, inner], columns)
    x = repeat(x, [outer, h, w * columns * inner], rows)
    if not channels_last:
        return call(aten.reshape.default, (x, [n, c, h * rows, w * columns]))
    x = call(aten.reshape.default, (x, [n, h * rows, w * columns, c]))
    return call(aten.permute.default, (x, [0, 3, 1, 2]))
