"""Tables and predictors of a search space through their commands; the nightly one exports and measures for real."""

import json
from pathlib import Path

import numpy as np
import pytest

from mobilezoo.cli.main import main
from mobilezoo.config import write_yaml
from mobilezoo.latency_report import DeviceInfo
from mobilezoo.search.networks import yaml_data
from mobilezoo.workflows.estimate_latency import load_space
from mobilezoo.workflows.latency_blocks import block_keys
from mobilezoo_latency.estimators.kernels import conv
from mobilezoo_latency.estimators.predictor import Measured, train
from mobilezoo_latency.estimators.table import Table, WholeNetwork
from mobilezoo_latency.protocol import TIERS

PIXEL = DeviceInfo(name="Pixel 9", kind="phone", runtime="LiteRT")


def call(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(list(args))
    said = capsys.readouterr()
    return int(done.value.code or 0), said.out, said.err


def network(tmp_path: Path, seed: int = 3) -> tuple[str, list[str]]:
    """A model YAML out of the digits space, and its block keys."""
    space = load_space("digits")
    point = space.sample(np.random.default_rng(seed))
    return str(write_yaml(tmp_path / f"net{seed}.yaml", yaml_data(space, point))), block_keys(space, point)


def table(keys: list[str]) -> Table:
    made = Table(device=PIXEL, source="made up", blocks_ms=dict.fromkeys(keys, 0.5))
    whole = [WholeNetwork(keys[: n + 1], 0.4 * (n + 1) + 1.0) for n in range(len(keys))]
    return made.fit_overhead(whole)


@pytest.mark.parametrize("verb", ["table", "import-table", "fit", "predict"])
def test_every_command_teaches_by_example(verb, capsys):
    code, out, _ = call(capsys, "latency", verb, "--help")
    assert code == 0
    assert f"mobilezoo latency {verb}" in out


def test_keys_name_all_that_decides_a_blocks_latency(tmp_path):
    space = load_space("digits")
    points = [space.sample(np.random.default_rng(seed)) for seed in range(40)]
    for point in points:
        keys = block_keys(space, point)
        assert len(keys) == 2 + sum(stage.depth for stage in point.stages)
        assert keys[0].endswith("stem-3>16-48")
        assert keys[-1].endswith(f"head-{point.stages[-1].width}>128-6")
    assert len({tuple(block_keys(space, p)) for p in points}) == len({str(p) for p in points})


def test_a_table_predicts_a_network_of_its_space(tmp_path, capsys):
    model, keys = network(tmp_path)
    table(keys).save(tmp_path / "t.json")
    code, out, err = call(capsys, "latency", "predict", model, "--with", str(tmp_path / "t.json"), "--space", "digits")
    assert code == 0, err
    assert f"{0.4 * len(keys) + 1.0:.3f} ms" in out
    assert "estimated, not measured" in out


def test_a_table_for_another_device_another_space_or_no_space_is_one_line(tmp_path, capsys):
    model, keys = network(tmp_path)
    table(keys).save(tmp_path / "t.json")
    start = ("latency", "predict", model, "--with", str(tmp_path / "t.json"))
    for more, expected in (
        ((), "name the search space with --space"),
        (("--space", "digits", "--device", "host_litert"), "this table is for Pixel 9 (LiteRT), not for host"),
        (("--space", "mnasnet"), "not a point of the space"),
    ):
        code, _, err = call(capsys, *start, *more)
        assert (code, err.count("\n")) == (2, 1)
        assert expected in err


def test_a_predictor_predicts_an_exported_file(tmp_path, capsys):
    from mobilezoo_latency.emulator.probe import write_probe

    rows = [Measured([conv(3, 8, 8 * n, 16, 16)], 0.1 * n) for n in range(1, 13)]
    train(rows, PIXEL).save(tmp_path / "p.json")
    file = write_probe(tmp_path / "probe.tflite")
    code, out, err = call(capsys, "latency", "predict", str(file), "--with", str(tmp_path / "p.json"), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert 0 < found["low_ms"] <= found["latency_ms"] <= found["high_ms"]
    code, _, err = call(
        capsys, "latency", "predict", str(file), "--with", str(tmp_path / "p.json"), "--device", "host_ort"
    )
    assert code == 2
    assert "this predictor is for Pixel 9" in err


def test_a_published_table_is_taken_over(tmp_path, capsys):
    (tmp_path / "lut.csv").write_text("key,mean_ms\nfirst,1.5\n")
    out = tmp_path / "t.json"
    code, said, _ = call(
        capsys, "latency", "import-table", str(tmp_path / "lut.csv"), "--on", "Pixel 1", "--out", str(out)
    )
    assert code == 0
    assert "error is unknown" in said
    assert json.loads(out.read_text())["device"]["name"] == "Pixel 1"


def test_what_is_neither_table_nor_predictor_is_one_line(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{")
    for name, expected in (("x.json", "not valid JSON"), ("missing.json", "not found")):
        code, _, err = call(capsys, "latency", "predict", "x.tflite", "--with", str(tmp_path / name))
        assert code == 2
        assert expected in err


@pytest.mark.nightly
def test_a_table_and_a_predictor_are_made_by_one_command_each_and_go_on(tmp_path, capsys, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv("MOBILEZOO_LATENCY_DB", str(tmp_path / "latency.db"))
    calm = {"sentinel_tolerance": 1e3, "drift_tolerance": None, "stable_tolerance": 1e3, "max_other_load": 1.0}
    quick = {"warmup_s": 0.05, "min_s": 0.05, "max_repeats": 1}
    monkeypatch.setitem(TIERS, "screen", TIERS["screen"].model_copy(update={**calm, **quick}))
    work = ("--work", str(tmp_path / "work"), "--quiet")
    made = tmp_path / "t.json"
    code, out, err = call(capsys, "latency", "table", "digits", "--networks", "3", "--out", str(made), *work)
    assert code == 0, err
    assert "each left out once" in out
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.tflite")}
    fitted = tmp_path / "p.json"
    code, out, err = call(capsys, "latency", "fit", "digits", "--networks", "8", "--out", str(fitted), *work)
    assert code == 0, err
    assert all(path.stat().st_mtime_ns == time for path, time in files.items()), "files that were there are kept"
    (net, *_) = sorted((tmp_path / "work" / "digits").glob("*.tflite"))
    code, out, err = call(capsys, "latency", "predict", str(net), "--with", str(fitted), "--device", "host_litert")
    assert code == 0, err
