"""Checkpoints of a run: one folder each, complete or absent, its files' checksums inside.

`checkpoints/epoch-0007/`, written after seven epochs, or `checkpoints/epoch-0007-step-000120/`, written 120 updates
later, holds `model.safetensors`, `ema.safetensors` (where averaging is on), `state.pt` (optimizer, scheduler, history)
and `sums.json`. A folder is written under a temporary name and renamed, so a kill leaves the one before it.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mobilezoo.errors import MobilezooError, first_line, printable
from mobilezoo.files import atomic_write, sha256_of, through_memory, tidy
from mobilezoo.models.tensor_file import read_content
from mobilezoo.reading import mapping, read_json

NEEDED = ("model.safetensors", "state.pt")
REST = ("epoch", "optimizer", "scaler", "history", "step", "losses", "global_batch", "ranges")


@dataclass
class RunState:
    """All that a run needs to go on as if it had never stopped."""

    epoch: int
    """Epochs completed."""
    model: dict[str, torch.Tensor]
    ema: dict[str, torch.Tensor] | None
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    history: list[dict[str, float]]
    step: int = 0
    """Updates completed in the epoch after those."""
    losses: tuple[float, ...] = ()
    """Loss of each of these updates."""
    global_batch: int = 0
    """Images per update when this was saved, over all processes."""

    ranges: dict[str, torch.Tensor] = field(default_factory=dict)
    """What fake quantization has learned; empty without it."""

    @property
    def name(self) -> str:
        """Folder names in the order of time."""
        return f"epoch-{self.epoch:04d}" + (f"-step-{self.step:06d}" if self.step else "")


def save_checkpoint(folder: Path, state: RunState, keep: int) -> Path:
    """Write one checkpoint folder atomically, then remove all but the newest.

    Args:
        folder: `checkpoints/` of the run.
        state: tensors on any device; they are copied to the CPU.
        keep: number of checkpoints left, at least 1, this one included.

    Returns:
        The folder written.

    Raises:
        MobilezooError: the folder cannot be written.
    """

    def write(temporary: Path) -> None:
        temporary.mkdir()
        save_file(_plain(state.model), temporary / "model.safetensors")
        if state.ema is not None:
            save_file(_plain(state.ema), temporary / "ema.safetensors")
        rest = {k: getattr(state, k) for k in REST}
        through_memory(temporary / "state.pt", lambda file: torch.save(rest, file))
        sums = {p.name: sha256_of(p) for p in sorted(temporary.iterdir())}
        (temporary / "sums.json").write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")

    path = atomic_write(folder / state.name, write)
    for old in _folders(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def latest_checkpoint(folder: Path) -> tuple[RunState | None, list[str]]:
    """The newest whole checkpoint, and one line for each damaged one that was passed over."""
    tidy(folder)
    passed_over: list[str] = []
    for path in reversed(_folders(folder)):
        try:
            return _read(path), passed_over
        except _DamagedError as error:
            passed_over.append(f"{path} is damaged ({error}): using the checkpoint before it")
    return None, passed_over


class _DamagedError(Exception):
    """Why a checkpoint cannot be read."""


def _read(path: Path) -> RunState:
    """A checkpoint whose files have their checksums. Raises _DamagedError."""
    try:
        sums = mapping(read_json(path / "sums.json"), "sums.json")
        for name in sorted({*NEEDED, *sums}):
            if Path(name).name != name or sha256_of(path / name) != sums.get(name):
                raise _DamagedError(f"{printable(name)} has another checksum")
        rest, ema = read_content(path / "state.pt"), path / "ema.safetensors"
        return RunState(
            model=read_content(path / "model.safetensors"), ema=read_content(ema) if ema.exists() else None, **rest
        )
    except OSError as error:
        raise _DamagedError(f"{Path(error.filename or path).name}: {error.strerror}") from None
    except (MobilezooError, ValueError, TypeError) as error:
        raise _DamagedError(first_line(error)) from None


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("epoch-*") if p.is_dir())


def _plain(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous CPU copies, as safetensors wants them (shared storage is not allowed)."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
