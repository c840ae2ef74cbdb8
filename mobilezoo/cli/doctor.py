"""`mobilezoo doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.cli.model_options import PreprocessArg
from mobilezoo.cli.options import Json, Quiet, print_json, separated
from mobilezoo.cli.progress import shown
from mobilezoo.cli.tables import print_pairs, print_table
from mobilezoo.doctor_report import Anatomy, DoctorReport, Finding, TensorFacts, UnitVerdict, report_dict
from mobilezoo.errors import printable

FOUND = 3
"""Exit code where a condition of --fail-on holds; `mobilezoo check` has it for a regression."""
SHOWN_OPS = 12
KEPT = ("mobilezoo",)
"""Metadata of ours, which the record shows."""


def doctor(
    file: Annotated[str, typer.Argument(help="A .tflite, .onnx, .mlpackage, .pte or .aimodel, whoever made it.")],
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of images that the units compute; else photographs, noise.")
    ] = None,
    units: Annotated[
        str, typer.Option("--units", help="Units of a phone that the file is run on, where they are set up.")
    ] = "cpu,gpu,npu",
    static: Annotated[bool, typer.Option("--static", help="Read the file and run nothing.")] = False,
    resolution: Annotated[
        str | None, typer.Option("--resolution", help="HEIGHTxWIDTH, where the file leaves it open.")
    ] = None,
    preprocess: PreprocessArg = None,
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="Exit with code 3 on: 'fallback,transpose>2,size>8MB,fallback:gpu,…'")
    ] = "",
    limit: Annotated[
        float, typer.Option("--limit", min=1, help="Seconds after which a unit is given up; the others still answer.")
    ] = 300,
    html: Annotated[Path | None, typer.Option("--html", help="Write all of it as one offline page.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What an exported file holds, which units of a phone take it, where its time goes, and what would help.

    A part that cannot be done is one line; the others still answer. Exit code 3 where a condition of --fail-on holds.

    Examples:

        mobilezoo doctor theirs.tflite
        mobilezoo doctor theirs.onnx --static --json
        mobilezoo doctor theirs.tflite --images photos --preprocess imagenet --html theirs.html
        mobilezoo doctor theirs.tflite --fail-on 'fallback,transpose-pair,size>8MB'
    """
    from mobilezoo.errors import writable_place
    from mobilezoo.resolution import parse_resolution
    from mobilezoo.workflows.doctor import doctor as workflow
    from mobilezoo.workflows.model_options import ModelOptions

    size = parse_resolution(resolution) if resolution is not None else None
    options = ModelOptions(resolution=size, preprocess=preprocess)
    if html is not None:
        writable_place(html, "--html")
    names = None if static else tuple(filter(None, separated(units) or ()))
    with shown(quiet) as hooks:
        found = workflow(file, options, images=images, units=names, fail_on=fail_on, limit_s=limit, hooks=hooks)
    if html is not None:
        from mobilezoo.report.doctor_page import write_page

        write_page(html, found)
    print_json(report_dict(found)) if as_json else print_report(found)
    if found.failed_on:
        raise typer.Exit(FOUND)


def print_report(report: DoctorReport) -> None:
    """Everything that was found, most general first, and what would help last.

    Args:
        report: what was found.
    """
    rows = [("size", _bytes(report.size_bytes)), ("sha256", report.sha256[:16] + "…")]
    if report.anatomy is not None:
        rows += _about(report.anatomy)
    print_pairs(f"{report.path} ({report.target})", rows)
    if report.anatomy is not None:
        _print_graph(report.anatomy)
    if report.units:
        columns = ("unit", "how", "takes", "parts", "leaves out", "agrees", "why")
        print_table("units", columns, [_unit_row(one) for one in report.units])
        _print_notes(report)
    _print_costs(report)
    _print_findings(report.findings)
    for part in report.parts:
        if part.status != "done":
            print(f"{part.name} {part.status}: {printable(part.reason)}")
    for line in report.failed_on:
        print(f"failed on {printable(line)}")


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _about(anatomy: Anatomy) -> list[tuple[str, str]]:
    rows = [("made by", anatomy.producer)] if anatomy.producer else []
    rows += [(f"input {i}", _tensor(one)) for i, one in enumerate(anatomy.inputs)]
    rows += [(f"output {i}", _tensor(one)) for i, one in enumerate(anatomy.outputs)]
    weights = ", ".join(f"{_bytes(size)} {name}" for name, size in list(anatomy.weight_types.items())[:4])
    rows += [("quantization", anatomy.scheme), ("weights", weights or "none")]
    if anatomy.further_graphs:
        rows += [("graphs", f"{anatomy.further_graphs} beside the main one")]
    return rows + [(f"metadata {key}", value[:120]) for key, value in anatomy.metadata.items() if key not in KEPT]


