"""`mobilezoo kit`: a small folder that runs an exported file in an app's own language, without mobilezoo.

The templates are the files of `mobilezoo/kits`; what they need of a file goes into `model.json`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.artifacts import Artifact
from mobilezoo.config import Record
from mobilezoo.dense.reading import dense_answers
from mobilezoo.errors import ConfigError, UnknownNameError, existing_path, writable_place
from mobilezoo.files import atomic_write
from mobilezoo.scratch import temporary_folder
from mobilezoo.workflows.answers import Answers, check_labels
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.kit_facts import filled, header_values, placeholders
from mobilezoo.workflows.kit_kinds import FILLED_HEADERS, KINDS, TEMPLATES, Runs, kinds_of
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.open_file import described

MARK = ".mobilezoo-kit"
"""A file that only kits hold: no other folder is ever replaced."""


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
    _check_assets(kind, path)
    record = described(path, options)
    _check_types(path, record, kind)
    hooks.on_status(f"running {path.name}")
    record = _tried_alone(path, record, kind)
    notes = _notes(path, record)
    for line in notes:
        hooks.on_message(line)
    atomic_write(out, lambda folder: _fill(folder, path, record, kind))
    files = sorted(one.relative_to(out).as_posix() for one in out.rglob("*") if one.is_file() and one.name != MARK)
    return Kit(folder=str(out), kind=kind, files=tuple(files), notes=tuple(notes))


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
    if target in KINDS[kind].runs:
        return
    taken = " and ".join(suffixes[name] for name in KINDS[kind].runs)
    usual = " or ".join(f"--to {name}" for name in KINDS[kind].runs)
    own = " or ".join(f"--for {name}" for name in kinds_of(target))
    remedy = f"this file runs with {own}" if own else "no kit runs this file"
    raise ConfigError(f"{path.name!r}: {_a(kind)} kit runs {taken}; {remedy}, or export with {usual}")


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'ai' else 'a'} {kind}"


def _check_assets(kind: str, path: Path) -> None:
    """Raise DeviceError, with the remedy, where a kit needs a browser runtime that is not set up."""
    from mobilezoo_export.registry import exporter_of
    from mobilezoo_latency.browser.assets import find_assets

    if KINDS[kind].runs[exporter_of(path).target].assets:
        find_assets()


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
    """Raise ConfigError for what a kit's runtime or code does not handle."""
    how, channels = KINDS[kind].runs[record.target], record.preprocessing.channels
    if record.input.dtype not in how.types:
        raise ConfigError(
            f"{path.name!r} takes {record.input.dtype}, and {_a(kind)} kit gives only {', '.join(how.types)}: "
            f"{_float32(record, record.input.dtype)}"
        )
    if channels not in how.channels:
        raise ConfigError(
            f"{path.name!r} takes images of {channels} channels, and {_a(kind)} kit reads RGB and grey only"
        )
    if not how.any_size and "resolution" in record.undeclared:
        raise ConfigError(
            f"{path.name!r} leaves its input's size open, and {_a(kind)} kit cannot set it: export it fixed"
        )


def _check_answer(path: Path, record: Artifact, kind: str, dtype: str) -> None:
    """Raise ConfigError where a kit does not read the numbers that a file answers with."""
    types = KINDS[kind].runs[record.target].types
    if dtype not in types:
        raise ConfigError(
            f"{path.name!r} answers in {dtype}, and {_a(kind)} kit reads only {', '.join(types)}: "
            f"{_float32(record, dtype)}"
        )
    if not dtype.startswith("float") and record.output_quantization is None:
        raise ConfigError(
            f"{path.name!r} answers in {dtype} without a scale, which kits do not read: make a file with float32 there"
        )


def _float32(record: Artifact, dtype: str) -> str:
    """What to do about a type that a kit does not handle."""
    able = [name for name in kinds_of(record.target) if dtype in KINDS[name].runs[record.target].types]
    own = " or ".join(f"--for {name}" for name in able)
    return "make a file with float32 there" + (f", or run this one with {own}" if own else "")


