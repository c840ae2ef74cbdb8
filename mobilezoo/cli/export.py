"""`mobilezoo export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilezoo.cli.model_options import ClassesArg, ModelFlags
from mobilezoo.cli.options import (
    ModelConfigFlags,
    ToArg,
    config_completion,
    config_option,
    print_json,
    separated,
    short_forms,
)
from mobilezoo.cli.progress import shown
from mobilezoo.cli.tables import print_table
from mobilezoo.errors import MobilezooError, writable_place

if TYPE_CHECKING:
    from mobilezoo.artifacts import Artifact
    from mobilezoo_export import ExportResult
    from mobilezoo_export.bisect import Finding


def export(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=config_completion("models"),
            metavar="[MODEL] [KEY=VALUE]...",
            help="Checkpoint, zoo name, model YAML, or timm:NAME (many with --matrix); then changes: softmax=true",
        ),
    ] = None,
    *,
    of: ModelFlags,
    config: Annotated[str, config_option("export")] = "default",
    to: ToArg = None,
    precision: Annotated[str | None, typer.Option("--precision", help="Short for precisions: fp32, int8.")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Its validation images are compared and scored; default: the training data."),
    ] = None,
    calib: Annotated[
        str | None, typer.Option("--calib", help="Images that int8 is calibrated on; default: those of --data.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default: export/ beside the checkpoint.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Fixed batch size of the files.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", min=0, help="int8, w8a8: leave so much in float that top-1 falls by at most this."),
    ] = None,
    optimize_for: Annotated[
        str | None,
        typer.Option("--optimize-for", help="Emulated core: keep the form of each file that takes the fewest cycles."),
    ] = None,
    classes: ClassesArg = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Write no files: name the first layer that diverges from PyTorch.")
    ] = False,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Every variant, target and precision; goes on where it stopped.")
    ] = False,
    table: Annotated[Path | None, typer.Option("--table", help="With --matrix: write the table as Markdown.")] = None,
    check: Annotated[
        str | None,
        typer.Option("--check", help="Units of a phone that files are also run on: cpu, gpu, npu (docs/export.md)."),
    ] = None,
    flags: ModelConfigFlags,
) -> None:
    """Phone formats, each run in its own runtime and compared with PyTorch before it gets its name.

    Examples:

        mobilezoo export runs/digits/best.safetensors
        mobilezoo export shvit_s1 --checkpoint shvit_s1.pth --to litert,onnx --out files/
        mobilezoo export timm:mobilenetv4_conv_small --to litert
        mobilezoo export best.safetensors --data folder:/mnt/photos --precision int8
        mobilezoo export best.safetensors image=true softmax=true
        mobilezoo export best.safetensors --to litert --precision int8 --max-drop 1.0
        mobilezoo export best.safetensors --to litert --precision fp32,int8 --optimize-for cortex_a76
        mobilezoo export best.safetensors --to litert --precision int8 --bisect
        mobilezoo export --matrix --table docs/export-matrix.md
        mobilezoo export --matrix 'shvit_*' timm:mobilenetv3_small_100 --to litert,executorch --precision fp32

    """
    models, overrides = flags.split(words, "mobilezoo export MODEL")
    short = {
        "targets": separated(to),
        "precisions": separated(precision),
        "data": data,
        "calib": calib,
        "classes": classes,
        "check": separated(check),
        "batch": batch,
        "max_drop": max_drop,
        "optimize_for": optimize_for,
        "overwrite": overwrite or None,
    }
    options = of.parsed()
    if matrix:
        if options != type(options)():
            raise MobilezooError("--matrix exports networks as they are defined: leave --checkpoint and its like out")
        ignored = {"KEY=VALUE": overrides, "--config": config != "default", "--data": data, "--calib": calib}
        ignored |= {
            "--batch": batch,
            "--max-drop": max_drop is not None,
            "--optimize-for": optimize_for,
            "--classes": classes,
            "--bisect": bisect,
        }
        ignored["--check"] = check
        if given := [name for name, value in {**ignored, "--keys": flags.keys}.items() if value]:
            raise MobilezooError(f"--matrix exports every network the same way: leave {', '.join(given)} out")
        _export_matrix(models, to, precision, out, overwrite, table, flags.as_json, flags.quiet)
        return
    from mobilezoo.workflows import export as workflow

    files = workflow.load_export_config(config, (*overrides, *short_forms(short)))
    if flags.keys_printed(f"export {config}", files):
        return
    if len(models) != 1:
        raise MobilezooError(f"export takes one model, got {len(models)}: name it, or pass --matrix for many")
    with shown(flags.quiet) as hooks:
        if bisect:
            found = workflow.bisect_model(models[0], files, options, hooks=hooks)
        else:
            results = workflow.export(models[0], files, options, out=out, hooks=hooks)
    if bisect:
        print_json([f.model_dump() for f in found]) if flags.as_json else print_findings(found)
        return
    print_json([r.model_dump() for r in results]) if flags.as_json else print_exports(results)
    asked = [one for r in results if r.artifact for one in r.artifact.checks if one.unit in files.check]
    if not all(r.ok for r in results) or any(one.status != "passed" for one in asked):
        raise typer.Exit(2)


def _export_matrix(
    models: list[str],
    to: str | None,
    precision: str | None,
    out: Path | None,
    overwrite: bool,
    table: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from mobilezoo.workflows import export_matrix as workflow
    from mobilezoo_export import list_targets

    folder = out or Path("runs/matrix")
    writable_place(folder, "--out", folder=True)
    if table:
        writable_place(table, "--table")
    targets = to.split(",") if to else list_targets()
    precisions = precision.split(",") if precision else list(workflow.PRECISIONS)
    with shown(quiet) as hooks:
        results = workflow.run_matrix(models, targets, precisions, folder, overwrite=overwrite, hooks=hooks)
    if table:
        from mobilezoo.workflows.matrix_table import write_matrix

        write_matrix(workflow.read_records(folder), table)
    print_json([{"model": n, **r.model_dump()} for n, r in results]) if as_json else print_matrix(results)


def print_exports(results: "list[ExportResult]") -> None:
    rows = []
    for r in results:
        a = r.artifact
        p = a.parity if a else None
        rows.append(
            (
                r.target,
                r.precision,
                r.status,
                f"{a.size_bytes / 1e6:.2f}" if a else "",
                f"{p.relative:.1e}" if p else "",
                f"{p.snr_db:.0f}" if p else "",
                f"{100 * p.top1_agreement:.1f}" if p else "",
                (p.ran_in if p else a.why_not_runnable) if a else r.reason,
                r.path or "",
            )
        )
    columns = ("target", "precision", "status", "MB", "max diff / std", "SNR dB", "top-1 agreement %", "run by", "file")
    print_table("difference from PyTorch on real images", columns, rows, paths_last=True)
    artifacts = [r.artifact for r in results if r.artifact]
    print_drops(artifacts)
    print_checks(artifacts)
    print_forms(artifacts)
    print_mixed(results)
    for warning in dict.fromkeys(w for r in results for w in r.warnings):
        print(f"warning: {warning}")


def print_forms(artifacts: "Sequence[Artifact]") -> None:
    """Print what the search for the fastest form of each file found."""
    rows = [
        (
            one.target,
            one.precision,
            f"{form.plain_megacycles:.1f}",
            f"{form.megacycles:.1f}",
            f"{form.gain:.3f}",
            ", ".join([*(f"without {name}" for name in form.without), *_in_float(form.float_segments)]) or "plain",
            len(form.tried),
            form.device,
        )
        for one in artifacts
        if (form := one.form) is not None
    ]
    columns = ("target", "precision", "Mcycles plain", "this form", "gain", "form", "tried", "core")
    if rows:
        print_table("cycles of equivalent forms on an emulated core", columns, rows)


def _in_float(segments: tuple[int, ...]) -> list[str]:
    return [f"segments {', '.join(map(str, segments))} in float"] if segments else []


def print_drops(artifacts: "Sequence[Artifact]") -> None:
    """Print top-1 beside PyTorch's, for files that labelled images were at hand for."""
    rows = [
        (
            one.target,
            one.precision,
            f"{drop.top1_pytorch:.2f}",
            f"{drop.top1:.2f}",
            f"{drop.points:.2f}",
            f"{drop.lost} / {drop.won}",
            drop.inputs,
        )
        for one in artifacts
        if (drop := one.top1_drop) is not None
    ]
    columns = ("target", "precision", "top-1 PyTorch", "this file", "drop", "lost / won", "images")
    if rows:
        print_table("top-1 on images that no file was calibrated on", columns, rows)


