"""Per-operator times: every operator once, in the file's runtime, and advice that rests on figures."""

import json

import pytest

from mobilezoo.cli import main
from mobilezoo.errors import DeviceError
from mobilezoo_latency.operators import OperatorTime, advice, by_type, profile_operators


def test_onnx_runtime_tells_the_time_of_every_node(bigger_onnx):
    found = profile_operators(bigger_onnx)
    assert found.runtime.startswith("ONNX Runtime")
    assert sum("Conv" in op.type for op in found.operators) == 20
    assert sum(op.share for op in found.operators) == pytest.approx(1.0)
    assert all(op.ms >= 0 for op in found.operators)


def test_every_litert_operator_is_timed_in_a_file_of_its_own(tiny_tflite):
    found = profile_operators(tiny_tflite)
    (only,) = found.operators
    assert (only.type, only.shape, only.share) == ("FULLY_CONNECTED", "1×16×16×8", 1.0)
    assert 0 < only.ms < 10 * found.whole_ms + 1.0


def test_types_are_added_up_and_the_most_expensive_comes_first():
    rows = [OperatorTime("a", "CONV_2D", "1×8", 1.0, 0.25), OperatorTime("b", "TRANSPOSE", "1×8", 2.0, 0.5)]
    rows.append(OperatorTime("c", "CONV_2D", "1×8", 1.0, 0.25))
    assert by_type(rows) == [("CONV_2D", 2, 2.0, 0.5), ("TRANSPOSE", 1, 2.0, 0.5)]
    assert any(line.startswith("50% goes into moving data") for line in advice(rows))


def test_a_runtime_without_a_profiler_is_refused(tmp_path, record_beside):
    path = tmp_path / "tiny.mlpackage"
    path.write_bytes(b"x")
    with pytest.raises(DeviceError, match="no per-operator times for 'coreml' files"):
        profile_operators(record_beside(path, "coreml", (1, 4, 16, 16)))


@pytest.mark.slow
def test_executorchs_trace_looks_into_its_delegate(tmp_path):
    pytest.importorskip("executorch")
    from mobilezoo.verbs.export_images import NONE_NAMED
    from mobilezoo.verbs.exporting import export_subject
    from mobilezoo.verbs.options import SubjectOptions

    (result,) = export_subject(
        "mnasnet_small",
        ["executorch"],
        ["fp32"],
        SubjectOptions(),
        NONE_NAMED,
        tmp_path,
        overwrite=True,
        progress=False,
    )
    found = profile_operators(result.path)
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
    from mobilezoo.verbs.flame import flame
    from mobilezoo_latency.operators import Profile

    hostile = Profile("r", 1.0, [OperatorTime("<script>", 'x"y', "<b>", 1.0, 1.0)], "how")
    assert "<script>" not in flame('"><script>', hostile)
    ElementTree.fromstring(flame('"><script>', hostile))