def _tried_alone(path: Path, record: Artifact, kind: str) -> Artifact:
    """Try a copy with nothing beside it: a file whose weights lie in another one would be of no use in a kit."""
    with temporary_folder("kit") as folder:
        _copy(path, folder / path.name)
        return tried(folder / path.name, record, kind)


def _copy(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, target, symlinks=True)
    else:
        shutil.copyfile(path, target)


def tried(path: Path, record: Artifact, kind: str) -> Artifact:
    """Run a file on a blank and on a noisy image: it works, its answer fits labels and task, and its output has a kind.

    Args:
        path: the exported file.
        record: its record.
        kind: a name of `KINDS`.

    Returns:
        The record, with a kind of output also where the file leaves it open.

    Raises:
        ConfigError: the output is no score per class, or their number is not that of the labels; or it has not the
            layout of the record's task, or numbers of a type that the kit does not read.
        ExportError: the file is damaged or its runtime cannot run it.
    """
    from mobilezoo_export import FileApart

    shape = (2, record.preprocessing.channels, *record.input.resolution)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    images[0] = 0
    answers = Answers.of_file(path, record)
    with FileApart(path, record) as opened:
        answer = opened.run(images)
        for dtype in opened.output_types[record.output_index :][:1]:
            _check_answer(path, record, kind, dtype)
    if record.task != "classify":
        dense_answers(record, answer)
        return record
    scores = answers.read(answer, len(images))
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
    made, how = KINDS[kind], KINDS[kind].runs[record.target]
    name = f"model{path.suffix}"
    home = folder / made.model
    home.mkdir(parents=True)
    _copy(path, home / name)
    (home / "model.json").write_text(model_json(name, record), encoding="utf-8")
    readme = placeholders(path, record, f"{made.model}/{name}".lstrip("/"))
    readme["facts"] = filled((TEMPLATES / "facts.md").read_text(encoding="utf-8"), readme).rstrip()
    for template, place in {**made.files, **made.tasks[record.task], **how.files}.items():
        source, target = TEMPLATES / kind / template, folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.name in FILLED_HEADERS:
            target.write_text(filled(source.read_text(encoding="utf-8"), header_values(record, name)), encoding="utf-8")
        elif source.suffix == ".md":
            target.write_text(filled(source.read_text(encoding="utf-8"), readme), encoding="utf-8")
        else:
            shutil.copyfile(source, target)
    _copy_assets(folder, how)
    (folder / MARK).write_text(f"{kind} {record.sha256}\n", encoding="utf-8")


def _copy_assets(folder: Path, how: Runs) -> None:
    """Copy the browser runtime that a kit needs, with its licenses. Raises DeviceError where it is not set up."""
    if not how.assets:
        return
    from mobilezoo_latency.browser.assets import NAMES, find_assets

    root = find_assets()
    for name in (*NAMES, "LICENSES.txt"):
        if name.partition("/")[0] in (*how.assets, "LICENSES.txt"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)


def model_json(name: str, record: Artifact) -> str:
    """What a kit's code reads of its file, as JSON: the fields of the record by which it is fed and read.

    Args:
        name: of the file in the kit.
        record: the file's record.
    """
    fields = ("input", "preprocessing", "output", "output_index", "output_quantization", "labels")
    if record.task != "classify":
        fields = ("task", "output_shape", *(("boxes",) if record.boxes else ()), *fields)
    kept = record.model_dump(mode="json", include=set(fields))
    told: dict[str, Any] = {"file": name, "runtime": record.target, "size": list(record.input.resolution)}
    told |= {field: kept[field] for field in fields}
    lines = [f"{json.dumps(key)}: {_json(value)}" for key, value in told.items()]
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _json(value: Any) -> str:
    """A value in one line; long lists have a line for each item."""
    if isinstance(value, list) and len(value) > 4:
        return "[\n  " + ",\n  ".join(json.dumps(one, ensure_ascii=False) for one in value) + "\n ]"
    return json.dumps(value, ensure_ascii=False)
