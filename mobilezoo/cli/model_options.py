"""Options of the commands that take a network: its weights, labels, input and preprocessing."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.errors import ConfigError
from mobilezoo.resolution import parse_resolution
from mobilezoo.workflows.model_options import ModelOptions, read_labels

DataArg = Annotated[
    str | None,
    typer.Option(
        "--data", help="digits, folder:PATH, tar:PATH, or a timm name: hfds/…, wds/…; default: what the record names"
    ),
]
ClassesArg = Annotated[
    str | None,
    typer.Option(
        "--classes", help="The data's class of each output: MAP.json, MAP.txt, labels, or imagenet-1k; see docs/data.md"
    ),
]
PreprocessArg = Annotated[
    str | None,
    typer.Option("--preprocess", help="Of files of others: raw, unit, inception, imagenet; crop=0.9, channels=bgr, …"),
]
OutputsArg = Annotated[
    str | None,
    typer.Option("--outputs", help="Of files of others: logits, probabilities or percent; default: as they look."),
]


PRETRAINED = "--pretrained"
PretrainedArg = Annotated[
    str | None,
    typer.Option(PRETRAINED, metavar="[TAG]", help="Published weights: a network's first, or those of a tag."),
]
TAG = re.compile(r"(\w+_)?in\d+k(_\w+)?")
"""What a word behind --pretrained is; any other is the next argument (--pretrained=TAG takes every word)."""


def with_tags(args: list[str]) -> list[str]:
    """Arguments of the command line in which every --pretrained has a value: empty where no tag follows it."""
    followed = [*args[1:], ""]
    joined = [f"{PRETRAINED}={after if TAG.fullmatch(after) else ''}" for after in followed]
    taken = {n + 1 for n, word in enumerate(args) if word == PRETRAINED and TAG.fullmatch(followed[n])}
    return [joined[n] if word == PRETRAINED else word for n, word in enumerate(args) if n not in taken]


def chosen_weights(given: str | None) -> bool | str:
    """What --pretrained stands for: False without it, True without a tag."""
    return False if given is None else given or True


@dataclass(frozen=True)
class NetworkFlags:
    """Options that change what a network's record or config has."""

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

    def parsed(self, checkpoint: Path | None = None) -> ModelOptions:
        """Typed values. Raises ConfigError naming the option."""
        return ModelOptions(
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
class ModelFlags(NetworkFlags):
    """The same with --checkpoint, for commands that take a network by name."""

    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Official or own weights for a name; any packing.")
    ] = None

    pretrained: PretrainedArg = None

    def parsed(self, checkpoint: Path | None = None) -> ModelOptions:
        options = super().parsed(checkpoint or self.checkpoint)
        return options.model_copy(update={"pretrained": chosen_weights(self.pretrained)})


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
