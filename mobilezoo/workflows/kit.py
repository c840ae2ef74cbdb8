"""`mobilezoo kit`: a small folder that runs an exported file in an app's own language, without mobilezoo.

The templates are the files of `mobilezoo/kits`; what they need to know of a file goes into `model.json`.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mobilezoo.artifacts import Artifact
from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, UnknownNameError, existing_path, writable_place
from mobilezoo.files import atomic_write
from mobilezoo.workflows.answers import WORDS, Answers, check_labels
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.open_file import described

TEMPLATES = Path(__file__).parents[1] / "kits"
MARK = ".mobilezoo-kit"
"""A file that only kits hold: no other folder is ever replaced."""
PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
NUMBERS = ("float32", "uint8", "int8")
"""Input and output types that every kit can handle."""


class KitKind(NamedTuple):
    """What a kind of kit can run, and which templates it is made of."""

    title: str
    runtimes: Mapping[str, str]
    """Export target → name of the runtime."""
    files: Mapping[str, Mapping[str, str]]
    """Export target, or "" for all → template → place in the kit."""
    model: str = ""
    """Folder of the network and of `model.json`, in the kit."""
    types: tuple[str, ...] = NUMBERS


KINDS: dict[str, KitKind] = {
    "python": KitKind(
        "Python",
        {"litert": "ai-edge-litert", "onnx": "onnxruntime"},
        {
            "": {"README.md": "README.md", "classify.py": "classify.py"},
            "litert": {"requirements-litert.txt": "requirements.txt"},
            "onnx": {"requirements-onnx.txt": "requirements.txt"},
        },
        types=(*NUMBERS, "float16", "float64", "int16", "int32", "int64"),
    ),
}


class Kit(Record):
    """A kit that was written."""

    folder: str
    kind: str
    files: tuple[str, ...]
    """Relative to the folder, sorted."""
    notes: tuple[str, ...] = ()
    """What the file leaves open; a line each."""


def write_kit(
    file: str | Path,
    kind: str,
    out: Path | None = None,
    options: ModelOptions = NO_OPTIONS,
    *,
    overwrite: bool = False,
    hooks: Hooks = SILENT,
) -> Kit:
    """Write a folder with an exported file and the code that runs it on images.

    The file is run once on its own input first, so that no kit is made of a damaged one.

    Args:
        file: an exported file.
        kind: a name of `KINDS`.
        out: the folder; None: beside the file, named after both.
        options: labels and preprocessing of files without a record.
        overwrite: replace a kit that is there.
        hooks: receives messages.

    Raises:
        UnknownNameError: no such kind.
        ConfigError: the kind cannot run the file, or the folder is there already.
        ExportError: the file is damaged.
    """
    if kind not in KINDS:
        raise UnknownNameError("kit", kind, list(KINDS))
    path = existing_path(file, "file")
    check_target(path, kind)
    out = (out or path.parent / f"{path.stem}-{kind}").expanduser()
    _check_place(out, overwrite)
    record = described(path, options)
    _check_types(path, record, kind)
    hooks.on_status(f"running {path.name}")
    record = tried(path, record)
    notes = _notes(path, record)
    for line in notes:
        hooks.on_message(line)
    atomic_write(out, lambda folder: _fill(folder, path, record, kind))
    files = sorted(one.relative_to(out).as_posix() for one in out.rglob("*") if one.is_file() and one.name != MARK)
    return Kit(folder=str(out), kind=kind, files=tuple(files), notes=tuple(notes))


def kinds_of(target: str) -> list[str]:
    """Names of the kits that run files of an export target.

    Args:
        target: name of an export target.
    """
    return [name for name, kind in KINDS.items() if target in kind.runtimes]


def check_target(path: Path, kind: str) -> None:
    """Raise ConfigError where a kit cannot run files of this format, with the kits that can.

    Args:
        path: the file.
        kind: a name of `KINDS`.
    """
    from mobilezoo_export.registry import TARGETS, exporter_of, is_exported

    suffixes = {target: cls.suffix for target, cls in TARGETS.load_all().items()}
    if not is_exported(path):
        known = ", ".join(dict.fromkeys(suffixes.values()))
        raise ConfigError(f"{path.name!r} is no exported file ({known}): make one with `mobilezoo export`")
    target = exporter_of(path).target
    if target in KINDS[kind].runtimes:
        return
    taken = " and ".join(suffixes[name] for name in KINDS[kind].runtimes)
    usual = " or ".join(f"--to {name}" for name in KINDS[kind].runtimes)
    own = " or ".join(f"--for {name}" for name in kinds_of(target))
    remedy = f"this file runs with {own}" if own else "no kit runs this file"
    raise ConfigError(f"{path.name!r}: a {kind} kit runs {taken}; {remedy}, or export with {usual}")


def _check_place(out: Path, overwrite: bool) -> None:
    """Raise ConfigError where the folder is there, unless it is a kit to be replaced, or empty."""
    writable_place(out, "--out", folder=True)
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / MARK).is_file():
        raise ConfigError(f"{str(out)!r} holds other files and is no kit: name another folder (--out)")
    if not overwrite:
        raise ConfigError(f"{str(out)!r} holds a kit already, which is kept: --overwrite replaces it, or --out another")


def _check_types(path: Path, record: Artifact, kind: str) -> None:
    """Raise ConfigError for input and output types that a kit's runtime or code does not have."""
    taken = KINDS[kind].types
    if record.input.dtype not in taken:
        raise ConfigError(
            f"{path.name!r} takes {record.input.dtype}, and a {kind} kit only {', '.join(taken)}: export it with "
            "float32 or uint8 images"
        )
    how = record.output_quantization
    if how is not None and how.dtype not in taken:
        raise ConfigError(f"{path.name!r} answers in {how.dtype}, and a {kind} kit reads only {', '.join(taken)}")
    if "scores" in record.undeclared:
        raise ConfigError(f"{path.name!r} has several outputs, and nothing tells which one holds the scores: --labels")


