"""The emulated phone. Tests that count skip where the emulator was never set up; CI sets it up."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mobilezoo
from mobilezoo.errors import ConfigError, DeviceError, MobilezooError
from mobilezoo.latency_report import Counts, Protocol
from mobilezoo_export.registry import load_runner
from mobilezoo_latency import Store, list_devices, load_artifact, load_device, profile, summarize
from mobilezoo_latency.emulator.calibration import Known, fit, left_out_ms
from mobilezoo_latency.emulator.cores import Calibration, EmulatedConfig
from mobilezoo_latency.emulator.counting import Block, BlockCounts, count_blocks, parse_counts
from mobilezoo_latency.emulator.device import EmulatedDevice, estimate_of
from mobilezoo_latency.emulator.layout import Emulator, find_emulator, home
from mobilezoo_latency.emulator.pricing import PriceList, cycles_of, disassemble, floating_or_integer_macs, macs_of
from mobilezoo_latency.emulator.probe import IN_CHANNELS, MACS, SIDE, write_probe
from mobilezoo_latency.emulator.refusals import in_words
from mobilezoo_latency.emulator.runtimes import is_current

CORES = ("cortex_a53", "cortex_a55", "cortex_a72", "cortex_a76", "cortex_x1")


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    if not (home() / "installed.json").is_file():
        pytest.skip("no emulator: run `mobilezoo device setup emulator`")
    return find_emulator()


def core(name: str = "cortex_a76") -> EmulatedConfig:
    device = load_device(name)
    assert isinstance(device, EmulatedDevice)
    return device.config


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("fmla v0.4s, v1.4s, v2.s[0]", 4),
        ("fmla v0.8h, v1.8h, v2.8h", 8),
        ("sdot v0.4s, v1.16b, v2.4b[1]", 16),
        ("smlal2 v0.4s, v1.8h, v2.h[3]", 4),
        ("mla v0.16b, v1.16b, v2.16b", 16),
        ("fmadd s0, s1, s2, s3", 1),
        ("fadd v0.4s, v1.4s, v2.4s", 0),
        ("ldr q0, [x1], #16", 0),
        ("unknown", 0),
    ],
)
def test_multiply_adds_are_read_from_the_instruction(text, macs):
    assert macs_of(text) == macs


def test_blocks_of_equal_code_are_added_up():
    text = "block 1000 3 d503201fd65f03c0\nblock 2000 4 d503201fd65f03c0\nmemory 9 5 2 1\ntotal 14 2\n"
    counted = parse_counts(text)
    assert counted.blocks == [Block("d503201fd65f03c0", 7)]
    assert (counted.instructions, counted.accesses, counted.misses) == (14, 9, (5, 2, 1))


@pytest.mark.parametrize("text", ["", "block 1000 3 d503201f\n", "block 1000 3 d503201f\ntotal 4 1\n"])
def test_a_truncated_count_is_refused(text):
    with pytest.raises(DeviceError, match="incomplete"):
        parse_counts(text)


def known(count: int, scale: float = 0.4, dram: float = 10.0) -> list[Known]:
    cycles = [1e6 * (3 + 7 * i) for i in range(count)]
    lines = [(37_003 * (i * i + 1)) % 90_001 for i in range(count)]
    return [
        Known(f"n{i}", Counts(instructions=1, cycles=c, dram_lines=m), scale * (c + dram * m) / 1e6)
        for i, (c, m) in enumerate(zip(cycles, lines, strict=True))
    ]


def test_calibration_finds_scale_and_memory_term_again():
    found = fit(known(12), "made up", "19.1.7")
    assert found.ms_per_megacycle == pytest.approx(0.4)
    assert found.dram_cycles == 10.0
    assert found.error_percent < 1e-6


def test_three_networks_calibrate_the_scale_alone():
    found = fit(known(3, dram=0.0), "made up", "19.1.7")
    assert (found.ms_per_megacycle, found.dram_cycles) == (pytest.approx(0.4), 0.0)


@given(st.lists(st.floats(0.5, 2.0), min_size=5, max_size=12))
def test_the_error_of_a_calibration_comes_from_networks_left_out(noise):
    networks = [k._replace(real_ms=k.real_ms * f) for k, f in zip(known(len(noise)), noise, strict=False)]
    found = fit(networks, "made up", "19.1.7")
    errors = [abs(left_out_ms(networks, i) / k.real_ms - 1) for i, k in enumerate(networks)]
    assert found.error_percent == pytest.approx(100 * sum(errors) / len(errors))
    assert found.low_ratio <= found.high_ratio


@pytest.mark.parametrize("networks", [known(2), [*known(3), known(1)[0]._replace(real_ms=0.0)]])
def test_calibration_from_too_few_or_impossible_latencies_is_refused(networks):
    with pytest.raises(MobilezooError, match="calibration"):
        fit(networks, "made up", "19")


def test_an_estimate_carries_its_error_and_basis():
    calibration = Calibration(
        ms_per_megacycle=0.5, dram_cycles=10, error_percent=7, low_ratio=0.9, high_ratio=1.2, basis="a board", llvm="19"
    )
    estimate = estimate_of(calibration, Counts(instructions=1, cycles=1e6, dram_lines=100_000))
    assert estimate.latency_ms == pytest.approx(1.0)
    assert (estimate.low_ms, estimate.high_ms) == (pytest.approx(0.9), pytest.approx(1.2))
    assert (estimate.error_percent, estimate.basis) == (7, "a board")


def test_the_error_of_another_precision_is_its_own_where_it_is_known():
    int8 = {"error_percent": 4.0, "low_ratio": 0.8, "high_ratio": 1.1, "basis": "int8 files on a board"}
    fitted = {"error_percent": 7.0, "low_ratio": 0.9, "high_ratio": 1.2, "basis": "a board", "llvm": "19"}
    calibration = Calibration.parse({"ms_per_megacycle": 0.5, **fitted, "held_out": {"int8": int8}})
    counts = Counts(instructions=1, cycles=2e6)
    known, unknown = (estimate_of(calibration, counts, precision) for precision in ("int8", "fp16"))
    assert known.latency_ms == unknown.latency_ms == 1.0
    assert (known.low_ms, known.high_ms) == (pytest.approx(0.8), pytest.approx(1.1))
    assert known.error_for("int8") == "±4.0%"
    assert known.basis == "a board; error: int8 files on a board"
    assert unknown.error_for("fp16") == "±7.0% on fp32 files, not known for fp16"


BOARDS = (
    "device.calibrations={phone: {runtime: Old 1, ms_per_megacycle: 0.5, error_percent: 7, low_ratio: 0.9, "
    "high_ratio: 1.2, basis: a phone, llvm: '19'}, board: {runtime: New 2, ms_per_megacycle: 0.25, error_percent: 3, "
    "low_ratio: 0.9, high_ratio: 1.1, basis: 'a board, New 2', llvm: '19'}}"
).removeprefix("device.")


@pytest.mark.parametrize(("name", "ms", "basis"), [("phone", 0.5, "a phone"), ("board", 0.25, "a board, New 2")])
def test_a_core_has_one_calibration_per_board_and_names_the_one_in_use(name, ms, basis):
    device = load_device("cortex_x1", (BOARDS, f"calibration={name}"))
    estimate = device.estimate(Counts(instructions=1, cycles=1e6), "19.1.7")
    assert (estimate.latency_ms, estimate.basis) == (pytest.approx(ms), basis)
    assert load_device("cortex_x1", (BOARDS,)).estimate(Counts(instructions=1, cycles=1e6), "19.1.7") is None


def test_a_calibration_that_is_not_there_is_refused_by_name():
    with pytest.raises(ConfigError, match="calibration 'tablet' is not in `calibrations`, which is phone, board"):
        load_device("cortex_x1", (BOARDS, "calibration=tablet"))


def test_a_calibration_may_stand_alone():
    alone = BOARDS.partition("{phone: ")[2].partition(", board:")[0]
    device = load_device("cortex_x1", (f"calibration={alone}",))
    assert device.config.conversion.basis == "a phone"


@pytest.mark.parametrize("name", CORES)
def test_every_shipped_calibration_names_its_runtime(name):
    for calibration in core(name).calibrations.values():
        assert calibration.runtime.split(",")[0] in calibration.basis
    assert not core(name).calibrations or core(name).conversion is not None


def test_every_core_is_shipped():
    assert set(CORES) <= set(list_devices())
    for name in CORES:
        assert core(name).caches


def test_a_core_with_a_bad_part_number_is_one_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("type: emulated\nqemu_cpu: cortex-a76\ncpu_part: d0b\n")
    with pytest.raises(ConfigError, match="cpu_part"):
        load_device(path)


def test_without_an_emulator_the_set_up_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEZOO_EMULATOR", str(tmp_path))
    with pytest.raises(DeviceError, match="mobilezoo device setup emulator"):
        load_device("cortex_a76").check()


def test_only_one_thread_is_taken(tiny_tflite, tmp_path):
    with pytest.raises(DeviceError, match="one thread"):
        profile(tiny_tflite, "cortex_a76", threads=2, store=Store(tmp_path / "latency.db"))


@pytest.mark.parametrize("name", CORES)
def test_the_same_artifact_gives_the_same_count_twice(name, emulator, tiny_tflite):
    first, second = (count_blocks(emulator, core(name), tiny_tflite) for _ in range(2))
    assert first.instructions == second.instructions > 0
    assert sorted(first.blocks) == sorted(second.blocks)
    assert first.misses == second.misses


def executions(counts: BlockCounts) -> Counter[str]:
    """How often each instruction word ran; blocks may be cut elsewhere."""
    found = Counter[str]()
    for block in counts.blocks:
        for word in block.words:
            found[word] += block.executions
    return found


def check_counts_do_not_depend_on_the_arithmetic(emulator: Emulator, path: Path) -> None:
    assert is_current(emulator, "litert"), "a runner that cannot skip would compare equal runs"
    counted, computed = (count_blocks(emulator, core(), path, compute=compute) for compute in (False, True))
    assert counted.output == ()
    assert len(computed.output) > 0
    assert executions(counted) == executions(computed)
    assert counted.accesses == computed.accesses
    cycles, full = (cycles_of(emulator, core(), counts.blocks) for counts in (counted, computed))
    assert cycles == pytest.approx(full, rel=0.01)


def test_counts_do_not_depend_on_the_arithmetic(emulator, tiny_tflite):
    check_counts_do_not_depend_on_the_arithmetic(emulator, tiny_tflite)


@pytest.mark.slow
def test_counts_of_half_precision_and_int8_do_not_depend_on_the_arithmetic(emulator, tmp_path):
    precisions = ("fp16", "int8")
    mobilezoo.export("mnasnet_small", out=tmp_path, to="litert", precision=precisions)
    for precision in precisions:
        check_counts_do_not_depend_on_the_arithmetic(emulator, next(tmp_path.glob(f"*.{precision}.tflite")))


def test_every_multiply_add_of_a_network_is_executed(emulator, tmp_path):
    counted = count_blocks(emulator, core(), write_probe(tmp_path / "probe.tflite"))
    macs = floating_or_integer_macs(emulator, core(), counted.blocks)
    assert MACS <= macs <= 1.1 * MACS


def test_the_emulated_network_computes_what_the_host_computes(emulator, tmp_path):
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    path = write_probe(tmp_path / "probe.tflite")
    host = Interpreter(str(path), num_threads=1)
    host.allocate_tensors()
    detail = host.get_input_details()[0]
    host.set_tensor(detail["index"], np.full(detail["shape"], 0.5, np.float32))
    host.invoke()
    expected = host.get_tensor(host.get_output_details()[0]["index"]).ravel()[:4]
    assert count_blocks(emulator, core(), path, compute=True).output == pytest.approx(expected, rel=1e-5)


def test_a_profile_holds_counts_and_says_it_is_emulated(emulator, tiny_tflite, tmp_path):
    store = Store(tmp_path / "latency.db")
    report = profile(tiny_tflite, "cortex_a76", store=store)
    again = profile(tiny_tflite, "cortex_a76", store=store)
    fresh = profile(tiny_tflite, "cortex_a76", store=store, reuse="none")
    assert (report.device.kind, report.protocol.name, report.samples_ms) == ("emulated", "count", ())
    assert report.counts == again.counts == fresh.counts
    assert (report.cached, again.cached, fresh.cached) == (False, True, False)
    if report.estimate is None:
        with pytest.raises(DeviceError, match="no calibration"):
            summarize(report)
    else:
        assert summarize(report)["median_ms"] == report.estimate.latency_ms


def test_prices_survive_a_lost_cache_and_do_not_depend_on_the_batch(emulator, tiny_tflite, tmp_path):
    copy = Emulator(tmp_path / "emulator", emulator.installed)
    copy.root.mkdir()
    for name in ("tools", "lite", "bin", "sysroot"):
        (copy.root / name).symlink_to(emulator.root / name)
    blocks = count_blocks(copy, core(), tiny_tflite).blocks
    first = cycles_of(copy, core(), blocks)
    shutil.rmtree(copy.root / "prices")
    assert cycles_of(copy, core(), blocks) == first
    alone = PriceList(Emulator(Path(tmp_path / "other"), emulator.installed), core())
    alone.emulator = copy
    alone.add([blocks[0].code])
    together = PriceList(copy, core())
    together.add(block.code for block in blocks)
    assert alone[blocks[0].code] == together[blocks[0].code]


def test_words_that_are_no_instructions_are_named_unknown(emulator):
    texts = disassemble(emulator, core(), ["00000000", "4e20cc00", "ffffffff"])
    assert texts["4e20cc00"].startswith("fmla v0.4s")
    assert texts["ffffffff"] == "unknown"


def test_a_file_the_runtime_refuses_is_one_line(emulator, tmp_path):
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"not a network")
    with pytest.raises(DeviceError, match=r"broken\.tflite did not run") as error:
        count_blocks(emulator, core(), path)
    assert "\n" not in str(error.value)


def test_protocols_that_time_do_not_apply(emulator, tiny_tflite):
    device = load_device("cortex_a76").for_artifact(load_artifact(tiny_tflite))
    assert device.protocol_for(Protocol(name="report")).name == "count"


@pytest.mark.parametrize("name", CORES)
def test_a_calibration_says_which_kinds_of_network_it_rests_on(name):
    calibration = core(name).conversion
    if calibration is not None:
        kinds = "14 CNNs, 8 of them with depthwise convolutions, none with other grouped ones"
        kinds = "4 EfficientDet-Lite detectors, no other kind of network" if name == "cortex_a72" else kinds
        assert kinds in calibration.basis


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "LiteRT refused LiteRtCreateModelFromFile(net->environment, path, &model) (status 5)",
            "does not load this file (CreateModelFromFile: unsupported): --device host may time it",
        ),
        (
            "LiteRT refused LiteRtRunCompiledModel(net->compiled, 0, net->outputs) (status 77)",
            "does not run this file (RunCompiledModel: status 77)",
        ),
        ("Killed", "Killed"),
    ],
)
def test_what_the_runner_refuses_is_said_in_words(said, words):
    assert in_words(said).endswith(words)


def test_a_file_that_the_emulators_runtime_refuses_is_one_line(emulator, shared, tmp_path):
    file = shared / "foreign" / "tflite" / "coral_keras_lstm_mnist_ptq.tflite"
    with pytest.raises(DeviceError, match=r"does not load this file \(CreateModelFromFile: unsupported\)") as error:
        profile(file, "cortex_a76", store=Store(tmp_path / "latency.db"))
    assert "\n" not in str(error.value)


def test_answers_come_back_from_the_emulated_core(emulator: Emulator, tiny_tflite: Path) -> None:
    """Seven images through a file of batch one: as this machine computes them, in the order they were given."""
    images = np.random.default_rng(0).standard_normal((7, IN_CHANNELS, SIDE, SIDE), dtype=np.float32)
    artifact = load_artifact(tiny_tflite)
    runner = load_device("cortex_a76").open_runner(artifact)
    here = load_runner(tiny_tflite).run(images)
    assert runner.run(images) == pytest.approx(here, rel=1e-4, abs=1e-5)
    runner.prepare(images[3:4])
    runner.invoke()
    assert runner.output() == pytest.approx(here[3:4], rel=1e-4, abs=1e-5)
    assert "emulated cortex_a76" in runner.runtime


def test_a_device_that_only_times_gives_no_answers(tiny_tflite: Path) -> None:
    with pytest.raises(DeviceError, match="host: files are timed there"):
        load_device("host").open_runner(load_artifact(tiny_tflite))
