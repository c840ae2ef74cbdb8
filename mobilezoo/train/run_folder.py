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
from mobilezoo.config import find_config, is_yaml, load_record, write_yaml
from mobilezoo.data.class_lists import read_entries
from mobilezoo.data.classes import require_same_classes
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.files import sha256_of, versions, write_text
from mobilezoo.train.config import TrainConfig

PACKAGES = ("mobilezoo", "torch", "timm", "torchvision", "numpy", "scikit-learn", "pillow")

FREE = ("data.workers", "data.preview", "train.device", "train.keep", "train.save_every_min", "train.save_every_steps")
"""What may differ when a run goes on, on another machine perhaps: nothing that is learned depends on it."""


class RunFolder:
    """Paths and writers of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.best = path / "best.safetensors"
        self.network = self.best.with_suffix(".yaml")
        """Copy of the network's YAML, where it is not the zoo's own."""
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.classes = path / "classes.json"

    def check(self, config: TrainConfig, resume: bool) -> None:
        """Raise where the folder holds a run that is not the one to resume.

        Args:
            config: the run to begin or resume.
            resume: whether an existing run may be continued.

        Raises:
            MobilezooError: the folder holds a run and `resume` is False.
            ConfigError: its config differs in more than the fields of FREE.
        """
        if not self.config.is_file():
            return
        if not resume:
            raise MobilezooError(f"{str(self.path)!r} already holds a run: pass --resume to go on, or name=OTHER")
        self._same_config(config)

    def begin(self, config: TrainConfig) -> None:
        """Write what the run is, unless it was begun before."""
        if self.config.is_file():
            return
        if is_yaml(config.model):  # the user's own, which may move or change
            network = find_config("models", config.model).read_text(encoding="utf-8")
            write_text(self.network, network)
        write_text(self.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
        # Last: with it the folder counts as begun, and what is missing then is not written any more.
        write_yaml(self.config, config.model_dump(mode="json"), ["the resolved config of this run"])

    def network_at_hand(self, model: str) -> str:
        """`model`, or the folder's copy under its name where a YAML is not at its path any more."""
        try:
            if is_yaml(model):
                find_config("models", model)
        except ConfigError:
            if not self.network.is_file():
                raise
            copied = self.path / Path(model).name
            return str(write_text(copied, self.network.read_text(encoding="utf-8")))
        return model

    def kept(self) -> str:
        """The newest checkpoint, in words."""
        saved = sorted(self.checkpoints.glob("epoch-*"))
        return f"{self.path} keeps {saved[-1].name}" if saved else f"{self.path} has no checkpoint yet"

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
        """Write a .safetensors file and its record beside it, atomically.

        Args:
            path: the file; its record gets the same name with `.json` added.
            weights: name to tensor, on any device.
            record: the Checkpoint's fields other than path and checksum.
        """
        from safetensors.torch import save_file

        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}
        return write_with_record(
            path,
            lambda temporary: save_file(tensors, temporary, metadata={"model": record["model"]}),
            lambda written: Checkpoint(path=path.name, sha256=sha256_of(written), **record),
        )

    def _same_config(self, config: TrainConfig) -> None:
        before = load_record(TrainConfig, self.config)
        then, now = _flat(before.model_dump(mode="json")), _flat(config.model_dump(mode="json"))
        if is_yaml(before.model) and Path(before.model).stem == Path(config.model).stem:
            now["model"] = then["model"]  # moved; another network of that name does not take the saved weights
        changed = sorted(k for k in then.keys() | now.keys() if then.get(k) != now.get(k) and k not in FREE)
        if changed:
            key = changed[0]
            raise ConfigError(
                f"{str(self.config)!r} differs from the config to resume at {key!r}: {then.get(key)!r} then, "
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