def tried(path: Path, record: Artifact) -> Artifact:
    """Run a file on a blank and on a noisy image: it works, has as many outputs as labels, and its output has a kind.

    Args:
        path: the exported file.
        record: its record.

    Returns:
        The record, with a kind of output also where the file leaves it open.

    Raises:
        ConfigError: the output is no score per class, or their number is not that of the labels.
        ExportError: the file is damaged or its runtime cannot run it.
    """
    from mobilezoo_export import FileApart

    shape = (2, record.preprocessing.channels, *record.input.resolution)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    images[0] = 0
    answers = Answers.of_file(path, record)
    with FileApart(path, record) as opened:
        scores = answers.read(opened.run(images), len(images))
    check_labels(record.labels, scores.shape[1])
    open_ends = tuple(name for name in record.undeclared if name != "output")
    return record.model_copy(update={"output": answers.output, "undeclared": open_ends})


def _notes(path: Path, record: Artifact) -> list[str]:
    notes = []
    if not record.labels:
        notes.append(f"{path.name} has no labels: the kit shows classes by their number (--labels)")
    if record.foreign:
        notes.append(f"{path.name} has no record: how images become its input is as you described it, and not proven")
    return notes


def _fill(folder: Path, path: Path, record: Artifact, kind: str) -> None:
    """Write the kit into the folder, which is not there yet."""
    made = KINDS[kind]
    name = f"model{path.suffix}"
    (folder / made.model).mkdir(parents=True)
    if path.is_dir():
        shutil.copytree(path, folder / made.model / name)
    else:
        shutil.copyfile(path, folder / made.model / name)
    text = json.dumps(model_json(name, record), ensure_ascii=False, indent=1)
    (folder / made.model / "model.json").write_text(text + "\n", encoding="utf-8")
    values = placeholders(path, record, f"{made.model}/{name}".lstrip("/"))
    values["facts"] = filled((TEMPLATES / "facts.md").read_text(encoding="utf-8"), values).rstrip()
    for template, place in {**made.files[""], **made.files.get(record.target, {})}.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        source = TEMPLATES / kind / template
        if source.suffix == ".md":
            (folder / place).write_text(filled(source.read_text(encoding="utf-8"), values), encoding="utf-8")
        else:
            shutil.copyfile(source, folder / place)
    (folder / MARK).write_text(f"{kind} {record.sha256}\n", encoding="utf-8")


def model_json(name: str, record: Artifact) -> dict[str, Any]:
    """What a kit's code knows of its file: the fields of the record that say how to feed and to read it.

    Args:
        name: of the file in the kit.
        record: the file's record.
    """
    fields = ("input", "preprocessing", "output", "output_index", "output_quantization", "labels")
    kept = record.model_dump(mode="json", include=set(fields))
    size = list(record.input.resolution)
    return {"file": name, "runtime": record.target, "size": size, **{field: kept[field] for field in fields}}


def filled(text: str, values: Mapping[str, str]) -> str:
    """A template with every `{{name}}` replaced, once: what a value holds is not looked at again.

    Args:
        text: the template.
        values: of the placeholders.
    """
    return PLACEHOLDER.sub(lambda found: values[found[1]], text)


def placeholders(path: Path, record: Artifact, place: str) -> dict[str, str]:
    """Values of the README's placeholders, safe within a Markdown table.

    Args:
        path: the exported file.
        record: its record.
        place: of the file in the kit.
    """
    spec, prep, how = record.input, record.preprocessing, record.output_quantization
    origin = record.origin
    count = f"{len(record.labels)}, named in `model.json`" if record.labels else "not named: shown by their number"
    proof = "" if not record.foreign else "; no record: not compared with a reference"
    return {
        "file": place,
        "made_from": f"{code(path.name)}: {code(record.model)}, {record.precision}{proof}",
        "input": f"{'×'.join(map(str, spec.shape))} {spec.dtype}, {spec.layout}, {_colors(record)}",
        "rule": escaped(prep.rule(spec.resolution)),
        "values": escaped(_values(record)),
        "output": WORDS[record.output] + (f"; real = (q - {how.zero_point}) * {how.scale!r}" if how else ""),
        "classes": count,
        "weights": f"{code(origin.name)}, license: {escaped(origin.license)}" if origin else _weights(record),
    }


def _weights(record: Artifact) -> str:
    if record.foreign:
        return "of the file's author"
    return "your own" if record.checkpoint else "random: the network was not trained"


def _colors(record: Artifact) -> str:
    return {1: "grey", 3: record.input.colors, 4: "RGBA"}.get(record.preprocessing.channels, "")


def _values(record: Artifact) -> str:
    spec, prep = record.input, record.preprocessing
    if spec.dtype == "uint8" and spec.quantization is None:
        return "pixels 0..255"
    normalized = f"(pixels / 255 - mean) / std, mean {list(prep.mean)}, std {list(prep.std)}"
    how = spec.quantization
    return f"round({normalized} / {how.scale!r}) + {how.zero_point}, clipped" if how else normalized


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line.

    Args:
        text: anything.
    """
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Text as Markdown code, in one line of a table.

    Args:
        text: anything.
    """
    plain = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    gap = " " if "`" in plain else ""
    return f"{fence}{gap}{plain}{gap}{fence}"
