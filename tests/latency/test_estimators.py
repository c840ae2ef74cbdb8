"""Tables and predictors on made-up devices whose truth is known, and kernels of real files."""

import math

import numpy as np
import pytest

from mobilezoo.errors import DeviceError, MobilezooError
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo_latency import Device, Store
from mobilezoo_latency.contract import DeviceConfig
from mobilezoo_latency.emulator.probe import IN_CHANNELS, MACS, OUT_CHANNELS, SIDE
from mobilezoo_latency.estimators.kernels import FEATURES, Kernel, conv, features, kernels_of, total_macs
from mobilezoo_latency.estimators.predictor import Measured, Predictor, train
from mobilezoo_latency.estimators.speed import at_one_speed
from mobilezoo_latency.estimators.table import Table, WholeNetwork, import_csv, load_table, measure_table

INFO = DeviceInfo(name="made up", kind="phone", runtime="none")
OTHER = DeviceInfo(name="another", kind="phone", runtime="none")


def some_network(rng: np.random.Generator) -> list[Kernel]:
    """Inverted residuals of random widths, kernels and depths."""
    kernels, channels, side = [conv(3, 3, 16, 32, 32, stride=2)], 16, 32
    for _ in range(int(rng.integers(2, 6))):
        hidden, k = channels * int(rng.integers(2, 7)), int(rng.choice([3, 5]))
        kernels += [conv(1, channels, hidden, side, side), conv(k, hidden, hidden, side, side, groups=hidden)]
        wider = channels + int(rng.integers(0, 3)) * 8
        kernels.append(conv(1, hidden, wider, side, side))
        channels = wider
        if rng.random() < 0.4 and side > 4:
            side //= 2
    return [*kernels, conv(1, channels, 100, 1, 1)]


def true_ms(kernels, speed: float = 1.0) -> float:
    """A device with a rate per kind, a cost per kernel, and poor use of few channels."""
    rate = {"conv1": 0.05, "conv": 0.06, "depthwise3": 0.3, "depthwise": 0.2}
    times = [0.01 + rate[k.kind] * k.macs / 1e6 + 2e-8 * k.activation_bytes for k in kernels]
    return speed * (0.2 + sum(times)) * (1 + 0.1 * math.tanh(len(kernels) / 10))


@pytest.fixture(scope="module")
def networks() -> list[list[Kernel]]:
    rng = np.random.default_rng(0)
    return [some_network(rng) for _ in range(260)]


@pytest.fixture(scope="module")
def predictor(networks) -> Predictor:
    rng = np.random.default_rng(1)
    noisy = [Measured(n, true_ms(n) * float(np.exp(0.02 * rng.standard_normal()))) for n in networks[:100]]
    return train(noisy, INFO)


def test_the_predictor_finds_a_devices_latency_on_networks_it_never_saw(networks, predictor):
    errors = [abs(predictor.predict_kernels(n).latency_ms / true_ms(n) - 1) for n in networks[100:]]
    assert np.mean(errors) < 0.02
    assert np.mean([e <= 0.1 for e in errors]) >= 0.95


def test_the_interval_covers_as_often_as_it_says(networks, predictor):
    rng = np.random.default_rng(2)
    inside = 0
    for n in networks[100:]:
        real = true_ms(n) * float(np.exp(0.02 * rng.standard_normal()))
        estimate = predictor.predict_kernels(n)
        inside += estimate.low_ms <= real <= estimate.high_ms
    assert 0.82 <= inside / 160 <= 0.98


def test_the_stated_error_is_about_the_error_on_new_networks(networks, predictor):
    rng = np.random.default_rng(3)
    real = [true_ms(n) * float(np.exp(0.02 * rng.standard_normal())) for n in networks[100:]]
    guess = [predictor.predict_kernels(n).latency_ms for n in networks[100:]]
    error = 100 * np.mean([abs(g / r - 1) for g, r in zip(guess, real, strict=True)])
    assert predictor.record.error_percent == pytest.approx(error, rel=0.4)


@pytest.mark.slow
def test_twenty_measurements_carry_a_predictor_to_another_device(networks, predictor):
    rows = [Measured(n, true_ms(n, speed=3.0)) for n in networks[100:120]]
    moved = train(rows, OTHER, source=predictor)
    errors = [abs(moved.predict_kernels(n).latency_ms / true_ms(n, 3.0) - 1) for n in networks[120:]]
    assert np.mean(errors) < 0.03
    assert moved.record.device == OTHER


@pytest.mark.slow
def test_a_saved_predictor_predicts_the_same(networks, predictor, tmp_path):
    loaded = Predictor.load(predictor.save(tmp_path / "p.json"))
    assert loaded.predict_kernels(networks[0]) == predictor.predict_kernels(networks[0])
    moved = train([Measured(n, true_ms(n, 2.0)) for n in networks[:10]], OTHER, source=predictor)
    again = Predictor.load(moved.save(tmp_path / "q.json"))
    assert again.predict_kernels(networks[0]) == moved.predict_kernels(networks[0])


