"""Cycles of single operators on an emulated core. What counts skips where the emulator was never set up."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mobilezoo.cli.main import main
from mobilezoo.errors import DeviceError
from mobilezoo.report.flamegraph import flame
from mobilezoo_latency import load_artifact, load_device
from mobilezoo_latency.emulator.attribution import Run, assign, fits
from mobilezoo_latency.emulator.cores import EmulatedConfig
from mobilezoo_latency.emulator.counting import Block
from mobilezoo_latency.emulator.device import EmulatedDevice
from mobilezoo_latency.emulator.layout import Emulator, Installed, find_emulator, home
from mobilezoo_latency.emulator.operators import CountedOperator, CountedProfile, by_type, count_operators
from mobilezoo_latency.emulator.peaks import macs_by_type, peak_macs_per_cycle
from mobilezoo_latency.emulator.probe import write_probe
from mobilezoo_latency.emulator.runtimes import is_current
from mobilezoo_latency.emulator.tracing import check_traceable, parse_operators, parse_parts
from mobilezoo_latency.estimators.kernels import Kernel, kernels_of, total_macs

ADD, RET = "8b020020", "d65f03c0"
PLUGIN = f"part 3\nran 0 2\npart 4\nran 0 1\nran 7 5\npart 0\nblock 7 5 {ADD}{RET}\nblock 0 9 {RET}\ntotal 19 2\n"


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    if not (home() / "installed.json").is_file() or not is_current(find_emulator(), "litert"):
        pytest.skip("no emulator of this version: run `mobilezoo device setup emulator`")
    return find_emulator()


def on_core(path: Path, name: str = "cortex_a76") -> CountedProfile:
    artifact = load_artifact(path)
    device = load_device(name).for_artifact(artifact)
    assert isinstance(device, EmulatedDevice)
    return count_operators(device, artifact, device.count(find_emulator(), artifact).cycles)


def test_parts_hold_what_ran_between_two_readings_of_the_clock():
    first, second, third = parse_parts(PLUGIN)
    assert (first.blocks, first.dram_lines) == ([Block(RET, 2)], 3)
    assert (second.blocks, second.dram_lines) == ([Block(RET, 1), Block(ADD + RET, 5)], 4)
    assert third.blocks == []


def test_an_operator_that_encloses_others_is_left_out():
    loop, inner, last = "0 1 4 WHILE", "1 1 -1 Add (ND)", "2 2 5 SOFTMAX"
    found = parse_operators([last, loop, inner], parse_parts(PLUGIN))
    assert [(op.name, op.node, op.dram_lines) for op in found] == [("Add (ND)", None, 4), ("SOFTMAX", 5, 0)]


@pytest.mark.parametrize("lines", [["0 1 0 A", "1 2 1 B"], ["2 3 0 A"]])
def test_operators_that_overlap_or_lie_outside_are_refused(lines):
    with pytest.raises(DeviceError, match="the profiler's clock is not ours"):
        parse_operators(lines, parse_parts(PLUGIN))


def test_operators_find_their_nodes_in_order_and_by_their_multiply_adds():
    """Constants have no operator, a conversion has no node, and the interpreter gives the node of its own operators."""
    names = ("DEQUANTIZE", "CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "GELU", "SOFTMAX")
    macs = (0, 100, 900, 50, 0, 0)
    nodes = [Kernel("", m, 0, 8 * (name == "DEQUANTIZE"), 0, name) for name, m in zip(names, macs, strict=True)]
    runs = [
        Run("Convert (NC, F32, F16)", None, 0),
        Run("Fully Connected (NC, F16) GEMM", None, 960),
        Run("Convolution (NHWC, F16) DWConv", None, 48),
        Run("GELU", 4, 70),
        Run("Softmax (NC, F16)", None, 3),
    ]
    assert assign(runs, nodes) == [None, 2, 3, 4, 5]
    assert not fits("Convolution (NHWC, F32) DWConv", "CONV_2D")
    assert fits("Average Pooling (NHWC, F32) Average Pooling", "AVERAGE_POOL_2D")


def test_multiply_adds_have_the_type_of_their_numbers():
    texts = {
        "a" * 8: "fmla v0.8h, v1.8h, v2.h[0]",
        "b" * 8: "sdot v0.4s, v1.16b, v2.4b[1]",
        "c" * 8: "madd x0, x1, x2, x3",
    }
    texts |= {
        "d" * 8: "fmla v0.4s, v1.4s, v2.s[0]",
        "e" * 8: "fmadd h0, h1, h2, h3",
        "f" * 8: "smlal v0.4s, v1.4h, v2.h[3]",
    }
    blocks = [Block(word, 2) for word in texts]
    assert macs_by_type(blocks, texts) == {"fp32": 8, "fp16": 18, "int8": 40}


def test_the_peak_is_that_of_the_cores_registers(emulator):
    """Cortex-A76: two pipes of 128 bits. Cortex-A72: one for 128-bit multiply-adds, no half precision, no sdot."""
    big, old = (load_device(name).config for name in ("cortex_a76", "cortex_a72"))
    assert isinstance(big, EmulatedConfig)
    assert isinstance(old, EmulatedConfig)
    assert peak_macs_per_cycle(emulator, big) == pytest.approx({"fp32": 8, "fp16": 16, "int8": 32}, rel=0.01)
    assert peak_macs_per_cycle(emulator, old) == pytest.approx({"fp32": 4, "int8": 8}, rel=0.01)


def test_the_operators_sum_is_the_whole(emulator, tmp_path, record_beside):
    """One layer of 4 M multiply-adds in a graph of its own: what is outside of the operator is below 3%."""
    path = record_beside(write_probe(tmp_path / "probe.tflite", 32, 64, 64), "litert", (1, 64, 32, 32))
    found = on_core(path)
    (only,) = found.operators
    assert (only.type, only.name, only.shape, only.computes_in) == ("FULLY_CONNECTED", "#0", "1×32×32×64", "fp32")
    assert only.macs == 32 * 32 * 64 * 64
    assert found.sum_cycles == pytest.approx(found.whole_cycles, rel=0.03)
    assert only.share_of_peak is not None
    assert 0.5 < only.share_of_peak <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("file", ["mlperf_tiny_vww_96_float", "mlperf_tiny_vww_96_int8"])
def test_every_node_of_a_network_has_its_cycles(file, emulator, shared):
    """Delegated operators and the interpreter's own (int8 pooling, softmax), each multiply-add attributed."""
    path = shared / "foreign" / "tflite" / f"{file}.tflite"
    found = on_core(path)
    assert found.sum_cycles == pytest.approx(found.whole_cycles, rel=0.02)
    nodes = [int(op.name[1:]) for op in found.operators if op.name]
    assert nodes == list(range(31))
    assert sum(op.macs for op in found.operators) == total_macs(kernels_of(path))
    assert all(op.share_of_peak is None or op.share_of_peak <= 1 for op in found.operators)
    assert {op.computes_in for op in found.operators if op.macs} == {"fp32" if "float" in file else "int8"}


