"""Every command may be killed at any moment: nothing half-written is believed, nothing is left, no child survives."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import mobilezoo
from mobilezoo import hub
from mobilezoo.artifacts import Checkpoint, load_record_of, write_with_record
from mobilezoo.files import sha256_of
from mobilezoo.models import load_model_config
from mobilezoo.models.randomize import randomize_norms
from mobilezoo_export import open_artifact
from mobilezoo_latency import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent"),
]
MODEL, PATIENCE_S = "mnasnet_a1_035", 20.0
COMMANDS = {
    "eval": ["eval", "best.safetensors", "--data", "folder:data", "--workers", "2", "--quiet"],
    "predict": ["predict", "theirs.onnx", "data/val", "--preprocess", "unit,size=32", "--labels", "a,b", "--csv"],
    "profile": ["profile", "theirs.onnx", "--resolution", "32", "--no-cache", "--quiet"],
    "convert": ["convert", "old.pth", "--model", MODEL, "--labels", "a,b", "--out", "new.safetensors"],
    "push": ["push", "best.safetensors", "--local", "pushed"],
    "pull": ["pull", "shared", "--out", "pulled"],
    "report": ["report", "runs", "--out", "report.html"],
    "data-check": ["data", "check", "data", "--quiet"],
    "train": ["train", "digits", f"model={MODEL}", "train.epochs=2", "train.resolution=32", "name=r", "--resume"],
    "export": ["export", "best.safetensors", "--to", "onnx", "--out", "files", "--quiet", "--overwrite"],
    "import-table": ["latency", "import-table", "blocks.csv", "--on", "phone", "--out", "table.json"],
}

OFTEN = ("eval", "convert", "push", "train", "export")
"""The others are killed nightly."""


def environment(folder: Path) -> dict[str, str]:
    """A marked one, so that every process that comes from it can be found."""
    (folder / "tmp").mkdir(exist_ok=True)
    path = os.pathsep.join(filter(None, sys.path))
    store = str(folder / "latency.db")
    return {**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder / "tmp"), "MOBILEZOO_LATENCY_DB": store}


def living(folder: Path) -> list[str]:
    """Command lines of processes that work for `folder`."""
    marked = f"TMPDIR={folder}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marked in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # another user's, or gone
            continue
    return found


SPACE = """
space:
  resolution: [32]
  stem: 8
  head: 16
  stages:
    - {stride: 2, block: [ir], kernel: [3, 5], expansion: [2, 3], width: [8, 16], depth: [1]}
objective: {reward: mnas_hard, target_ms: 0.08}
recipe: digits
"""


def run(args: list[str], folder: Path, kill_after_s: float | None = None) -> str | None:
    """What a command prints; None where it was killed before its end."""
    command = [sys.executable, "-m", "mobilezoo", *args]
    said = folder / "tmp" / "said.txt"  # a pipe would be waited for as long as a survivor holds it
    env = environment(folder)
    with said.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout=kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None
    assert code == 0, said.read_text()
    return said.read_text()


def inputs(folder: Path) -> None:
    network = randomize_norms(mobilezoo.create_model(MODEL, num_classes=2), torch.Generator().manual_seed(0))
    preprocessing = load_model_config(MODEL).preprocessing()

    def describe(path: Path) -> Checkpoint:
        size = {"num_classes": 2, "resolution": (32, 32), "labels": ("a", "b")}
        return Checkpoint(path=path.name, sha256=sha256_of(path), model=MODEL, preprocessing=preprocessing, **size)

    write_with_record(folder / "best.safetensors", lambda path: save_file(network.state_dict(), path), describe)
    torch.save(network.state_dict(), folder / "old.pth")
    hub.write_folder(folder / "best.safetensors", folder / "shared")
    for split in ("train", "val", "validation"):
        for number, name in enumerate("ab" * 4):
            place = folder / "data" / split / name
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (number * 20, 0, len(split) * 20)).save(place / f"{number}.png")
    theirs_file(folder / "theirs.onnx")
    (folder / "runs").mkdir()
    (folder / "runs" / "metrics.csv").write_text("epoch,loss\n1,2\n2,1\n")
    (folder / "blocks.csv").write_text("key,mean_ms\na,1.5\nb,2.5\n")


def theirs_file(path: Path) -> None:
    """A file of others with an open size: two means of an image's channels."""
    from onnx import TensorProto, helper, numpy_helper

    steps = [
        helper.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "first"], ["scores"], axis=1),
    ]
    tables = {"axes": [2, 3], "first": [0, 1]}
    graph = helper.make_graph(
        steps,
        "means",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in tables.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def check_whole(folder: Path) -> None:
    """All that a later command would take is whole, or is refused by it."""
    for page in folder.glob("*.html"):
        assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
    for made in (*folder.glob("*.json"), *folder.glob("pushed/*.json")):
        json.loads(made.read_text(encoding="utf-8"))
    if (folder / "pushed").exists():
        assert {file.name for file in (folder / "pushed").iterdir()} >= {"config.json", "model.safetensors"}
        load_file(folder / "pushed" / "model.safetensors")
    for copy in (folder / "runs" / "profile").glob("[!.]*.onnx"):
        onnx.load(copy)
    if (folder / "latency.db").exists():
        assert not Store(folder / "latency.db").damaged()
    for record in folder.rglob("*.safetensors.json"):
        load_record_of(Checkpoint, record.with_suffix(""))
    for file in (*(folder / "files").glob("[!.]*.onnx"), *(folder / "work").rglob("[!.]*.tflite")):
        assert not open_artifact(file).foreign


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in OFTEN else [pytest.mark.nightly]) for name in COMMANDS]
)
def test_a_killed_command_can_be_given_again(tmp_path: Path, name: str) -> None:
    inputs(tmp_path)
    began = time.monotonic()
    run(COMMANDS[name], tmp_path)
    duration, moments = time.monotonic() - began, random.Random(name)
    run(COMMANDS[name], tmp_path, duration * moments.uniform(0.4, 1.0))
    check_left(tmp_path)
    said = run(COMMANDS[name], tmp_path)
    assert said is not None
    check_whole(tmp_path)
    assert not [path for path in tmp_path.rglob("*.mz-*") if path.parent != tmp_path / "tmp" or "train" not in name]


def check_left(folder: Path) -> None:
    """No child lives on, and no file is half-written."""
    deadline = time.monotonic() + PATIENCE_S
    while left := living(folder):
        assert time.monotonic() < deadline, f"survivors: {left}"
        time.sleep(0.1)
    check_whole(folder)


@pytest.mark.nightly
def test_killed_measurements_of_a_space_go_on_where_they_were(tmp_path: Path) -> None:
    """`latency table` and `latency fit` share their networks and the store, so the second has little left to do."""
    (tmp_path / "space.yaml").write_text(SPACE)
    moments = random.Random("latency")
    for verb, count, out in (("table", "3", "table.json"), ("fit", "8", "fit.json")):
        words = ["latency", verb, "space.yaml", "--networks", count, "--out", out, "--work", "work", "--quiet"]
        stored = len(Store(tmp_path / "latency.db").rows())
        run(words, tmp_path, moments.uniform(8.0, 16.0))
        check_left(tmp_path)
        assert len(Store(tmp_path / "latency.db").rows()) >= stored
        said = run(words, tmp_path)
        assert said is not None
        assert said.startswith(out)
        check_left(tmp_path)
    keys = [report.artifact for _, report in Store(tmp_path / "latency.db").rows() if not report.noisy]
    assert len(keys) == len(set(keys)), "measured twice"