@pytest.mark.parametrize("text", ["", "{", '{"device": 3}'])
def test_a_damaged_predictor_is_one_line(text, tmp_path):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(MobilezooError):
        Predictor.load(tmp_path / "p.json")


def test_too_few_or_impossible_measurements_are_refused(networks):
    with pytest.raises(MobilezooError, match="at least 8"):
        train([Measured(networks[0], 1.0)] * 3, INFO)
    with pytest.raises(MobilezooError, match="positive"):
        train([Measured(n, 0.0) for n in networks[:10]], INFO)


def test_kernels_of_a_file_are_its_operators(tiny_tflite):
    (kernel,) = kernels_of(tiny_tflite)
    assert (kernel.kind, kernel.macs) == ("dense", MACS)
    assert kernel.activation_bytes == 4 * SIDE * SIDE * (IN_CHANNELS + OUT_CHANNELS)
    assert kernel.weight_bytes == 4 * OUT_CHANNELS * (IN_CHANNELS + 1)


def test_kernels_are_read_from_litert_files_only(tiny_onnx):
    with pytest.raises(DeviceError, match=r"no LiteRT file"):
        kernels_of(tiny_onnx)


def test_features_hold_every_multiply_add(networks):
    values = dict(zip(FEATURES, features(networks[0]), strict=True))
    assert sum(v for name, v in values.items() if name.endswith("_mmacs")) == pytest.approx(
        total_macs(networks[0]) / 1e6
    )
    assert sum(v for name, v in values.items() if name.endswith("count")) == pytest.approx(len(networks[0]))


def test_channels_are_rounded_up_to_the_vectors_of_a_processor():
    values = dict(zip(FEATURES, features([conv(1, 16, 12, 4, 4)]), strict=True))
    assert values["conv1_mmacs8"] / values["conv1_mmacs"] == pytest.approx(16 / 12)
    assert values["conv1_mmacs16"] / values["conv1_mmacs"] == pytest.approx(16 / 12)
    values = dict(zip(FEATURES, features([conv(1, 16, 20, 4, 4)]), strict=True))
    assert values["conv1_mmacs16"] / values["conv1_mmacs"] == pytest.approx(32 / 20)


def timed(ms: float, sentinel: float | None) -> LatencyReport:
    return LatencyReport(
        artifact_sha256="a" * 64,
        artifact="a.tflite",
        target="litert",
        precision="fp32",
        model="a",
        device=INFO,
        protocol=Protocol(),
        samples_ms=(ms,) * 5,
        load_ms=None,
        first_run_ms=None,
        sentinel_before_ms=sentinel,
        sentinel_after_ms=sentinel,
        measured_at="2024-01-01T00:00:00+00:00",
    )


def test_latencies_of_a_machine_that_changed_speed_are_referred_to_one():
    slow_half = [timed(2.0, 0.5), timed(4.0, 1.0), timed(2.0, 0.5)]
    assert at_one_speed(slow_half) == pytest.approx([2.0, 2.0, 2.0])
    assert at_one_speed([timed(2.0, None), timed(4.0, None)]) == [2.0, 4.0]


def made_table() -> Table:
    return Table(device=INFO, source="made up", blocks_ms={f"b{i}": 0.5 + 0.1 * i for i in range(10)})


def whole(rng: np.random.Generator, scale: float = 0.9, overhead: float = 2.0) -> WholeNetwork:
    keys = [f"b{i}" for i in rng.integers(0, 10, size=int(rng.integers(3, 20)))]
    return WholeNetwork(keys, scale * made_table().sum_ms(keys) + overhead)


def test_a_table_learns_its_overhead_and_states_its_error():
    rng = np.random.default_rng(0)
    table = made_table().fit_overhead([whole(rng) for _ in range(12)])
    assert (table.scale, table.overhead_ms) == (pytest.approx(0.9), pytest.approx(2.0))
    assert table.error_percent == pytest.approx(0.0, abs=1e-6)
    test = whole(rng)
    estimate = table.compose(test.keys)
    assert estimate.latency_ms == pytest.approx(test.ms)
    assert "12 networks" in estimate.basis


def test_a_table_without_known_error_gives_no_estimate():
    with pytest.raises(DeviceError, match="no known error"):
        made_table().compose(["b1"])
    with pytest.raises(MobilezooError, match="at least 3"):
        made_table().fit_overhead([WholeNetwork(["b1"], 1.0)])