def print_checks(artifacts: "Sequence[Artifact]") -> None:
    """Print what further units of a phone computed, for files that were run on any."""
    rows = []
    for r in artifacts:
        for one in r.checks:
            p = one.parity
            fell_back = ", ".join(f"{count} {op}" for op, count in (one.outside or {}).items())
            rows.append(
                (
                    r.target,
                    r.precision,
                    one.unit,
                    one.status,
                    f"{p.relative:.1e}" if p else "",
                    f"{p.snr_db:.0f}" if p else "",
                    f"{100 * p.top1_agreement:.0f}" if p else "",
                    "" if one.partitions is None else one.partitions,
                    fell_back or ("none" if one.outside is not None else ""),
                    p.ran_in if p else one.reason,
                )
            )
    columns = (
        "target",
        "precision",
        "unit",
        "status",
        "max diff / std",
        "SNR dB",
        "top-1 agreement %",
        "partitions",
        "on the CPU",
        "run by",
    )
    if rows:
        print_table("units of a phone, emulated or in software: answers, never times", columns, rows)
    checks = [one for r in artifacts for one in r.checks]
    for note in dict.fromkeys(f"{one.unit}: {note}" for one in checks for note in one.notes):
        print(note)


def print_findings(found: "list[Finding]") -> None:
    rows = [
        (f.target, f.precision, f.layer or "none: the whole network agrees", f.last_good or "", f.probes, f.reason)
        for f in found
    ]
    columns = ("target", "precision", "first layer that diverges", "last that agrees", "probes", "how")
    print_table("where files diverge from PyTorch", columns, rows)


