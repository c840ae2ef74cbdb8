"""Per-operator times: every operator once, in the file's runtime, and advice that rests on figures."""

import json
from pathlib import Path

import pytest

from mobilezoo.cli.main import main
from mobilezoo.errors import DeviceError
from mobilezoo_export.profilers.onnx import _nodes
from mobilezoo_export.profilers.timing import RUNS, WARM_UP
from mobilezoo_export.records import OperatorProfile, OperatorTime
from mobilezoo_export.registry import exporter_of
from mobilezoo_latency.operators import advice, by_type, profile_operators

TOY_TARGET = """
from mobilezoo_export.contract import Exporter
from mobilezoo_export.records import OperatorProfile, OperatorTime


class ToyExporter(Exporter):
    target, suffix, extra = "toy", ".toy", "toy"
    modules = packages = ()
    precisions = ("fp32",)

    def open(self, path, threads, record):
        raise NotImplementedError

    def export(self, model, spec, path, calibration=()):
        raise NotImplementedError

    def profile_operators(self, path, threads):
        operators = [OperatorTime("first", "CONV", "1×8", 2.0, 1.0)]
        return OperatorProfile(f"toy on {threads} threads", 2.5, operators, "by hand")
"""


def time_operators(path: Path) -> OperatorProfile:
    return exporter_of(path).profile_operators(path, threads=1)


def test_onnx_runtime_tells_the_time_of_every_node(bigger_onnx):
    found = time_operators(bigger_onnx)
    assert found.runtime.startswith("ONNX Runtime")
    assert sum("Conv" in op.type for op in found.operators) == 20
    assert sum(op.share for op in found.operators) == pytest.approx(1.0)
    assert all(op.ms >= 0 for op in found.operators)


def test_every_litert_operator_is_timed_in_a_file_of_its_own(tiny_tflite):
    found = time_operators(tiny_tflite)
    (only,) = found.operators
    assert (only.type, only.shape, only.share) == ("FULLY_CONNECTED", "1×16×16×8", 1.0)
    assert 0 < only.ms < 10 * found.whole_ms + 1.0


def test_onnx_loops_open_sizes_and_several_inputs_are_timed_and_no_time_counts_twice(tmp_path):
    """A loop of four rounds around one product; the second input has an open batch and whole numbers."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    value = helper.make_tensor_value_info
    inside = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("MatMul", ["x", "weight"], ["y"], name="product"),
        ],
        "inside",
        [value("i", kind.INT64, []), value("going", kind.BOOL, []), value("x", kind.FLOAT, [64, 64])],
        [value("on", kind.BOOL, []), value("y", kind.FLOAT, [64, 64])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["rounds", "", "image"], ["last"], body=inside),
            helper.make_node("Cast", ["tokens"], ["numbers"], to=kind.FLOAT, name="cast"),
        ],
        "g",
        [value("image", kind.FLOAT, [64, 64]), value("tokens", kind.INT32, ["batch", 7])],
        [value("last", kind.FLOAT, [64, 64]), value("numbers", kind.FLOAT, ["batch", 7])],
        [
            helper.make_tensor("rounds", kind.INT64, [], [4]),
            helper.make_tensor("weight", kind.FLOAT, [64, 64], [0.01] * 4096),
        ],
    )
    path = tmp_path / "loop.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    found = {op.type: op for op in time_operators(path).operators}
    assert "Loop" not in found
    assert {"MatMul", "Cast"} <= set(found)
    assert found["Cast"].shape == "1×7"


def test_a_node_in_a_loop_counts_as_often_as_it_ran():
    node = {"cat": "Node", "name": "product_kernel_time", "dur": 500, "args": {"op_name": "MatMul"}}
    end = {"cat": "Session", "name": "model_run", "dur": 9999}
    events = [event for _ in range(WARM_UP + RUNS) for event in (node, node, node, end)]
    assert _nodes(events) == [("product", "MatMul", "", 1.5)]


def test_types_are_added_up_and_the_most_expensive_comes_first():
    rows = [OperatorTime("a", "CONV_2D", "1×8", 1.0, 0.25), OperatorTime("b", "TRANSPOSE", "1×8", 2.0, 0.5)]
    rows.append(OperatorTime("c", "CONV_2D", "1×8", 1.0, 0.25))
    assert by_type(rows) == [("CONV_2D", 2, 2.0, 0.5), ("TRANSPOSE", 1, 2.0, 0.5)]
    assert any(line.startswith("50% goes into moving data") for line in advice(rows))
    upwards = [row._replace(type="Convolution2DTransposeBias") for row in rows]
    assert not any("moving data" in line for line in advice(upwards)), "a transposed convolution computes"


def test_a_runtime_without_a_profiler_is_refused(tmp_path, record_beside):
    path = tmp_path / "tiny.mlpackage"
    path.write_bytes(b"x")
    with pytest.raises(DeviceError, match="no per-operator times for 'coreml' files"):
        profile_operators(record_beside(path, "coreml", (1, 4, 16, 16)))


def test_a_target_of_another_package_brings_its_profiler(tmp_path, record_beside, monkeypatch):
    """A target that no registry knows, named by its place: the worker runs the profiler of the target's record."""
    (tmp_path / "toy_target.py").write_text(TOY_TARGET)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "tiny.toy"
    path.write_bytes(b"x")
    found = profile_operators(record_beside(path, "toy_target:ToyExporter", (1, 4, 16, 16)), threads=3)
    assert found.operators == [OperatorTime("first", "CONV", "1×8", 2.0, 1.0)]
    assert (found.runtime, found.whole_ms, found.unproven) == ("toy on 3 threads", 2.5, "a test file")


