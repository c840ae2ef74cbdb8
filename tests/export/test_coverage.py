"""The record of a file says what is in it, what XNNPACK took, and what phones are known to refuse."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportResult, ExportSpec
from mobilezoo_export.coverage import LITERT, _inside, _warnings
from mobilezoo_export.records import Reading


class Gathers(nn.Module):
    """The tiny network, its classes put in another order by an index."""

    def __init__(self, tiny: nn.Module) -> None:
        super().__init__()
        self.tiny = tiny
        self.register_buffer("order", torch.randperm(10, generator=torch.Generator().manual_seed(0)))
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.index_select(self.tiny(x), 1, self.order).relu()


def test_a_partition_holds_what_lies_between_its_inputs_and_outputs() -> None:
    nodes = [{"index": i, "op_name": "OP", "inputs": [i], "outputs": [i + 1]} for i in range(5)]
    made_by = {i + 1: node for i, node in enumerate(nodes)}
    delegate = {"index": 9, "op_name": "DELEGATE", "inputs": [1], "outputs": [4]}
    assert sorted(node["index"] for node in _inside(delegate, made_by)) == [1, 2, 3]


def test_what_phones_refuse_is_named_with_its_source() -> None:
    told = _warnings(LITERT, Reading(Counter(GATHER=2, TRANSPOSE=3, CONV_2D=9), 2, Counter(GATHER=2), [4, 5, None]))
    assert [text.split(" ")[0] for text in told] == ["2", "2", "3", "dynamic", "5-D"]
    assert all(text.endswith("]") for text in told)
    assert _warnings(LITERT, Reading(Counter(CONV_2D=9, TRANSPOSE=2), 1, Counter(), [4])) == []


@pytest.mark.parametrize(
    ("target", "op"),
    [
        ("litert", "GATHER"),
        pytest.param("onnx", "Gather", marks=pytest.mark.slow),
        pytest.param("coreml", "gather", marks=pytest.mark.slow),
        pytest.param("executorch", "index_select", marks=pytest.mark.nightly),
    ],
)
def test_an_operator_outside_the_delegate_is_counted(
    tiny: nn.Module,
    tiny_file: Callable[[str], ExportResult],
    tiny_spec: ExportSpec,
    tmp_path: Path,
    target: str,
    op: str,
) -> None:
    plain = tiny_file(target)
    (gathers,) = export_files(Gathers(tiny).eval(), tiny_spec, [target], ["fp32"], tmp_path)
    assert plain.artifact is not None
    assert plain.artifact.coverage is not None
    assert gathers.artifact is not None
    assert gathers.artifact.coverage is not None
    assert not any(name.lower().startswith(op.lower()) for name in plain.artifact.coverage.ops)
    assert any(name.lower().startswith(op.lower()) for name in gathers.artifact.coverage.ops)
    assert plain.warnings == ()
    assert any(op in text and text.startswith(f"{target} fp32: ") for text in gathers.warnings)
    if target in ("litert", "executorch"):
        assert plain.artifact.coverage.partitions == 1
        assert plain.artifact.coverage.outside == {}
        assert gathers.artifact.coverage.outside