def test_a_missing_block_and_another_device_are_named():
    table = made_table().fit_overhead([whole(np.random.default_rng(i)) for i in range(3)])
    with pytest.raises(DeviceError, match=r"no block 'b77'"):
        table.compose(["b1", "b77"])
    with pytest.raises(DeviceError, match=r"made up.*not for another"):
        table.compose(["b1"], device=OTHER)


def test_a_saved_table_is_the_same_table(tmp_path):
    table = made_table()
    assert load_table(table.save(tmp_path / "t.json")) == table
    (tmp_path / "t.json").write_text("[")
    with pytest.raises(MobilezooError, match="not valid JSON"):
        load_table(tmp_path / "t.json")


class BusyDevice(Device):
    """Every measurement of it is noisy; after `left` of them the user interrupts."""

    Config = DeviceConfig

    def __init__(self, left: int) -> None:
        super().__init__(DeviceConfig(type="busy", name="busy"))
        self.left, self.measured = left, list[str]()

    def check(self) -> None: ...

    def describe(self) -> DeviceInfo:
        return INFO

    def measure(self, artifact, protocol) -> LatencyReport:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.measured.append(artifact.path.name)
        noise = {"noisy": ("other processes used 90% of all cores",), "artifact_sha256": artifact.record.sha256}
        return timed(1.0 + len(self.measured), 1.0).model_copy(update={**noise, "protocol": protocol})


def test_an_interrupted_table_measures_only_what_is_missing_also_on_a_busy_machine(tmp_path, record_beside):
    blocks = {}
    for name in "abcde":
        (tmp_path / f"{name}.tflite").write_text(name)
        blocks[name] = record_beside(tmp_path / f"{name}.tflite", "litert", (1, 4, 4, 4))
    store, once = Store(tmp_path / "latency.db"), Protocol(max_repeats=1)
    first = BusyDevice(left=3)
    with pytest.raises(KeyboardInterrupt):
        measure_table(blocks, first, once, store=store)
    assert first.measured == ["a.tflite", "b.tflite", "c.tflite"]
    second = BusyDevice(left=9)
    assert list(measure_table(blocks, second, once, store=store).blocks_ms) == list("abcde")
    assert second.measured == ["d.tflite", "e.tflite"]
    third = BusyDevice(left=0)
    assert measure_table(blocks, third, once, store=store).blocks_ms["c"] == pytest.approx(4.0)


def test_a_published_table_is_read_from_csv(tmp_path):
    (tmp_path / "lut.csv").write_text("key,mean_ms\nfirst,1.5\nsecond,2\n")
    assert import_csv(tmp_path / "lut.csv", INFO).blocks_ms == {"first": 1.5, "second": 2.0}
    (tmp_path / "bad.csv").write_text("name,ms\nfirst,1.5\n")
    with pytest.raises(MobilezooError, match="no column 'key', only \\['name', 'ms'\\]"):
        import_csv(tmp_path / "bad.csv", INFO)


@pytest.mark.parametrize("value", ["fast", "nan", "inf", "-1", "0", "", "1e999"])
def test_a_row_without_a_latency_is_named_by_its_line(value, tmp_path):
    (tmp_path / "lut.csv").write_text(f'key,mean_ms\n"first\nblock",1.5\nsecond,{value}\n')
    with pytest.raises(MobilezooError, match=r"lut\.csv, line 4: .* is no latency"):
        import_csv(tmp_path / "lut.csv", INFO)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"key,mean_ms\nfirst\n", "line 2: '' is no latency"),
        (b"key,mean_ms\nfirst,1\nfirst,2\n", "line 3: block 'first' stands there twice"),
        (b"key,mean_ms\n,2\n", "line 2: no block name"),
        (b"key,mean_ms\n", "no row below"),
        (b"", "no column 'key'"),
        (b"key,mean_ms\n\xff,2\n", "cannot be read as CSV"),
    ],
)
def test_a_csv_that_is_no_table_is_one_line(text, said, tmp_path):
    (tmp_path / "lut.csv").write_bytes(text)
    with pytest.raises(MobilezooError, match=said) as error:
        import_csv(tmp_path / "lut.csv", INFO)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["-1.0", "0.0"])
def test_a_saved_table_with_an_impossible_latency_is_refused(value, tmp_path):
    path = made_table().save(tmp_path / "t.json")
    path.write_text(path.read_text().replace('"b0": 0.5', f'"b0": {value}'))
    with pytest.raises(MobilezooError, match="b0"):
        load_table(path)


def test_the_published_pixel_1_table_is_importable(shared):
    path = shared / "phones" / "proxylessnas_pixel1_lut" / "pixel1_lut.csv"
    table = import_csv(path, DeviceInfo(name="Pixel 1", kind="phone", runtime="TFLite"))
    assert len(table.blocks_ms) == 72
    assert table.blocks_ms["Logits-input:7x7x1280-output:1000"] == pytest.approx(0.3096, abs=1e-3)
