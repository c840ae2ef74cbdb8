"""Moving and reducing: reshapes, slices, concatenations, reductions."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from mobilezoo_export.mil.arguments import Arguments, operation
from mobilezoo_export.mil.layers import torch_order

Reduction = Callable[..., torch.Tensor]
REDUCTIONS: dict[str, Reduction] = {
    "reduce_mean": torch.mean,
    "reduce_sum": torch.sum,
    "reduce_max": torch.amax,
    "reduce_min": torch.amin,
}


def _reduction(function: Reduction) -> Callable[[Arguments], torch.Tensor]:
    def compute(a: Arguments) -> torch.Tensor:
        x = a.tensor()
        return function(x, a.integers("axes", list(range(x.dim()))), keepdim=a.flag("keep_dims"))

    return compute


for _name, _function in REDUCTIONS.items():
    operation(_name)(_reduction(_function))


@operation("reduce_l2_norm")
def reduce_l2_norm(a: Arguments) -> torch.Tensor:
    x = a.tensor()
    return x.square().sum(a.integers("axes", list(range(x.dim()))), keepdim=a.flag("keep_dims")).sqrt()


@operation("reduce_argmax")
def reduce_argmax(a: Arguments) -> torch.Tensor:
    return torch.argmax(a.tensor(), a.integer("axis", -1), keepdim=a.flag("keep_dims")).int()


@operation("reshape")
def reshape(a: Arguments) -> torch.Tensor:
    """A zero keeps the input's size on that axis."""
    x = a.tensor()
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(a.integers("shape"))])


@operation("transpose")
def transpose(a: Arguments) -> torch.Tensor:
    return a.tensor().permute(a.integers("perm"))


@operation("squeeze")
def squeeze(a: Arguments) -> torch.Tensor:
    x = a.tensor()
    axes = [axis % x.dim() for axis in a.integers("axes", [i for i, size in enumerate(x.shape) if size == 1])]
    return x.reshape([size for i, size in enumerate(x.shape) if i not in axes])


@operation("expand_dims")
def expand_dims(a: Arguments) -> torch.Tensor:
    x, axes = a.tensor(), a.integers("axes")
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operation("concat")
def concat(a: Arguments) -> torch.Tensor:
    # Computed shapes are put together of scalars.
    values, axis = [value if value.dim() else value[None] for value in a.tensors()], a.integer("axis")
    if a.flag("interleave"):
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


@operation("stack")
def stack(a: Arguments) -> torch.Tensor:
    return torch.stack(a.tensors(), a.integer("axis"))


@operation("split")
def split(a: Arguments) -> Sequence[torch.Tensor]:
    x, axis = a.tensor(), a.integer("axis")
    sizes = a.integers("split_sizes")
    return torch.split(x, sizes or x.shape[axis] // a.integer("num_splits", 1), axis)


@operation("tile")
def tile(a: Arguments) -> torch.Tensor:
    return a.tensor().repeat(a.integers("reps"))


@operation("slice_by_index")
def slice_by_index(a: Arguments) -> torch.Tensor:
    x = a.tensor()
    rank = x.dim()
    begin, end = a.integers("begin"), a.integers("end")
    strides = a.integers("stride", [1] * rank)
    masks = [a.integers(name, [0] * rank) for name in ("begin_mask", "end_mask", "squeeze_mask")]
    index: list[Any] = []
    for i in range(rank):
        if masks[2][i]:
            index.append(begin[i])
        else:
            index.append(slice(None if masks[0][i] else begin[i], None if masks[1][i] else end[i], strides[i]))
    # NumPy takes negative steps, torch does not.
    return torch.from_numpy(x.numpy()[tuple(index)].copy())


@operation("slice_by_size")
def slice_by_size(a: Arguments) -> torch.Tensor:
    pairs = zip(a.integers("begin"), a.integers("size"), strict=True)
    return a.tensor()[tuple(slice(start, None if size == -1 else start + size) for start, size in pairs)]


@operation("pad")
def pad(a: Arguments) -> torch.Tensor:
    """Padding covers the last axes; "replicate" and "reflect" are torch's."""
    mode, amounts = a.text("mode", "constant"), torch_order(a.integers("pad"))
    if mode == "constant":
        return F.pad(a.tensor(), amounts, value=a.number("constant_val", 0.0))
    while len(amounts) > 4 and amounts[-2:] == [0, 0]:
        amounts = amounts[:-2]
    return F.pad(a.tensor(), amounts, mode=mode)


@operation("gather")
def gather(a: Arguments) -> torch.Tensor:
    x, indices, axis = a.tensor(), a.tensor("indices").long(), a.integer("axis", 0)
    axis %= x.dim()
    picked = torch.index_select(x, axis, indices.reshape(-1))
    return picked.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


@operation("shape")
def shape(a: Arguments) -> torch.Tensor:
    return torch.tensor(a.tensor().shape, dtype=torch.int32)


@operation("fill")
def fill(a: Arguments) -> torch.Tensor:
    return torch.full(a.integers("shape"), a.number("value", 0.0))


@operation("pixel_shuffle")
def pixel_shuffle(a: Arguments) -> torch.Tensor:
    return F.pixel_shuffle(a.tensor(), a.integer("upscale_factor"))


@operation("pixel_unshuffle")
def pixel_unshuffle(a: Arguments) -> torch.Tensor:
    return F.pixel_unshuffle(a.tensor(), a.integer("downscale_factor"))
