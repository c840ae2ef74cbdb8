"""`mobilezoo export`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.cli.model_options import ClassesArg, SubjectFlags
from mobilezoo.cli.options import AllowCommands, Json, Quiet, print_json
from mobilezoo.errors import MobilezooError


def export(
    of: SubjectFlags,
    subjects: Annotated[
        list[str] | None, typer.Argument(help="Checkpoint, zoo name, model YAML, or timm:NAME; many with --matrix.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="Comma-separated: onnx, litert, coreml, executorch.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="Comma-separated: fp32, fp16, int8.")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Its validation images are compared and scored; default: the training data."),
    ] = None,
    calib: Annotated[
        str | None, typer.Option("--calib", help="Images that int8 is calibrated on; default: those of --data.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default: export/ beside the checkpoint.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Fixed batch size of the files.")] = 1,
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, see below.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", min=0, help="int8: leave so much in float that top-1 falls by at most this."),
    ] = None,
    classes: ClassesArg = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Write no files: name the first layer that departs from PyTorch.")
    ] = False,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Every variant, target and precision; goes on where it stopped.")
    ] = False,
    table: Annotated[Path | None, typer.Option("--table", help="With --matrix: write the table as Markdown.")] = None,
    as_json: Json = False,
    allow_commands: AllowCommands = False,
    quiet: Quiet = False,
) -> None:
    """Phone formats, each run in its own runtime and compared with PyTorch before it gets its name.

    Examples:

        mobilezoo export runs/digits/best.safetensors
        mobilezoo export shvit_s1 --checkpoint shvit_s1.pth --to litert,onnx --out files/
        mobilezoo export timm:mobilenetv4_conv_small --to litert
        mobilezoo export best.safetensors --data folder:/mnt/photos --precision int8
        mobilezoo export best.safetensors --set image=true --set softmax=true
        mobilezoo export best.safetensors --to litert --precision int8 --max-drop 1.0
        mobilezoo export best.safetensors --to litert --precision int8 --bisect
        mobilezoo export --matrix --table docs/export-matrix.md
        mobilezoo export --matrix 'shvit_*' timm:mobilenetv3_small_100 --to litert,executorch --precision fp32

    Keys of --set:

        image=true          uint8 pixels in, normalised in the file (Core ML: an image input)
        softmax=true        probabilities instead of logits
        classifier=true     Core ML files answer with names and probabilities (with softmax=true)
        int8_io=true        int8 LiteRT files take and give int8, float only where nothing else works
        layout=NCHW         input layout of LiteRT files (default NHWC)
        flexible=batch      takes batches of 1 to 16; or resolution (half to double), or both
        opset=18            ONNX operator set, 18 to 23
        onnx_activations=uint8   faster int8 on most x86 CPUs
        coreml_target=iOS17      oldest system that runs the Core ML file
    """
    options = of.parsed()
    if matrix and options != type(options)():
        raise MobilezooError("--matrix exports networks as they are defined: leave --checkpoint and its like out")
    if matrix:
        _export_matrix(subjects or [], to, precision, out, overwrite, table, as_json, quiet)
        return
    if not subjects or len(subjects) != 1:
        raise MobilezooError(f"export takes one subject, got {len(subjects or [])}: name it, or pass --matrix for many")
    from mobilezoo.workflows.export import bisect_subject, export_subject, print_exports, print_findings
    from mobilezoo.workflows.export_images import Sources

    targets, precisions = (to or "onnx,litert,coreml").split(","), (precision or "fp32").split(",")
    sources = Sources(data, calib)
    if bisect:
        found = bisect_subject(subjects[0], targets, precisions, options, sources, progress=not quiet)
        print_json([f.model_dump() for f in found]) if as_json else print_findings(found)
        return
    results = export_subject(
        subjects[0],
        targets,
        precisions,
        options,
        sources,
        out,
        overwrite=overwrite,
        progress=not quiet,
        batch=batch,
        settings=tuple(settings or ()),
        max_drop=max_drop,
        classes=classes,
    )
    print_json([r.model_dump() for r in results]) if as_json else print_exports(results)
    if not all(r.ok for r in results):
        raise typer.Exit(2)


def _export_matrix(
    subjects: list[str],
    to: str | None,
    precision: str | None,
    out: Path | None,
    overwrite: bool,
    table: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from mobilezoo.workflows import export_matrix as matrix
    from mobilezoo_export import list_targets, load_exporter

    targets = to.split(",") if to else list_targets()
    for target in targets:
        load_exporter(target)  # an unknown one is told before hours of work
    folder = out or Path("runs/matrix")
    precisions = precision.split(",") if precision else list(matrix.PRECISIONS)
    results = matrix.run_matrix(subjects, targets, precisions, folder, overwrite=overwrite, progress=not quiet)
    if table:
        matrix.write_matrix(matrix.read_records(folder), table)
    print_json([{"model": n, **r.model_dump()} for n, r in results]) if as_json else matrix.print_matrix(results)
