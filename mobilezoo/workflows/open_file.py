"""Records of exported files for scoring and predicting: their own, or made from the file and the user's options."""

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mobilezoo.artifacts import Artifact, InputSpec, Task, has_record
from mobilezoo.errors import ConfigError, UnknownNameError
from mobilezoo.files import atomic_write
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size, parse_resolution, written
from mobilezoo.workflows.answers import check_labels, chosen_output
from mobilezoo.workflows.load_model import WEIGHTS
from mobilezoo.workflows.model_options import ModelOptions

READ = (*WEIGHTS, ".safetensors", ".yaml", ".yml")
"""Endings of what holds a network beside them."""
NOUNS: dict[Task, str] = {"classify": "classes", "detect": "boxes", "segment": "masks"}
"""What a network answers with."""
PRESETS = {
    "imagenet": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "inception": {"mean": [0.5], "std": [0.5]},
    "unit": {"mean": [0.0], "std": [1.0]},
}
"""Names for --preprocess beside `raw`, whose numbers depend on the input's type."""
GRAMMAR = (
    "--preprocess is raw (0..255), unit (0..1), inception (-1..1) or imagenet, and KEY=VALUE with commas between: "
    "mean=0.485/0.456/0.406, std=0.5, crop=0.875, crop_mode=center, interpolation=bilinear, size=192x256, "
    "channels=bgr"
)


class PreprocessOption(NamedTuple):
    """The parsed value of --preprocess."""

    preprocessing: Preprocessing
    size: Size | None
    colors: Literal["RGB", "BGR"]
    keys: frozenset[str]
    """Fields that were given; the others are as they were."""


def check_network(model: str, options: ModelOptions) -> None:
    """Raise ConfigError where a model argument is a file of no known kind, or --preprocess was given for a network.

    Args:
        model: the argument, which is not an exported file.
        options: the options beside it.
    """
    from mobilezoo.models import load_model_config
    from mobilezoo_export.registry import file_suffixes

    place = Path(model)
    if place.exists() and place.suffix not in READ:
        try:
            load_model_config(model)
        except (ConfigError, UnknownNameError):
            what = "a folder" if place.is_dir() else "a file of no kind that is known here"
            known = ", ".join(file_suffixes())
            raise ConfigError(f"{model!r} is {what}: name a network, a checkpoint, or a file ({known})") from None
    if given := options.preprocess or options.outputs:
        option = "preprocess" if options.preprocess else "outputs"
        raise ConfigError(
            f"--{option} {given!r} is for exported files without a record, {model!r} is a network: "
            "say --mean, --std and --resolution where its own are not meant"
        )


def refuse_dense(path: Path, record: Artifact, what: str) -> None:
    """Raise ConfigError for a file that answers with boxes or masks, where only classifiers are meant.

    Args:
        path: the file.
        record: its record.
        what: verb of the message, in the third person.
    """
    if record.task != "classify":
        raise ConfigError(
            f"{path.name!r} answers with {NOUNS[record.task]} (task {record.task}): {what} classifiers only; "
            "predict, try and kit read it"
        )


def refuse_weights(path: Path, options: ModelOptions) -> None:
    """Raise ConfigError where a file that holds its weights was given others, or options that belong to them.

    Args:
        path: the file.
        options: the options beside it.
    """
    given = [name for name in ("checkpoint", "key", "num_classes", "in_chans") if getattr(options, name) is not None]
    if given:
        raise ConfigError(f"{path.name!r} holds its own weights: leave --{given[0].replace('_', '-')} out")


def described(path: Path, options: ModelOptions) -> Artifact:
    """The record of a file; for a file without one, made from its graph and `options`.

    Args:
        path: the exported file.
        options: labels, size and preprocessing where the file leaves them open.

    Raises:
        ConfigError: how images become the input is unknown, the input is no image, or options contradict the record.
    """
    from mobilezoo_export import open_artifact

    record = open_artifact(path, len(options.labels))
    if not record.foreign:
        return _ours(path, record, options)
    if record.input.layout == "none":
        raise ConfigError(f"{path.name!r} takes no single image (input {record.input.shape}): only profile can run it")
    given = parse_preprocess(options.preprocess or "", record.preprocessing, record.input)
    known = given.keys | {name for name in ("mean", "std") if getattr(options, name) is not None}
    if "preprocessing" in record.undeclared and not known >= {"mean", "std"}:
        raise ConfigError(f"{path.name!r} does not tell how images become its input: {GRAMMAR}")
    spec = _sized(path, record, options.resolution, given.size, ", or size=HEIGHTxWIDTH in --preprocess")
    output = chosen_output(path, record, options.outputs)
    update: dict[str, Any] = {
        "preprocessing": options.preprocessing(given.preprocessing, record.preprocessing.channels),
        "labels": options.labels or record.labels,
        "input": spec.model_copy(update={"colors": given.colors}),
        "output": output or record.output,
        "undeclared": tuple(
            name for name in record.undeclared if name == "scores" or (name == "output" and output is None)
        ),
    }
    return record.model_copy(update=update)


def _ours(path: Path, record: Artifact, options: ModelOptions) -> Artifact:
    """The record of a file that has one; only the names of its classes can be changed."""
    given = [name for name in ("preprocess", "outputs", "mean", "std") if getattr(options, name) is not None]
    if options.resolution not in (None, record.input.resolution):
        given.append("resolution")
    if given:
        raise ConfigError(f"{path.name!r} has a record, which says how images become its input: leave --{given[0]} out")
    labels = options.labels or record.labels
    if record.task != "classify":
        check_labels(labels, record.output_shape[-1] - 4 * (record.task == "detect"))
    return record.model_copy(update={"labels": labels})


