"""ExecuTorch: PT2E quantization with the XNNPACK quantizer (int8 activations, int8 weights per channel)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mobilezoo_export.passes.graph import aten
from mobilezoo_export.quantize.mixed import float_positions

WEIGHTED = (aten.conv2d.default, aten.conv2d.padding, aten.linear.default, aten.bmm.default)
CLAMPS = (aten.hardtanh.default, aten.hardtanh_.default)
"""ReLU6, as traced."""
CLAMPED = (aten.conv2d.default, aten.linear.default, aten.batch_norm.default)
"""Operators whose integer kernels clamp their own output; a norm is part of its convolution by then."""


def to_int8(
    model: nn.Module,
    example: torch.Tensor,
    batches: Sequence[np.ndarray],
    float_segments: Sequence[int] = (),
    dynamic_shapes: Any = None,
) -> Any:
    """Insert quantize/dequantize pairs into a network (PT2E).

    Args:
        model: traceable network in eval mode.
        example: (N, C, H, W) input to trace with.
        batches: float32 NCHW calibration batches.
        float_segments: segments that stay float, see `quantize.mixed`.
        dynamic_shapes: those of `torch.export`, for flexible files; None: sizes are fixed.

    Returns:
        The quantized graph.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    graph = torch.export.export(model, (example,), dynamic_shapes=dynamic_shapes).module(check_guards=False)
    observed = prepare_pt2e(graph, quantizer(float_segments=float_segments))
    for batch in batches:
        observed(torch.from_numpy(batch))
    return convert_pt2e(observed)


def quantizer(qat: bool = False, float_segments: Sequence[int] = ()) -> Any:
    """Build XNNPACK's quantizer: int8 activations, int8 weights per channel.

    Args:
        qat: for ranges learned in training instead of measured after it.
        float_segments: segments that stay float, see `quantize.mixed`.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import propagate_annotation
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, SharedQuantizationSpec
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY as KEY

    def share_scale(node: torch.fx.Node) -> None:
        """XNNPACK takes an int8 pad as its own, and then refuses a program where the two scales differ."""
        if node.target != aten.pad.default or node.args[2:] not in ((), ("constant",), ("constant", 0.0)):
            return
        source = node.all_input_nodes[0]
        before = source.meta.get(KEY)
        if before is not None and before.output_qspec is not None and KEY not in node.meta:
            shared = SharedQuantizationSpec(source)
            node.meta[KEY] = QuantizationAnnotation({source: shared}, shared, _annotated=True)

    def clamp_inside(node: torch.fx.Node) -> None:
        """Quantize what a clamp lets through: the quantizer fuses only ReLU, and spends the scale of a ReLU6 on the
        values before it, which it cuts off."""
        source = node.all_input_nodes[0]
        before = source.meta.get(KEY)
        if source.target in CLAMPED and len(source.users) == 1 and before is not None and before.output_qspec:
            node.meta[KEY] = QuantizationAnnotation(output_qspec=before.output_qspec, _annotated=True)
            before.output_qspec = None

    class Mixed(XNNPACKQuantizer):
        """Clamps belong to their convolution, pads keep their input's scale; segments that stay float lose theirs."""

        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            annotated: torch.fx.GraphModule = super().annotate(model)
            nodes = [node for node in annotated.graph.nodes if node.op == "call_function"]
            for node in nodes:
                if node.target in CLAMPS:
                    clamp_inside(node)
            for node in nodes:
                share_scale(node)
            propagate_annotation(annotated)
            for position in float_positions([node.target in WEIGHTED for node in nodes], float_segments):
                nodes[position].meta.pop(KEY, None)
            return annotated

    return Mixed().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=qat))


class HalfInside(nn.Module):
    """A float16 network with float32 input and output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(image.half()).float()
        return logits