def _tensor(one: TensorFacts) -> str:
    shape = "unknown shape" if one.shape is None else "×".join("?" if s is None else str(s) for s in one.shape)
    how = f" ({one.quantization})" if one.quantization else ""
    return f"{one.name or 'unnamed'}: {one.dtype} {shape or 'scalar'}{how}"


def _print_graph(anatomy: Anatomy) -> None:
    total = sum(anatomy.ops.values())
    listed = list(anatomy.ops.items())
    shown_ops = ", ".join(f"{count} {name}" for name, count in listed[:SHOWN_OPS])
    more = f", and {len(listed) - SHOWN_OPS} kinds more" if len(listed) > SHOWN_OPS else ""
    print(printable(f"{total} operator{'' if total == 1 else 's'}: {shown_ops}{more}"))
    if anatomy.biggest:
        rows = [
            (f"{(one.size_bytes or 0) / 1e3:.1f}", one.dtype, "×".join(map(str, one.shape or ())), one.name)
            for one in anatomy.biggest
        ]
        print_table("largest tensors", ("kB", "type", "shape", "name"), rows)


def _unit_row(one: UnitVerdict) -> tuple[object, ...]:
    outside = ", ".join(f"{count} {name}" for name, count in list((one.outside or {}).items())[:4])
    more = len(one.outside or {}) - 4
    outside += f", {more} kinds more" if more > 0 else ""
    agrees = f"{one.parity.snr_db:.1f} dB" if one.parity is not None else ""
    return one.unit, one.how, one.status, one.partitions, outside, agrees, one.reason


def _print_notes(report: DoctorReport) -> None:
    if report.inputs_from:
        print(printable(f"run on {report.inputs_from}, compared with the host's runtime"))
    for one in report.units:
        for note in one.notes:
            print(printable(f"{one.unit}: {note}"))
        if one.source:
            print(printable(f"{one.unit}: by {one.source}"))


def _print_costs(report: DoctorReport) -> None:
    times, counts = report.times, report.counts
    if times is not None:
        rows = [(one.type, one.count, f"{one.ms:.3f}", f"{one.share:.1%}") for one in times.by_type]
        title = f"time on this machine: {times.whole_ms:.3f} ms as one ({times.runtime})"
        print_table(title, ("type", "operators", "ms", "share"), rows)
        for line in times.advice:
            print(printable(f"note: {line}"))
    if counts is not None:
        numbers = f"{counts.instructions / 1e6:.2f} M instructions, {counts.cycles / 1e6:.2f} M cycles"
        text = f"emulated {counts.core}, counted: {numbers}"
        if counts.estimated_ms is not None:
            text += f", estimated {counts.estimated_ms:.2f} ms (mean error {counts.error}; not timed)"
        print(printable(text))


def _print_findings(findings: tuple[Finding, ...]) -> None:
    print("findings" if findings else "findings: none")
    for one in findings:
        print(printable(f"- {one.kind}: {one.text}"))
        if one.where:
            print(printable(f"    at {', '.join(one.where)}{', …' if one.count > len(one.where) else ''}"))
        if one.remedy:
            print(printable(f"    helps: {one.remedy}"))
        if one.command:
            print(printable(f"    {one.command}"))