def file_to_time(path: Path, options: ModelOptions, folder: Path) -> Path:
    """A file as a device takes it: itself, or a copy that fixes the size which a file without a record leaves open.

    Args:
        path: the exported file.
        options: `resolution` where the file leaves it open; others belong to networks and are refused.
        folder: where the copy is written.

    Raises:
        ConfigError: the size is open and not given, or an option does not apply.
    """
    from mobilezoo_export import FileApart

    size = options.resolution
    if options != ModelOptions(resolution=size) or (size is not None and has_record(path)):
        raise ConfigError(f"{str(path)!r} is a file as it is: --checkpoint and its like are for networks")
    if has_record(path):
        return path
    with FileApart(path) as opened:
        record = opened.artifact
        if record.input.layout == "none" and size is not None:
            raise ConfigError(f"{path.name!r} takes no image (input {record.input.shape}): leave --resolution out")
        spec = record.input if record.input.layout == "none" else _sized(path, record, size, None)
        if "resolution" not in record.undeclared:
            return path
        copy = folder / f"{path.stem}.{written(spec.resolution)}.{record.sha256[:8]}{path.suffix}"
        if not copy.exists():
            atomic_write(copy, lambda temporary: opened.write_fixed(spec.shape, temporary))
    return copy


def _sized(path: Path, record: Artifact, option: Size | None, given: Size | None, more: str = "") -> InputSpec:
    """The file's input at its own size, or at the given one where the file leaves its size open.

    `more` names other ways to give it in the error.
    """
    if option and given and option != given:
        raise ConfigError(f"--resolution {written(option)} and size={written(given)} in --preprocess differ: say one")
    size, own = option or given, record.input.resolution
    if "resolution" not in record.undeclared:
        if size not in (None, own):
            raise ConfigError(f"{path.name!r} takes images of {own[0]}x{own[1]} pixels only: leave the size out")
        return record.input
    if size is None:
        raise ConfigError(
            f"{path.name!r} leaves the height or width of its input open: pass --resolution HEIGHTxWIDTH{more}"
        )
    return record.input.resized(size)


def parse_preprocess(text: str, known: Preprocessing, spec: InputSpec) -> PreprocessOption:
    """The value of --preprocess for a file's input, checked.

    Args:
        text: presets and KEY=VALUE parts with commas between; empty changes nothing.
        known: preprocessing before the changes.
        spec: the file's input; its type decides what `raw` means.

    Raises:
        ConfigError: a part is not understood, or its values do not fit the input.
    """
    data: dict[str, Any] = known.model_dump(mode="json")
    size: Size | None = None
    colors: Literal["RGB", "BGR"] = "RGB"
    keys: set[str] = set()
    for part in text.split(",") if text else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        found: dict[str, Any] = {}
        if not equals and key in ("raw", *PRESETS):
            _check_type(key, spec)
            found = PRESETS.get(key) or _raw(spec)
        elif key in ("mean", "std") and re.fullmatch(r"[-+0-9.e/]+", value):
            found = {key: _numbers(value, part)}
        elif key == "crop" and value:
            found = {"crop_pct": _numbers(value, part)[0]}
        elif key in ("crop_mode", "interpolation") and value:
            found = {key: value}
        elif key == "size" and value:
            size = _size(value)
        elif key == "channels" and value.lower() in ("rgb", "bgr") and known.channels == 3:
            colors = "BGR" if value.lower() == "bgr" else "RGB"
        else:
            raise ConfigError(f"--preprocess {part!r} is not understood: {GRAMMAR}")
        data |= found
        keys |= set(found)
    count = max(len(data["mean"]), len(data["std"]))
    data |= {key: data[key] * count for key in ("mean", "std") if len(data[key]) == 1}
    parsed = Preprocessing.parse(data, f"--preprocess {text}").for_channels(known.channels)
    return PreprocessOption(parsed, size, colors, frozenset(keys))


def _check_type(name: str, spec: InputSpec) -> None:
    """Raise ConfigError where whole numbers without a scale would hold 0 and 1 at most."""
    if name != "raw" and spec.dtype.startswith("int") and spec.quantization is None:
        raise ConfigError(
            f"--preprocess {name}: the input is {spec.dtype} without a scale, which takes raw pixels only"
        )


def _raw(spec: InputSpec) -> dict[str, list[float]]:
    """Pixels 0..255 as the input's numbers: floats as they are, bytes as the bytes themselves (int8: less 128)."""
    how = spec.quantization
    scale, zero_point = (how.scale, how.zero_point) if how else (1.0, 0)
    shift = 128 if spec.dtype == "int8" else 0
    return {"mean": [(zero_point + shift) / 255], "std": [1 / (255 * scale)]}


def _size(value: str) -> Size:
    try:
        return parse_resolution(value)
    except ConfigError:
        raise ConfigError(f"--preprocess size={value!r}: height x width in pixels, for example size=192x256") from None


def _numbers(value: str, part: str) -> list[float]:
    try:
        return [float(number) for number in value.split("/")]
    except ValueError:
        raise ConfigError(
            f"--preprocess {part!r}: numbers with / between, for example mean=0.485/0.456/0.406"
        ) from None