@pytest.mark.nightly
def test_executorchs_trace_looks_into_its_delegate(tmp_path):
    pytest.importorskip("executorch")
    from mobilezoo.workflows.export import export
    from mobilezoo_export import ExportConfig

    (result,) = export("mnasnet_small", ExportConfig(targets=("executorch",), overwrite=True), out=tmp_path)
    found = time_operators(Path(result.path))
    assert len(found.operators) > 50
    assert any("Convolution" in op.type for op in found.operators)
    assert 0.02 * found.whole_ms < found.sum_ms < 20 * found.whole_ms  # the same unit; the machine may be busy


def test_the_command_prints_bars_and_json(bigger_onnx, capsys):
    main_says(["profile", str(bigger_onnx), "--ops"])
    out = capsys.readouterr().out
    assert "█" in out
    assert "summed over operators" in out
    main_says(["profile", str(bigger_onnx), "--ops", "--json"])
    (data,) = json.loads(capsys.readouterr().out)
    assert data["operators"]
    assert data["whole_ms"] > 0
    assert data["unproven"] == "a test file"


def test_two_files_of_one_name_are_both_told(monkeypatch, tmp_path):
    from mobilezoo.workflows.profile_operators import profile_operators
    from mobilezoo_latency import operators

    for name in ("a/x.onnx", "b/x.onnx", "b/y.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        (tmp_path / f"{name}.json").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(operators, "profile_operators", lambda file, threads: str(file))
    assert profile_operators(["a/x.onnx", "b/x.onnx"]) == {n: n for n in ("a/x.onnx", "b/x.onnx")}
    assert list(profile_operators(["a/x.onnx", "b/y.onnx"])) == ["x.onnx", "y.onnx"]


def main_says(args: list[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(args)
    assert not done.value.code


def test_the_picture_is_as_wide_as_the_times_and_safe(tmp_path, bigger_onnx, capsys):
    from xml.etree import ElementTree

    picture = tmp_path / "ops.svg"
    main_says(["profile", str(bigger_onnx), "--ops", "--plot", str(picture)])
    root = ElementTree.fromstring(picture.read_text())
    boxes = [g for g in root if g.tag.endswith("}g")]
    assert len(boxes) >= 1 + 1 + 20
    rows: dict[str, float] = {}
    for box in boxes:
        rect = next(part for part in box if part.tag.endswith("}rect"))
        rows[rect.get("y", "")] = max(
            rows.get(rect.get("y", ""), 0.0), float(rect.get("x", "0")) + float(rect.get("width", "0"))
        )
    assert len(rows) == 3
    assert all(1190 < end <= 1201 for end in rows.values())
    from mobilezoo.report.flamegraph import flame

    hostile = OperatorProfile("r", 1.0, [OperatorTime("<script>", 'x"y', "<b>", 1.0, 1.0)], "how")
    assert "<script>" not in flame('"><script>', hostile)
    ElementTree.fromstring(flame('"><script>', hostile))
