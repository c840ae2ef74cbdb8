"""Quantization-aware training through PT2E: a network's training graph with fake quantization, and its int8 file.

The graph shares parameters and batch statistics with its network, so training the graph trains the network: the
network's checkpoint then holds weights that are robust to int8, for every target. The ExecuTorch file made here also
keeps the learned ranges; its quantizer is the one that the ExecuTorch exporter uses after training.
"""

import copy
from typing import Any

import torch
from torch import nn

from mobilezoo.errors import ConfigError, require

MODE_AT = {"aten.batch_norm.default": 5, "aten.dropout.default": 2}
"""Operator → index of its argument `training`."""


class FakeQuantized(nn.Module):
    """Trains in place of the network; ranges follow the batches in training mode and are fixed in eval mode."""

    def __init__(self, network: nn.Module, example: torch.Tensor) -> None:
        """Trace a network in training mode and insert fake quantization.

        Args:
            network: network to train; put in training mode, its parameters are shared.
            example: (B, C, H, W) images, B at least 2.

        Raises:
            ConfigError: the network cannot be trained with fake quantization.
            MissingToolError: ExecuTorch is not installed.
        """
        require("executorch", "executorch")
        from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

        from mobilezoo_export.quantize.executorch import quantizer

        super().__init__()
        _check(network)
        batch = torch.export.Dim("batch", min=2, max=1 << 16)
        program = torch.export.export(network.train(), (example,), dynamic_shapes=({0: batch},))
        self.graph: Any = prepare_qat_pt2e(program.module(check_guards=False), quantizer(qat=True))
        self._own = {key for key, _ in self.graph.named_parameters()} | {key for key, _ in network.named_buffers()}

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.graph(x_bchw)
        return logits

    def train(self, mode: bool = True) -> "FakeQuantized":
        """Set the mode, which exported graphs hold in their nodes."""
        from torchao.quantization.pt2e import disable_observer, enable_observer

        if mode != self.training:
            for node in self.graph.graph.nodes:
                place = MODE_AT.get(str(node.target))
                if place is not None:
                    node.update_arg(place, mode)
            self.graph.recompile()
            self.graph.apply(enable_observer if mode else disable_observer)
        self.training = mode
        return self

    def ranges(self) -> dict[str, torch.Tensor]:
        """Return the state of the observers, which a resumed run needs besides the network's own state."""
        state = self.graph.state_dict()
        return {k: v.clone() for k, v in state.items() if k not in self._own and not k.endswith("_enabled")}

    def load_ranges(self, ranges: dict[str, torch.Tensor]) -> None:
        """Restore what `ranges` returned."""
        state = self.graph.state_dict()  # keeps its versions, without which observers take other defaults
        state.update(ranges)
        self.graph.load_state_dict(state)

    def converted(self) -> nn.Module:
        """Return a copy with quantize/dequantize pairs and integer weights, the input of every PT2E back end."""
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        self.eval()
        graph = copy.deepcopy(self.graph)
        for tensor in (*graph.parameters(), *graph.buffers()):
            tensor.data = tensor.data.contiguous()  # XNNPACK's lowering refuses constants that training kept as NHWC
        integer: nn.Module = convert_pt2e(graph)
        return integer


def _check(network: nn.Module) -> None:
    """Raise ConfigError for layers that fake quantization would train to NaN."""
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine and bool((module.weight == 0).any()):
            raise ConfigError(f"quantization-aware training divides by the scale of {name!r}, which is 0: "
                              "start from trained weights with checkpoint=PATH")  # fmt: skip
        if type(module).__name__ == "DropPath" and getattr(module, "drop_prob", None):
            raise ConfigError("quantization-aware training cannot drop paths: set model_args.drop_path_rate=0")
