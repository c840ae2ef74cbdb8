"""What a user can say of a network beside its name: the options that eval, export, profile and convert share."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, existing_path
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Resolution, parse_resolution


class SubjectOptions(Record):
    """What is said beside the name; what is left out comes from the checkpoint's record, its tensors or the config."""

    checkpoint: Path | None = None
    key: str | None = None
    """Dotted path of the weights inside the checkpoint."""
    labels: tuple[str, ...] = ()
    resolution: Resolution | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preprocess: str | None = None
    """Of an exported file that does not tell how images become its input, see `verbs.opening`."""

    def preprocessing(self, known: Preprocessing, channels: int) -> Preprocessing:
        """`known` with the mean and deviation that were given. Raises ConfigError where they are not per channel."""
        changed = {"mean": self.mean, "std": self.std}
        for name, values in changed.items():
            if values is not None and len(values) not in (1, channels):
                raise ConfigError(f"--{name} has {len(values)} numbers for {channels} input channels")
        return known.for_channels(channels).model_copy(
            update={name: values * (channels // len(values)) for name, values in changed.items() if values}
        )


@dataclass(frozen=True)
class NetworkFlags:
    """The command line's words for them, but for the checkpoint."""

    key: Annotated[
        str | None, typer.Option("--key", help="Where in the checkpoint the weights are: state_dict_ema, model, …")
    ] = None
    labels: Annotated[
        str | None, typer.Option("--labels", help="Class names: a .txt or .json file, or a,b,c in the network's order.")
    ] = None
    resolution: Annotated[
        str | None, typer.Option("--resolution", help="Input in pixels: 224, or 192x256 (height x width).")
    ] = None
    num_classes: Annotated[
        int | None, typer.Option("--num-classes", min=1, help="Default: as many as the checkpoint has.")
    ] = None
    in_chans: Annotated[
        int | None, typer.Option("--in-chans", min=1, help="Input channels; default: as many as the checkpoint has.")
    ] = None
    mean: Annotated[str | None, typer.Option("--mean", help="Per channel, of pixels in 0..1: 0.485,0.456,0.406.")] = (
        None
    )
    std: Annotated[str | None, typer.Option("--std", help="Per channel, like --mean.")] = None

    def parsed(self, checkpoint: Path | None = None) -> SubjectOptions:
        """Typed values. Raises ConfigError naming the option."""
        return SubjectOptions(
            checkpoint=checkpoint,
            key=self.key,
            labels=read_labels(self.labels) if self.labels is not None else (),
            resolution=parse_resolution(self.resolution) if self.resolution is not None else None,
            num_classes=self.num_classes,
            in_chans=self.in_chans,
            mean=_numbers("--mean", self.mean, -math.inf),
            std=_numbers("--std", self.std, 0.0),
        )


@dataclass(frozen=True)
class SubjectFlags(NetworkFlags):
    """The same for commands that take a network by name."""

    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Official or own weights for a name; any packing.")
    ] = None

    def parsed(self, checkpoint: Path | None = None) -> SubjectOptions:
        return super().parsed(checkpoint or self.checkpoint)


def read_labels(given: str) -> tuple[str, ...]:
    """Class names from a .txt (one per line), a .json, or a list with commas. Raises ConfigError."""
    from mobilezoo.data.class_lists import read_entries

    if not given.lower().endswith((".txt", ".json")):
        labels = [name.strip() for name in given.split(",")]
        if len(labels) < 2 or not all(labels):
            raise ConfigError(f"--labels {given!r}: a .txt or .json file, or names with commas between them")
        return tuple(labels)
    entries = read_entries(str(existing_path(given, "labels file")))
    if isinstance(entries, dict):
        entries = [name for name, _ in sorted(entries.items(), key=lambda item: item[1])]
    labels = [entry for entry in entries if isinstance(entry, str) and entry]
    if not labels or len(labels) != len(entries):
        raise ConfigError(
            f"--labels {given!r}: one name per class, {len(entries) - len(labels)} of {len(entries)} are none"
        )
    return tuple(labels)


def resolution_override(given: str | None) -> tuple[str, ...]:
    """What `train --resolution` stands for among the overrides. Raises ConfigError."""
    if given is None:
        return ()
    height, width = parse_resolution(given)
    return (f"train.resolution=[{height}, {width}]",)


def _numbers(option: str, given: str | None, above: float) -> tuple[float, ...] | None:
    if given is None:
        return None
    try:
        numbers = tuple(float(word) for word in given.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(math.isfinite(x) and x > above for x in numbers):
        raise ConfigError(f"{option} {given!r}: a number per channel with commas between them, for example 0.5,0.5,0.5")
    return numbers
