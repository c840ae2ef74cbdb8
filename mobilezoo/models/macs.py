"""Parameters and multiply-accumulates: of a whole network, and stage by stage.

The rule is fvcore's: convolutions, linear layers and matrix products count, everything else is free. fvcore misses
convolutions called with padding="same"; they are counted here by the same formula.
"""

import logging
from collections import Counter
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_jit, get_shape, matmul_flop_jit
from torch import nn

from mobilezoo.models.scale import check_activations
from mobilezoo.resolution import Size, as_size


def _same_convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """`aten::_convolution_mode` (padding given as a word): output elements × kernel elements per output channel."""
    weight, output = get_shape(inputs[1]), get_shape(outputs[0])
    macs = 1
    for size in (*output, *weight[1:]):
        macs *= size
    return Counter({"conv": macs})


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Fused attention: queries × keys and weights × values."""
    q, k, v = (get_shape(i) for i in inputs[:3])
    batch = 1
    for size in q[:-2]:
        batch *= size
    return Counter({"attention": batch * q[-2] * k[-2] * (q[-1] + v[-1])})


COUNTED = ("conv", "linear", "addmm", "matmul", "bmm", "baddbmm", "einsum", "attention")
"""fvcore prices norms and pooling too; the tables of the papers do not."""

HANDLES = {
    "aten::_convolution_mode": _same_convolution,
    "aten::_convolution": conv_flop_jit,
    "aten::matmul": matmul_flop_jit,
    "aten::scaled_dot_product_attention": _attention,
}


def analyze(network: nn.Module, resolution: int | Size) -> FlopCountAnalysis:
    """fvcore's analysis of one image.

    Args:
        network: network, put into eval mode.
        resolution: side in pixels, or (height, width).

    Raises:
        ConfigError: a layer's output would not fit into memory.
    """
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    shape = (getattr(network, "in_chans", 3), *as_size(resolution))
    check_activations(network, "the network", shape)
    image = torch.zeros(1, *shape)
    analysis = FlopCountAnalysis(network.eval(), image)
    return analysis.set_op_handle(**HANDLES).unsupported_ops_warnings(False).uncalled_modules_warnings(False)


def count(network: nn.Module, resolution: int | Size) -> dict[str, int]:
    """Parameters and multiply-accumulates of one image: {"params", "macs"}.

    Args:
        network: network, put into eval mode.
        resolution: side in pixels, or (height, width).
    """
    params = sum(p.numel() for p in network.parameters())
    return {"params": params, "macs": _counted(analyze(network, resolution).by_operator())}


def count_stages(network: nn.Module, resolution: int | Size) -> list[dict[str, Any]]:
    """Cost stage by stage, in running order; the rows add up to the whole.

    Args:
        network: network, put into eval mode.
        resolution: side in pixels, or (height, width).

    Returns:
        One row per stage: stage, layers (kinds), output (shape [C, H, W]), params, macs; a last row "(other)" where
        something is left.
    """
    names = _stage_names(network)
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                shapes[name] = tuple(int(size) for size in output.shape[1:])

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    by_module = analyze(network, resolution).by_module_and_operator()
    for hook in hooks:
        hook.remove()
    rows = [_row(network.get_submodule(name), name, shapes.get(name, ()), by_module) for name in names]
    rows = [row for row in rows if row["params"] or row["macs"]]
    rest = {
        "params": sum(p.numel() for p in network.parameters()) - sum(r["params"] for r in rows),
        "macs": _counted(by_module[""]) - sum(r["macs"] for r in rows),
    }
    if any(rest.values()):
        rows.append({"stage": "(other)", "layers": "", "output": (), **rest})
    return rows


def _counted(by_operator: Counter[str]) -> int:
    return int(sum(by_operator[name] for name in COUNTED))


def _row(module: nn.Module, name: str, output: tuple[int, ...], by_module: dict[str, Counter[str]]) -> dict[str, Any]:
    kinds = Counter(type(child).__name__ for child in _blocks(module))
    layers = ", ".join(f"{n} × {kind}" if n > 1 else kind for kind, n in kinds.items())
    params = sum(p.numel() for p in module.parameters())
    return {"stage": name, "layers": layers, "output": output, "params": params, "macs": _counted(by_module[name])}


def _stage_names(network: nn.Module) -> list[str]:
    """Top-level children, with containers of stages opened once."""
    names = []
    for name, child in network.named_children():
        inner = list(child.named_children())
        opened = isinstance(child, nn.Sequential | nn.ModuleList) and name in ("blocks", "stages")
        names += [f"{name}.{sub}" for sub, _ in inner] if opened else [name]
    return names


def _blocks(module: nn.Module) -> list[nn.Module]:
    """What a person would call the stage's blocks."""
    children = [c for c in module.children() if not isinstance(c, nn.Identity)]
    if isinstance(module, nn.Sequential):
        return children
    if isinstance(getattr(module, "blocks", None), nn.Sequential):
        down = getattr(module, "downsample", None)
        head = [down] if isinstance(down, nn.Module) and not isinstance(down, nn.Identity) else []
        return [*head, *module.get_submodule("blocks").children()]
    return [module]