def test_another_runtimes_operators_and_an_older_emulator_are_one_line(tmp_path):
    versions = Installed(qemu="7.2", llvm="19.1.7", llvm_suffix="19", litert="2.3.0", sources_sha256="0" * 64)
    old = Emulator(tmp_path, versions)
    with pytest.raises(DeviceError, match="counted for litert files only, not for ONNX Runtime"):
        check_traceable(old, "onnx", "a.onnx")
    with pytest.raises(DeviceError, match=r"prepared by another version.*: run `mobilezoo device setup emulator`"):
        check_traceable(old, "litert", "a.tflite")


def test_a_device_without_operators_ends_with_code_2(tiny_tflite, capsys):
    with pytest.raises(SystemExit) as done:
        main(["profile", str(tiny_tflite), "--ops", "--device", "android"])
    assert done.value.code == 2
    assert "--ops takes this machine or an emulated core" in capsys.readouterr().err


def test_the_command_prints_counts_and_draws_them(emulator, tiny_tflite, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MOBILEZOO_LATENCY_DB", str(tmp_path / "latency.db"))
    picture = tmp_path / "ops.svg"
    with pytest.raises(SystemExit) as done:
        main(["profile", str(tiny_tflite), "--ops", "--device", "cortex_a76", "--json", "--plot", str(picture)])
    assert not done.value.code
    (data,) = json.loads(capsys.readouterr().out)
    assert (data["core"], data["operators"][0]["type"]) == ("cortex_a76", "FULLY_CONNECTED")
    assert 0 < data["sum_cycles"] <= data["whole_cycles"]
    assert "share of the core" in picture.read_text()


def test_the_picture_keeps_the_networks_order_and_is_safe():
    def operator(kind: str, stage: str, cycles: float, of_peak: float | None = None) -> CountedOperator:
        return CountedOperator("#0", kind, kind, "1×8", stage, 0, 0, "fp32", 1, cycles, 0, cycles / 100, of_peak)

    operators = [operator("CONV", "8×8", 40, 0.5), operator("ADD", "8×8", 10), operator("CONV", "4×4", 30, 1.0)]
    found = CountedProfile("r", "c", 101.0, [*operators, operator("<script>", "4×4", 20)], {"fp32": 8.0})
    drawn = flame('"><script>', found)
    assert "<script>" not in drawn
    boxes = [g for g in ElementTree.fromstring(drawn) if g.tag.endswith("}g")]
    assert len(boxes) == 1 + 2 + 4 + 4 + 4
    widths = [float(box[1].get("width", "")) for box in boxes]
    assert widths[1:3] == pytest.approx([600, 600], abs=1)
    assert [float(box[1].get("height", "")) for box in boxes[-4:]] == [30, 0, 60, 0]
    conv, *_ = by_type(found)
    assert (conv.type, conv.operators, conv.share) == ("CONV", 2, pytest.approx(0.7))
    assert conv.share_of_peak == pytest.approx((40 * 0.5 + 30) / 70)
