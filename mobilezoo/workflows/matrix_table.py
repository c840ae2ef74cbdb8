"""The table of `mobilezoo export --matrix`: a row per model and target, a cell per precision."""

from collections.abc import Sequence
from pathlib import Path

from mobilezoo.config import config_names
from mobilezoo.files import write_text
from mobilezoo.reading import read_text
from mobilezoo.workflows.export_matrix import PRECISIONS
from mobilezoo_export import ExportResult, list_targets, load_exporter
from mobilezoo_export.config import PARITY_IMAGES

NOT_RUN = "not run"
HEAD = ["model", "target"]
CONTEXT = "EPContext"
MAX_TABLE_BYTES = 1 << 24
COUNTS = ("operators", "transposes", "XNNPACK partitions", "outside")
INTRODUCTION = (
    "Written by `mobilezoo export --matrix --table docs/export-matrix.md`. Weights are random, with random norms "
    "whose variances fit the calibration images. A cell gives the file's size, its largest difference from "
    "PyTorch over the deviation of the logits and the signal-to-error ratio, on 64 crops of real photographs or as "
    "many as stand there, run in the file's own runtime (Core ML, Core AI: program check; qnn: the emulated NPU, with "
    "the number of contexts that the network is compiled to), and what units of a phone made of it where it was run on "
    "any. Random networks lose more in int8 than trained ones. The last columns are of the fp32 file. A target without "
    "a row was not run; – stands for what a target does not have.\n"
)
FURTHER = "\n## Further precisions\n\nOf the files above, the same in other precisions.\n"
NOT_THERE = "–"
TRANSPOSES = ("transpose", "permute")
Row = dict[str, str]
"""Column → text of one row."""


def write_matrix(results: Sequence[tuple[str, ExportResult]], path: Path) -> Path:
    """Write the table as Markdown; cells of an earlier table stay where no result replaces them.

    Models that are in neither are listed below the table.

    Args:
        results: (model, result) pairs.
        path: file to write.
    """
    rows = _earlier_rows(path)
    for name, result in results:
        row = rows.setdefault((name, result.target), {})
        row[result.precision] = _cell(result)
        if result.precision == "fp32":
            row.update(zip(COUNTS, _counts(result), strict=True))
    zoo = config_names("models")
    names = dict.fromkeys([*zoo, *(name for name, _ in rows)])
    targets = [target for target in list_targets() if any(target == other for _, other in rows)]
    found = {column for row in rows.values() for column in row} - set(COUNTS)
    done = dict.fromkeys(name for name in names if any(name == other for other, _ in rows))
    keys = [(name, target) for name in done for target in targets if rows.get((name, target))]
    main = [name for name in PRECISIONS if name in found]
    lines = ["# Export matrix\n", INTRODUCTION, *_table(keys, rows, main, COUNTS)]
    if further := sorted(found - set(PRECISIONS)):
        with_one = [key for key in keys if any(name in rows[key] for name in further)]
        lines += [FURTHER, *_table(with_one, rows, further, ())]
    if missing := [name for name in zoo if name not in done]:
        lines.append(f"\nNot run yet: {', '.join(missing)}.")
    return write_text(path, "\n".join(lines) + "\n")


def _table(
    keys: Sequence[tuple[str, str]],
    rows: dict[tuple[str, str], Row],
    precisions: Sequence[str],
    counts: Sequence[str],
) -> list[str]:
    """Lines of a table with a row for each (model, target), and columns of precisions and counts."""
    columns = ("model", "target", *precisions, *counts)
    lines = [f"| {' | '.join(columns)} |", "|---|---|" + "---|" * len(precisions) + "--:|" * len(counts)]
    for name, target in keys:
        row, has = rows[name, target], load_exporter(target).precisions
        cells = [row.get(one, NOT_RUN if one in has else NOT_THERE) for one in precisions]
        lines.append(f"| {name} | {target} | {' | '.join([*cells, *(row.get(one, '') for one in counts)])} |")
    return lines


def _earlier_rows(path: Path) -> dict[tuple[str, str], Row]:
    """(model, target) → cells of a table that was written before, without those that were not run."""
    if not path.is_file():
        return {}
    lines = [_fields(line) for line in read_text(path, MAX_TABLE_BYTES).splitlines() if line.startswith("| ")]
    if not lines or lines[0][:2] != HEAD:
        return {}
    columns: list[str] = []
    rows: dict[tuple[str, str], Row] = {}
    for fields in lines:
        if fields[:2] == HEAD:
            columns = fields[2:]
            continue
        cells = dict(zip(columns, fields[2:], strict=True))
        known = {column: text for column, text in cells.items() if text not in (NOT_RUN, NOT_THERE)}
        rows.setdefault((fields[0], fields[1]), {}).update(known)
    return rows


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.strip().removeprefix("|").removesuffix("|").split("|")]


def _cell(result: ExportResult) -> str:
    if result.artifact is None:
        return f"**{result.status}**: {result.reason}".replace("|", "/").replace("\n", " ")
    size, parity = f"{result.artifact.size_bytes / 1e6:.1f} MB", result.artifact.parity
    images = "" if parity is None or parity.images == PARITY_IMAGES else f" on {parity.images}"
    units = "".join(f", {one.unit} {one.status}" for one in result.artifact.checks)
    contexts = result.artifact.coverage.ops.get(CONTEXT, 0) if result.artifact.coverage else 0
    if contexts:
        units = f", {contexts} context{'' if contexts == 1 else 's'}{units}"
    return (
        f"{size}, {parity.relative:.1e}, {parity.snr_db:.0f} dB{images}" if parity else f"{size}, not run here"
    ) + units


def _counts(result: ExportResult) -> tuple[str, str, str, str]:
    found = result.artifact.coverage if result.artifact else None
    if found is None:
        return "", "", "", ""
    transposes = sum(count for op, count in found.ops.items() if op.lower() in TRANSPOSES)
    outside = "" if found.outside is None else str(sum(found.outside.values()))
    partitions = "" if found.partitions is None else str(found.partitions)
    return str(sum(found.ops.values())), str(transposes), partitions, outside
