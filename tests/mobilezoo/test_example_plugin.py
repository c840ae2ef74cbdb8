"""The template package in `examples/plugin`: each thing it adds is found, and used through every command."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mobilezoo.models import create_model
from mobilezoo.search.objective import Objective
from mobilezoo.workflows.list_plugins import plugin_rows

FOLDER = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture
def _example(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package imported from its folder."""
    monkeypatch.syspath_prepend(FOLDER / "src")
    import mobilezoo_example

    install(example=mobilezoo_example.PLUGIN)


@pytest.mark.usefixtures("_example")
def test_each_thing_is_found_and_used_by_its_name() -> None:
    rows = plugin_rows()
    assert {row["state"] for row in rows} == {"ok"}
    assert len({row["kind"] for row in rows}) == 8 + 4
    network = create_model("plain_8", num_classes=4, in_chans=1).eval()
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
    assert Objective(reward="within", target_ms=2)(50.0, 2.0) == 0.5
    assert Objective(reward="within", target_ms=2)(50.0, 2.1) == 0.0


@pytest.mark.usefixtures("_example")
def test_the_graph_pass_leaves_one_relu_of_two() -> None:
    from mobilezoo_export.passes import run_passes
    from mobilezoo_export.passes.graph import trace

    x = torch.randn(1, 3)
    graph = trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.ReLU()).eval(), x)
    expected = graph(x)
    assert run_passes(graph, x, ["relus"]) == {"relus": 1}
    assert torch.equal(graph(x), expected)
    assert sum("relu" in str(node.target) for node in graph.graph.nodes) == 1


@pytest.mark.nightly
def test_it_is_installed_and_used_through_every_command(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--target", site]
    done = subprocess.run([*pip, FOLDER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(site)]))
    Image.fromarray(np.tile(np.linspace(0, 255, 32), (32, 1)).astype("uint8")).save(tmp_path / "ramp.png")

    def run(command: str, code: int = 0) -> str:
        words = [sys.executable, "-m", "mobilezoo", *command.split()]
        env = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    rows = json.loads(run("plugins --json"))
    assert {row["state"] for row in rows} == {"ok"}
    assert {row["package"] for row in rows} == {"mobilezoo-example 0.1.0"}
    assert json.loads(run("list plain* --json"))[0]["name"] == "plain_8"
    assert json.loads(run("show plain_8 --json"))["family"] == "plain"
    run("train gradients train.epochs=1 --quiet")
    (exported,) = json.loads(run("export runs/gradients/best.safetensors --to pt2 passes=relus --json"))
    file = exported["path"]
    assert exported["artifact"]["parity"]["relative"] < 1e-5
    assert exported["artifact"]["coverage"]["ops"]["aten.conv2d.default"] == 7
    assert "drop 0.00" in run(f"eval {file}")
    assert "right" in run(f"predict {file} ramp.png")
    assert "in_process" in run("device list")
    assert "in_process" in run("device check in_process")
    (timed,) = json.loads(run(f"profile {file} --device in_process --json"))
    assert len(timed["samples_ms"]) == 30
    assert "PyTorch" in run(f"profile {file} --json")
    for words in ("--ops", "--device browser", "--device cortex_a76"):
        error = run(f"profile {file} {words}", code=2)
        assert len(error.splitlines()) == 1
        assert "'pt2'" in error
    assert "reward" in run("search run gradients trials=2 --quiet")
    run("report .")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "pt2" in page
    assert "gradients" in page
