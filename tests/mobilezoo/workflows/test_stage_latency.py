"""Where a phone's time goes: operators divided among stages, and prices that add up to the whole."""

from pathlib import Path

import numpy as np
import pytest

from mobilezoo.errors import DeviceError, ExportError
from mobilezoo.report.network_picture import network_svg
from mobilezoo.workflows.draw_network import draw_network, price_words
from mobilezoo.workflows.list_models import stage_table
from mobilezoo.workflows.stage_latency import StagePrice, StagePrices, price_stages, stage_borders

MODEL, SMALL = "mnasnet_a1_035", ("resolution=32",)
PRICES = StagePrices(
    device="cortex_a76", runtime="LiteRT 2.3.0 (XNNPACK)", unit="ms", whole=2.0, error_percent=7.7, basis="a <board>",
    stages=(StagePrice(first=0, last=1, value=1.5, share=0.75), StagePrice(first=2, last=2, value=0.5, share=0.25)),
)  # fmt: skip
TABLE = {
    "name": "net", "family": "mbconv", "resolution": "32", "params": 100, "macs": 4000,
    "stages": [
        {"stage": name, "layers": "Conv2d", "output": (8, 16, 16), "params": 25, "macs": 1000}
        for name in ("stem", "norm", "head")
    ],
}  # fmt: skip


def test_operators_without_multiply_adds_stay_with_the_stage_before() -> None:
    operators = [0.0, 10.0, 0.0, 20.0, 30.0, 0.0, 5.0, 0.0]
    groups, borders = stage_borders(operators, [10.0, 0.0, 50.0, 5.0], "net")
    assert groups == [(0, 1), (2, 2), (3, 3)]
    assert borders == [3, 6, 8]
    assert stage_borders([0.0, 10.0], [0.0, 10.0], "net") == ([(0, 1)], [2])


@pytest.mark.parametrize("operators", [[60.0, 5.0], [], [10.0, 50.0]])
def test_a_file_whose_operators_do_not_end_with_a_stage_is_refused(operators: list[float]) -> None:
    with pytest.raises(ExportError, match="cannot be told apart by stage"):
        stage_borders(operators, [10.0, 50.0, 5.0], "net")


def test_what_is_not_emulated_prices_no_stages() -> None:
    with pytest.raises(DeviceError, match="no emulated core"):
        price_stages(MODEL, SMALL, TABLE, "host")


def test_the_picture_marks_prices_as_predicted(tmp_path: Path) -> None:
    svg = draw_network(TABLE, tmp_path / "net.svg", prices=PRICES).read_text(encoding="utf-8")
    assert svg.count('class="t"') == 2
    assert "1.5 ms · 75.0%" in svg
    assert ">predicted time<" in svg
    assert "Predicted, not timed" in svg
    assert "mean error 7.7%" in svg
    assert "a &lt;board&gt;" in svg
    assert "Predicted" not in network_svg(TABLE)
    cycles = PRICES.model_copy(update={"unit": "M cycles", "error_percent": None, "basis": None})
    assert "no calibration" in price_words(cycles)


@pytest.mark.slow
def test_prices_of_stages_add_up_to_the_file(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    from mobilezoo_latency.emulator.layout import home

    if not (home() / "installed.json").is_file():
        pytest.skip("no emulator: run `mobilezoo device setup emulator`")
    table = stage_table(MODEL, SMALL)
    prices = price_stages(MODEL, SMALL, table, "cortex_a76")
    assert [s.first for s in prices.stages] == [0, *(s.last + 1 for s in prices.stages[:-1])]
    assert prices.stages[-1].last == len(table["stages"]) - 1
    assert all(s.value > 0 for s in prices.stages)
    assert sum(s.value for s in prices.stages) == pytest.approx(prices.whole)


def test_the_first_operators_compute_what_they_did_in_the_whole(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    from mobilezoo_export.litert_prefix import write_prefix
    from mobilezoo_export.registry import load_runner
    from mobilezoo_latency.emulator.probe import IN_CHANNELS, SIDE, write_probe

    whole, part = write_probe(tmp_path / "whole.tflite"), tmp_path / "part.tflite"
    write_prefix(whole, 1, part)
    image = np.random.default_rng(0).standard_normal((1, SIDE, SIDE, IN_CHANNELS), dtype=np.float32)
    answers = []
    for file in (whole, part):
        runner = load_runner(file)
        runner.feed([image])
        runner.invoke()
        answers.append(runner.output())
    np.testing.assert_array_equal(answers[0], answers[1])
    with pytest.raises(ExportError, match="2 of 1 operators"):
        write_prefix(whole, 2, part)
