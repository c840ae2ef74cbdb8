"""Parser of config.json of a shared network in timm's format; untrusted input, refused with an error of one line."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.preprocessing import CropMode, CropShare, Interpolation, Preprocessing
from mobilezoo.reading import mapping, read_json
from mobilezoo.resolution import LARGEST, Size

CONFIG = "config.json"
MAX_BYTES = 1 << 24
"""ImageNet-22k's names and descriptions take a tenth of it."""
MAX_CLASSES, MAX_CHANNELS, MAX_ARGUMENT = 1_000_000, 1024, 100_000

Finite = Annotated[float, Field(allow_inf_nan=False)]
Side = Annotated[int, Field(gt=0, le=LARGEST)]
Channels = Annotated[int, Field(gt=0, le=MAX_CHANNELS)]
Classes = Annotated[int, Field(gt=0, le=MAX_CLASSES)]


class HubError(MobilezooError):
    """The hub, or a repository on it, cannot be used."""


class Shared(Record):
    """The validated config.json of a repository."""

    architecture: str
    """timm's name, or `mobilezoo` for a network whose config is in `model_args`."""
    model_args: dict[str, Any]
    num_classes: int
    in_chans: int
    resolution: Size
    preprocessing: Preprocessing
    labels: tuple[str, ...]


class _Loose(BaseModel):
    """Typed fields that are used here; other keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())


class _Weights(_Loose):
    """`pretrained_cfg`."""

    input_size: tuple[Channels, Side, Side] = (3, 224, 224)
    mean: tuple[Finite, ...] = Field(min_length=1)
    std: tuple[Finite, ...] = Field(min_length=1)
    interpolation: Interpolation = "bicubic"
    crop_pct: CropShare = 0.875
    crop_mode: CropMode = "center"
    num_classes: Classes | None = None
    label_names: list[str] | dict[str, str] | None = None


class _File(_Loose):
    architecture: str
    num_classes: Classes | None = None
    pretrained_cfg: _Weights
    model_args: dict[str, Any] = {}
    label_names: list[str] | dict[str, str] | None = None


def read_shared(file: Path, repo: str) -> Shared:
    """Parses a config.json.

    Args:
        file: the config.json.
        repo: name of its repository, for error messages.

    Raises:
        HubError: a field is missing or wrong; the message names it.
    """
    data = _json(file, repo)
    try:
        found = _File.model_validate_json(json.dumps({**data, "pretrained_cfg": data.get("pretrained_cfg", data)}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _refused(repo, f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
    weights = found.pretrained_cfg
    classes = found.num_classes or weights.num_classes
    if classes is None:
        raise _refused(repo, "num_classes is missing")
    _check_arguments(found.model_args, repo)
    try:
        preprocessing = Preprocessing.from_timm(weights.model_dump(exclude={"num_classes", "label_names"}))
    except (ConfigError, ValueError) as error:  # as many numbers as channels
        raise _refused(repo, str(error)) from None
    return Shared(
        architecture=found.architecture,
        model_args={k: v for k, v in found.model_args.items() if k not in ("num_classes", "in_chans")},
        num_classes=classes,
        in_chans=weights.input_size[0],
        resolution=weights.input_size[1:],
        preprocessing=preprocessing,
        labels=_labels(found.label_names or weights.label_names, classes, repo),
    )


def _json(file: Path, repo: str) -> dict[str, Any]:
    try:
        return mapping(read_json(file, MAX_BYTES), CONFIG)
    except ConfigError as error:
        raise _refused(repo, str(error).partition(": ")[2]) from None


def _check_arguments(args: dict[str, Any], repo: str) -> None:
    """Raises HubError for a number whose magnitude exceeds `MAX_ARGUMENT`."""
    waiting: list[Any] = [args]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int | float) and not abs(value) <= MAX_ARGUMENT:
            raise _refused(repo, f"model_args hold {str(value)[:20]}, which no network takes")


def _labels(names: list[str] | dict[str, str] | None, classes: int, repo: str) -> tuple[str, ...]:
    if not names:
        return ()
    listed = names if isinstance(names, list) else [names.get(str(i), "") for i in range(classes)]
    if len(names) != classes or not all(listed):
        raise _refused(repo, f"{len(names)} label_names for {classes} classes, or some without a name")
    return tuple(listed)


def _refused(repo: str, why: str) -> HubError:
    return HubError(f"{repo!r}: {CONFIG} is not in timm's format: {why}")
