"""The folder of a run: resolved config, classes, environment, metrics as CSV and JSON, TensorBoard, best weights.

Beside the weights lies the network's YAML where it is not the zoo's own, so the folder can be moved.
"""

import csv
import io
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mobilezoo.artifacts import Checkpoint, write_with_record
from mobilezoo.config import find_config, is_yaml, read_yaml, write_yaml
from mobilezoo.data.class_lists import read_entries
from mobilezoo.data.classes import require_same_classes
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.files import sha256_of, versions, write_text
from mobilezoo.train.config import TrainConfig

PACKAGES = ("mobilezoo", "torch", "timm", "torchvision", "numpy", "scikit-learn", "pillow")


class RunFolder:
    """Paths and writers of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.best = path / "best.safetensors"
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.classes = path / "classes.json"

    def open(self, config: TrainConfig, resume: bool) -> None:
        """Create the folder, or check that the run in it is the one to resume. Raises ConfigError, MobilezooError."""
        started = self.config.is_file()
        if started and not resume:
            raise MobilezooError(f"{str(self.path)!r} already holds a run: pass --resume to go on, or name=OTHER")
        if started:
            self._same_config(config)
            return
        if is_yaml(config.model):  # the user's own, which may move or change
            network = find_config("models", config.model).read_text(encoding="utf-8")
            write_text(self.best.with_suffix(".yaml"), network)
        write_text(self.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
        # Last: with it the folder counts as begun, and what is missing then is not written any more.
        write_yaml(self.config, config.model_dump(mode="json"), ["the resolved config of this run"])

    def keep_classes(self, labels: tuple[str, ...]) -> None:
        """Write the classes in the network's order, or check that they are those of before. Raises ConfigError."""
        if not self.classes.is_file():
            write_text(self.classes, json.dumps(labels, indent=1, ensure_ascii=False) + "\n")
            return
        before = tuple(map(str, read_entries(str(self.classes))))
        remedy = "restore the data, or start a run of another name"
        require_same_classes(before, labels, f"the run in {str(self.path)!r}", "the data", remedy)

    def write_history(self, history: list[dict[str, float]]) -> None:
        """Rewrite metrics.csv and metrics.json from the whole history, so that a resumed run has no stray rows."""
        columns = list(dict.fromkeys(key for row in history for key in row))
        out = io.StringIO()
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(history)
        write_text(self.metrics, out.getvalue())
        write_text(self.path / "metrics.json", json.dumps(history, indent=1) + "\n")

    def save_weights(self, path: Path, weights: Mapping[str, torch.Tensor], record: dict[str, Any]) -> Checkpoint:
        """Write a .safetensors file and the record beside it; `record` holds the Checkpoint's other fields."""
        from safetensors.torch import save_file

        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}
        return write_with_record(
            path,
            lambda temporary: save_file(tensors, temporary, metadata={"model": record["model"]}),
            lambda written: Checkpoint(path=path.name, sha256=sha256_of(written), **record),
        )

    def _same_config(self, config: TrainConfig) -> None:
        before, now = _flat(read_yaml(self.config)), _flat(config.model_dump(mode="json"))
        changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        if changed:
            key = changed[0]
            raise ConfigError(
                f"{str(self.config)!r} differs from the config to resume at {key!r}: {before.get(key)!r} then, "
                f"{now.get(key)!r} now: undo the change or start a run of another name"
            )


def environment() -> dict[str, Any]:
    """Versions, machine and the git state of the working folder."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "packages": versions(PACKAGES),
        "git": {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))},
    }


def _git(*args: str) -> str:
    try:
        done = subprocess.run(["git", *args], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {prefix: data}
    items: dict[str, Any] = {}
    for key, value in data.items():
        items |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return items
