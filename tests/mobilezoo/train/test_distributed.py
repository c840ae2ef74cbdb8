"""Two processes under torchrun learn what one learns; a taken port is one line; a killed one is restarted."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mobilezoo.errors import MobilezooError
from mobilezoo.train.distributed import joined
from mobilezoo.train.run_lock import only_trainer_in

# A network without batch norm, and without drop path and mixing: with them, processes that see half a batch each
# differ by nature (torch has no synchronized batch norm on CPU).
SCRIPT = """
import os, sys
from pathlib import Path
import torch
from torch import nn
torch.set_num_threads(1)
from mobilezoo.config import load_record
from mobilezoo.train import build, trainer
from mobilezoo.train.config import TrainConfig

def network(config, classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(32, classes))

build.build_network = network
config = load_record(TrainConfig, sys.argv[1], sys.argv[3:])
first = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0" and os.environ.get("RANK") == "1"
if first and os.environ.get("FALL_AT"):
    real, done = trainer.train_step, []
    def fall(*args):
        done.append(1)
        if len(done) == int(os.environ["FALL_AT"]):
            os._exit(9)
        return real(*args)
    trainer.train_step = fall
trainer.train(config, Path(sys.argv[2]), resume=True, show_progress=False)
"""
RECIPE = """model: mnasnet_small
data: {source: digits, workers: 0, augment: {hflip: 0.0, repeats: 2}}
train:
  epochs: 2
  device: cpu
  resolution: 16
  save_every_steps: 3
  keep: 99
  optimizer: {name: sgd, lr: 0.1, clip: 1.0}
  schedule: {warmup_epochs: 0}
"""
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(folder: Path, name: str, launcher: list[str], batch: int, **env: str) -> list[dict[str, float]]:
    (folder / "run.py").write_text(SCRIPT)
    (folder / "recipe.yaml").write_text(RECIPE)
    command = [sys.executable, *launcher, str(folder / "run.py"), str(folder / "recipe.yaml"), str(folder / name)]
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [*command, f"data.batch_size={batch}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **env},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows: list[dict[str, float]] = json.loads((folder / name / "metrics.json").read_text())
    return rows


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one_also_after_a_restart(tmp_path: Path) -> None:
    one = run(tmp_path, "one", [], batch=64)
    two = run(tmp_path, "two", TORCHRUN, batch=32)
    fallen = run(tmp_path, "fallen", [*TORCHRUN, "--max-restarts", "1"], batch=32, FALL_AT="8")
    assert len(one) == len(two) == len(fallen) == 2
    for row in range(2):
        for key in ("train_loss", "val_loss"):
            assert two[row][key] == pytest.approx(one[row][key], rel=1e-5)
            assert fallen[row][key] == two[row][key]
        assert two[row]["val_top1"] == pytest.approx(one[row]["val_top1"], abs=0.3)


def test_a_port_in_use_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for key, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(key, str(value))
        with pytest.raises(MobilezooError, match=f"port in use at 127.0.0.1:{port}: set MASTER_PORT"), joined("cpu"):
            pass


def test_a_broken_environment_names_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(MobilezooError, match="start with torchrun"), joined("cpu"):
        pass


@pytest.mark.slow
def test_a_folder_that_another_trains_in_is_refused_by_every_process_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    command = [sys.executable, *TORCHRUN, "-m", "mobilezoo", "train", str(tmp_path / "recipe.yaml"), "-q", "--out"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    with only_trainer_in(tmp_path / "run"):
        done = subprocess.run(
            [*command, str(tmp_path / "run")], capture_output=True, text=True, check=False, timeout=180, env=env
        )
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2, done.stderr
    assert all("is being written by process" in line for line in lines)
    assert "[rank1]" not in done.stderr
