"""The picture of a network: right shares, escaped names, times where operators were measured."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from mobilezoo.errors import ConfigError, MissingToolError
from mobilezoo.report.network_picture import MapTime, network_svg, si
from mobilezoo.workflows.draw_network import draw_network, read_operators, times_by_map

TABLE: dict[str, Any] = {
    "name": "<b>net</b>", "family": "mbconv", "resolution": "32", "params": 100, "macs": 4000,
    "stages": [
        {"stage": "stem", "layers": "Conv2d", "output": (8, 16, 16), "params": 25, "macs": 1000},
        {"stage": "blocks.0", "layers": "2 × Block & more", "output": (16, 16, 16), "params": 25, "macs": 1000},
        {"stage": "blocks.1", "layers": "Block", "output": (32, 8, 8), "params": 40, "macs": 2000},
        {"stage": "head", "layers": "Linear", "output": (10,), "params": 10, "macs": 0},
    ],
}  # fmt: skip
ROWS = [("0", "CONV_2D", "1×16×16×8", 2.0), ("1", "CONV_2D", "1×8×8×32", 1.0), ("2", "FULLY", "1×10", 0.5)]


def measured(file: str, rows: list[tuple[str, str, str, float]]) -> dict[str, Any]:
    operators = [dict(zip(("name", "type", "shape", "ms"), row, strict=True)) | {"share": 0.1} for row in rows]
    return {"file": file, "runtime": "LiteRT 2.3.0", "whole_ms": 3.4, "operators": operators, "how": "profiler"} | {
        "left_out": [], "unproven": None, "sum_ms": 3.5
    }  # fmt: skip


def test_counts_have_three_digits_and_a_prefix_at_every_bound() -> None:
    written = {0: "0", 999: "999", 999_400: "999 k", 999_600: "1 M", 1e9 - 1: "1 G", 3.414e6: "3.41 M"}
    assert {value: si(value) for value in written} == written


def test_bars_are_as_long_as_their_shares_and_names_are_escaped() -> None:
    svg = network_svg(TABLE)
    root = ElementTree.fromstring(svg)
    bars = [float(rect.get("width", 0)) for rect in root.iter() if rect.get("class") == "p"]
    assert bars == [29, 29, 46.4, 11.6]
    assert "<b>" not in svg
    assert "16×16×16" in svg
    assert "time" not in svg.partition("</style>")[2]


def test_times_stand_beside_the_maps_that_operators_write(tmp_path: Path) -> None:
    file = tmp_path / "ops.json"
    file.write_text(json.dumps([measured("a.fp32.tflite", ROWS)]))
    times = times_by_map(read_operators(file), [(16, 16), (8, 8)])
    assert [(time.size, time.ms) for time in times] == [((16, 16), 2.0), ((8, 8), 1.0), (None, 0.5)]
    assert sum(time.share for time in times) == pytest.approx(1)
    svg = draw_network(TABLE, tmp_path / "net.svg", file).read_text()
    assert svg.count('class="t"') == 2  # stem and blocks.0 share a size, and a bar
    assert "2 ms · 57.1%" in svg
    assert "0.5 ms (14.3%)" in svg
    first = [("0", "Conv", "1×8×16×16", 2.0), ("1", "MatMul", "1×64×32", 1.0)]
    file.write_text(json.dumps([measured("a.fp32.onnx", first)]))
    found = times_by_map(read_operators(file), [(16, 16), (8, 8)])
    assert found == [MapTime((16, 16), 2.0, 2 / 3), MapTime((8, 8), 1.0, 1 / 3)]


def test_times_of_another_network_or_of_several_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "ops.json"
    file.write_text(json.dumps([measured("a.tflite", [("0", "CONV_2D", "1×20×20×8", 2.0)])]))
    with pytest.raises(ConfigError, match="none of its operators"):
        draw_network(TABLE, tmp_path / "net.svg", file)
    assert not (tmp_path / "net.svg").exists()
    file.write_text(json.dumps([measured("a.tflite", ROWS)] * 2))
    with pytest.raises(ConfigError, match="2 files' times"):
        read_operators(file)


def test_netron_serves_one_file_to_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    from mobilezoo.workflows.netron import in_netron

    pytest.importorskip("netron")
    file = tmp_path / 'a"b.onnx'
    file.write_bytes(b"graph")
    (tmp_path / "secret.txt").write_text("s")
    monkeypatch.chdir(tmp_path)
    with in_netron(file) as url:
        assert url.startswith("http://127.0.0.1:")
        assert urlopen(f"{url}/data/a_b.onnx").read() == b"graph"
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{url}/data/secret.txt")


def test_a_missing_netron_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from mobilezoo.workflows.netron import in_netron

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=r"mobilezoo\[netron\]"), in_netron(tmp_path / "a.onnx"):
        pass
