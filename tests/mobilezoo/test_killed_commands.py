"""Every command may be killed at any moment: nothing half-written is believed, nothing is left, no child survives."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import mobilezoo
from mobilezoo import hub
from mobilezoo.artifacts import Checkpoint, load_record_of, write_with_record
from mobilezoo.files import sha256_of
from mobilezoo.models import load_model_config
from mobilezoo.models.randomize import randomize_norms
from mobilezoo_export import open_artifact

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent"),
]
MODEL, KILLS, PATIENCE_S = "mnasnet_a1_035", 3, 20.0
COMMANDS = {
    "train": ["train", "digits", f"model={MODEL}", "train.epochs=2", "train.resolution=32", "name=r", "--resume"],
    "export": ["export", "best.safetensors", "--to", "onnx", "--out", "files", "--quiet", "--overwrite"],
    "import-table": ["latency", "import-table", "blocks.csv", "--on", "phone", "--out", "table.json"],
}


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


def run(args: list[str], folder: Path, kill_after_s: float | None = None) -> str | None:
    """What a command prints; None where it was killed before its end."""
    command = [sys.executable, "-m", "mobilezoo", *args]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said = process.communicate(timeout=kill_after_s)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    assert process.returncode == 0, said
    return said


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
    (folder / "runs").mkdir()
    (folder / "runs" / "metrics.csv").write_text("epoch,loss\n1,2\n2,1\n")
    (folder / "blocks.csv").write_text("key,mean_ms\na,1.5\nb,2.5\n")


def check_whole(folder: Path) -> None:
    """All that a later command would take is whole, or is refused by it."""
    for record in folder.rglob("*.safetensors.json"):
        load_record_of(Checkpoint, record.with_suffix(""))
    for file in (folder / "files").glob("[!.]*.onnx"):
        assert not open_artifact(file).foreign


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_can_be_given_again(tmp_path: Path, name: str) -> None:
    inputs(tmp_path)
    began = time.monotonic()
    run(COMMANDS[name], tmp_path)
    duration, moments = time.monotonic() - began, random.Random(name)
    for _ in range(KILLS):
        run(COMMANDS[name], tmp_path, duration * moments.uniform(0.4, 1.0))
        deadline = time.monotonic() + PATIENCE_S
        while left := living(tmp_path):
            assert time.monotonic() < deadline, f"survivors: {left}"
            time.sleep(0.1)
        check_whole(tmp_path)
    said = run(COMMANDS[name], tmp_path)
    assert said is not None
    check_whole(tmp_path)
    assert not [path for path in tmp_path.rglob("*.mz-*") if path.parent != tmp_path / "tmp" or "train" not in name]
