"""ExecuTorch: PT2E quantisation with the XNNPACK quantiser (int8 activations, int8 weights per channel)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn


def to_int8(model: nn.Module, example: torch.Tensor, batches: Sequence[np.ndarray]) -> Any:
    """The traced network with quantise/dequantise pairs, ranges from `batches`."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    observed = prepare_pt2e(torch.export.export(model, (example,)).module(check_guards=False), quantizer())
    for batch in batches:
        observed(torch.from_numpy(batch))
    return convert_pt2e(observed)


def quantizer(qat: bool = False) -> Any:
    """XNNPACK's quantiser, for ranges measured after training or learned in it."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    return XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=qat))


class HalfInside(nn.Module):
    """A float16 network with float32 input and output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(image.half()).float()
        return logits