def print_mixed(results: "list[ExportResult]") -> None:
    """The segments kept in float, of results of mixed precision."""
    rows = [
        (
            r.target,
            f"{r.mixed.top1_float:.2f}",
            f"{r.mixed.top1_int8:.2f}",
            f"{r.mixed.top1:.2f}",
            f"{r.mixed.drop:.2f}",
            ", ".join(str(segment + 1) for segment in r.mixed.float_segments) or "none",
            r.mixed.tried,
        )
        for r in results
        if r.mixed
    ]
    columns = (
        "target",
        "top-1 PyTorch",
        "all int8",
        "this file",
        "drop",
        "float segments",
        "files tried",
    )
    if rows:
        print_table("mixed precision", columns, rows)


def print_matrix(results: "Sequence[tuple[str, ExportResult]]") -> None:
    from mobilezoo.cli.tables import print_table

    rows = []
    for name, r in results:
        p = r.artifact.parity if r.artifact else None
        size = f"{r.artifact.size_bytes / 1e6:.2f}" if r.artifact else ""
        figures = (f"{p.relative:.1e}", f"{p.snr_db:.0f}") if p else ("", "")
        rows.append((name, r.target, r.precision, r.status, size, *figures, r.reason))
    columns = ("model", "target", "precision", "status", "MB", "max diff / std", "SNR dB", "reason")
    print_table("export matrix", columns, rows)
