"""The verbs of `mobilezoo`. Each imports what it needs when it runs, so that `--help` answers at once."""

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.errors import MobilezooError, printable
from mobilezoo.verbs import dataset, devices, estimating, faults, search_commands
from mobilezoo.verbs.commands import (
    SETTINGS,
    AllowCommands,
    Json,
    Keys,
    Quiet,
    Register,
    command,
    print_json,
    print_keys,
)
from mobilezoo.verbs.options import NetworkFlags, SubjectFlags, resolution_override

app = typer.Typer(
    name="mobilezoo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
    help="""Mobile vision backbones, from a paper to a phone: train, export, profile and search.

A first walk:

\b
    mobilezoo demo                                     everything below on a small data set, in minutes
    mobilezoo list                                     the backbones, their cost and published accuracy
    mobilezoo train digits                             train from a config in configs/train/
    mobilezoo export runs/digits/best.safetensors      ONNX, LiteRT and Core ML files, each checked
    mobilezoo profile runs/digits/export/*.tflite      latency on this machine, raw samples kept
    mobilezoo device list                              phones, browsers and emulated cores to measure on
""",
)

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


def verb(name: str | None = None) -> Register:
    """Register a command of `mobilezoo` itself."""
    return command(app, name)


app.add_typer(dataset.app)
app.add_typer(devices.app)
app.add_typer(estimating.app)
app.add_typer(search_commands.app)


@verb("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, for example 'shvit*'.")] = "*",
    as_json: Json = False,
) -> None:
    """The zoo: parameters, MACs, resolution, published top-1 with its source, licence of the official weights.

    Examples:

        mobilezoo list
        mobilezoo list 'mnasnet*' --json
    """
    from mobilezoo.verbs.listing import model_rows, print_models

    rows = model_rows(pattern)
    print_json(rows) if as_json else print_models(rows)


@verb()
def show(
    model: Annotated[str, typer.Argument(help="A zoo name, an official alias, or the path of a model YAML.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes such as resolution=192.")] = None,
    as_json: Json = False,
) -> None:
    """One network stage by stage: shapes, parameters and MACs.

    Examples:

        mobilezoo show mobilenetv2_ca_100
        mobilezoo show my_variant.yaml resolution=160
    """
    from mobilezoo.verbs.listing import print_stages, stage_table

    table = stage_table(model, tuple(overrides or ()))
    print_json(table) if as_json else print_stages(table)


@verb()
def train(
    config: Annotated[str, typer.Argument(help="A recipe (bare name in configs/train/, or a YAML), or a run folder.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted changes: train.epochs=5 data.workers=4")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last whole checkpoint.")] = False,
    resolution: Annotated[
        str | None, typer.Option("--resolution", help="Short for train.resolution: 224, or 192x256 (height x width).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default runs/NAME.")] = None,
    keys: Keys = False,
    as_json: Json = False,
    allow_commands: AllowCommands = False,
    quiet: Quiet = False,
) -> None:
    """Train a backbone; checkpoints, metrics and the best weights land in the run folder.

    Examples:

        mobilezoo train digits
        mobilezoo train digits --keys
        mobilezoo train digits model=shvit_s1 train.epochs=5 name=shvit
        mobilezoo train runs/shvit --resume
        mobilezoo train digits --resolution 48x64 model_args.in_chans=1
        torchrun --nproc-per-node 8 -m mobilezoo.cli train shvit --resume
        mobilezoo train digits data.source=folder:~/my_photos model_args.drop_path_rate=0.1
    """
    changes = (*(overrides or ()), *resolution_override(resolution))
    if keys:
        from mobilezoo.config import load_record
        from mobilezoo.train.config import TrainConfig
        from mobilezoo.verbs.training import recipe_file

        recipe = load_record(TrainConfig, recipe_file(config), changes)
        print_keys(f"recipe {config}", recipe, as_json)
        return
    from mobilezoo.verbs.training import run_training

    record = run_training(config, changes, out, resume, progress=not quiet)
    if os.environ.get("RANK", "0") == "0":  # torchrun starts this verb several times
        print_json(record.model_dump()) if as_json else print(f"best top-1 {record.top1:.2f}%  {record.path}")


PreprocessArg = Annotated[
    str | None,
    typer.Option("--preprocess", help="Of files of others: raw, unit, inception, imagenet; crop=0.9, size=192x256, …"),
]


@verb("eval")
def eval_(
    subject: Annotated[str, typer.Argument(help="Zoo name, checkpoint (.safetensors), exported file, or timm:NAME.")],
    of: SubjectFlags,
    data: DataArg = None,
    classes: ClassesArg = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 64,
    workers: Annotated[int, typer.Option("--workers", min=0)] = 2,
    preprocess: PreprocessArg = None,
    as_json: Json = False,
    allow_commands: AllowCommands = False,
    quiet: Quiet = False,
) -> None:
    """Top-1 and top-5 of a network, a checkpoint, or an exported file run in its own runtime.

    A file is scored beside the PyTorch weights its record names (or --checkpoint), with the drop between them.

    Examples:

        mobilezoo eval shvit_s1 --checkpoint shvit_s1.pth --data folder:/data/imagenet
        mobilezoo eval shvit_s1 --checkpoint shvit_s1.pth --data folder:ten_breeds --classes imagenet-1k
        mobilezoo eval runs/digits/best.safetensors
        mobilezoo eval runs/digits/export/mobilenetv2_ca_100.fp32.tflite
        mobilezoo eval theirs.tflite --preprocess raw --data folder:photos --classes imagenet-1k
    """
    from mobilezoo.verbs.evaluation import evaluate_subject, print_result

    options = of.parsed().model_copy(update={"preprocess": preprocess})
    result = evaluate_subject(subject, data, options, batch_size, workers, not quiet, classes)
    print_json(result) if as_json else print_result(result)


@verb()
def predict(
    subject: Annotated[str, typer.Argument(help="Checkpoint (.safetensors), exported file, zoo name, or timm:NAME.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    of: SubjectFlags,
    preprocess: PreprocessArg = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes per image.")] = 5,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: one row per image and rank.")] = False,
    as_json: Json = False,
) -> None:
    """The best classes of single images, read and prepared as `eval` does; exit code 2 where one cannot be read.

    Examples:

        mobilezoo predict runs/digits/best.safetensors photo.jpg
        mobilezoo predict model.int8.tflite photos/ --csv
        mobilezoo predict theirs.tflite photo.jpg --preprocess raw --labels labels.txt
    """
    from mobilezoo.verbs import predicting

    if as_csv and as_json:
        raise MobilezooError("--csv and --json are two ways to print the same: choose one")
    options = of.parsed().model_copy(update={"preprocess": preprocess})
    found = predicting.predict(subject, images, options, top)
    if as_json:
        print_json([f.model_dump() for f in found])
    elif as_csv:
        print(predicting.as_csv(found), end="")
    else:
        predicting.print_predictions(found)
    if any(f.fault for f in found):
        raise typer.Exit(2)


@verb()
def convert(
    official: Annotated[Path, typer.Argument(help="An official checkpoint: .pth, .pth.tar, .safetensors.")],
    model: Annotated[str, typer.Option("--model", help="The network it belongs to: zoo name, YAML or timm:NAME.")],
    of: NetworkFlags,
    out: Annotated[Path | None, typer.Option("--out", help="Default: the same name, .safetensors.")] = None,
) -> None:
    """Turn any checkpoint into safetensors with the network's keys, checked against it, and a record beside.

    Examples:

        mobilezoo convert shvit_s1.pth --model shvit_s1
        mobilezoo convert model_best.pth.tar --model timm:resnet18 --labels cat,dog --resolution 192
    """
    from mobilezoo.verbs.converting import convert_checkpoint

    print(convert_checkpoint(model, of.parsed(official), out))


@verb()
def push(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of ours, .safetensors.")],
    repo: Annotated[str | None, typer.Argument(help="OWNER/NAME on the Hugging Face Hub.")] = None,
    local: Annotated[Path | None, typer.Option("--local", help="Write the files to this folder instead.")] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
) -> None:
    """Share a checkpoint in timm's format, so that `timm.create_model("hf-hub:OWNER/NAME")` loads it.

    Examples:

        mobilezoo push runs/digits/best.safetensors me/digits-ca
        mobilezoo push runs/digits/best.safetensors --local shared/digits-ca
    """
    from mobilezoo import hub

    if (repo is None) == (local is None):
        raise MobilezooError("push takes one place: OWNER/NAME, or --local FOLDER")
    print(hub.push(checkpoint, repo, private=private) if repo else hub.write_folder(checkpoint, local or Path()))


@verb()
def pull(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face Hub, or a folder in timm's format.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the weights and their record.")] = Path("runs/pulled"),
    as_json: Json = False,
) -> None:
    """Fetch a network of the zoo that was shared in timm's format; eval, export and train take the file.

    Examples:

        mobilezoo pull me/digits-ca
        mobilezoo eval runs/pulled/digits-ca.safetensors
    """
    from mobilezoo import hub

    record = hub.pull(repo, out)
    print_json(record.model_dump()) if as_json else print(out / record.path)


@verb()
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
    from mobilezoo.verbs.export_images import Sources
    from mobilezoo.verbs.exporting import bisect_subject, export_subject, print_exports, print_findings

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
    from mobilezoo.verbs import matrix
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


@verb()
def profile(
    subjects: Annotated[list[str], typer.Argument(help="Exported files, checkpoints, zoo names or timm:NAME.")],
    of: SubjectFlags,
    device: Annotated[
        str, typer.Option("--device", help="A name of `mobilezoo device list`, or the path of a device YAML.")
    ] = "host",
    to: Annotated[str, typer.Option("--to", help="Formats to export names and checkpoints to.")] = "litert",
    tier: Annotated[str, typer.Option("--tier", "--protocol", help="screen, report or sustained.")] = "screen",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: one.")] = None,
    cores: Annotated[str | None, typer.Option("--cores", help="Phones and boards: big, mid, little or any.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the device's YAML, for example serial=R58M.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Time two files in turns; report their ratio.")] = False,
    ops: Annotated[bool, typer.Option("--ops", help="Where the milliseconds go, operator by operator.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="With --ops: a flame-like picture, SVG.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Measure again even if a stored result fits.")] = False,
    allow_folded: Annotated[
        bool, typer.Option("--allow-folded", help="Time a file whose zero norms let branches vanish.")
    ] = False,
    allow_commands: AllowCommands = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Latency of exported files by a stated protocol; raw samples are kept, noisy runs are marked.

    Examples:

        mobilezoo profile runs/digits/export/*.tflite runs/digits/export/*.onnx
        mobilezoo profile shvit_s1 timm:mobilenetv4_conv_small --to litert,onnx
        mobilezoo profile a.tflite b.tflite --compare
        mobilezoo profile shvit_s1 --device cortex_a76
        mobilezoo profile shvit_s1 --device android --cores big
        mobilezoo profile shvit_s1 --device android --set runner.kind=benchmark_model --set runner.path=PATH
        mobilezoo profile shvit_s1 --tier report --no-cache --json
        mobilezoo profile shvit_s1 --ops --plot shvit_s1.svg
    """
    from mobilezoo.verbs import profiling

    changed = (*(settings or ()), *((f"cores={cores}",) if cores else ()))
    choices = profiling.Choices(
        device, tuple(to.split(",")), tier, threads, not no_cache, allow_folded, not quiet, changed, of.parsed()
    )
    if compare:
        ratio = profiling.compare_subjects(subjects, choices)
        print_json(ratio.model_dump()) if as_json else profiling.print_comparison(ratio)
        return
    if ops:
        from mobilezoo.verbs import operators

        found = operators.profile_subject_operators(subjects, choices, plot)
        print_json(operators.operators_dict(found)) if as_json else operators.print_operators(found)
        return
    reports = profiling.profile_subjects(subjects, choices)
    print_json([profiling.report_dict(r) for r in reports]) if as_json else profiling.print_reports(reports)


@verb()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders: what lies in them decides what the page shows.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
) -> None:
    """One self-contained HTML page: training curves, parity, latency with spread, the search front.

    Examples:

        mobilezoo report runs/digits
        mobilezoo report runs/a runs/b --out compare.html
    """
    from mobilezoo.verbs.reporting import write_report

    print(write_report(runs, out))


@verb()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where everything is left.")] = Path("runs/demo"),
    quiet: Quiet = False,
) -> None:
    """Train, export, check, time and search on real scanned digits, ending in one page; about five minutes on 2 cores.

    Example:

        mobilezoo demo
    """
    from mobilezoo.verbs.demo import run_demo

    run_demo(out, progress=not quiet)


def main(args: list[str] | None = None) -> None:
    """Run the CLI; a user's mistake is one line on stderr and exit code 2, Ctrl-C one line and 130."""
    # Libraries warn of their own future; nothing a user of these verbs can act on.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        with faults.outlet():
            code = _run(args)
    except faults.OutputError as error:
        code = error.exit_code if error.reader_gone else _said("error", str(error), error.exit_code)
    sys.exit(code)


def _run(args: list[str] | None) -> int:
    """The exit code of a command; a failure of standard output, and what is no user's mistake, is raised."""
    try:
        app(args=args)
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
        return _said("interrupted", AGAIN, code) if code == faults.INTERRUPTED else code
    except KeyboardInterrupt:  # before the command began
        return _said("interrupted", AGAIN, faults.INTERRUPTED)
    except faults.OutputError:
        raise
    except MobilezooError as error:
        return _said(getattr(error, "label", "error"), _one_line(error), getattr(error, "exit_code", 2))
    except OSError as error:
        if (line := faults.explain(error)) is None:
            raise
        return _said("error", line, 2)
    return 0


AGAIN = "what was finished is kept; run the same command again"


def _said(label: str, text: str, code: int) -> int:
    print(f"{label}: {text}", file=sys.stderr)
    return code


def _one_line(error: MobilezooError) -> str:
    """The message, without the traceback that a loader process wraps around it, safe for a terminal."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return printable(" ".join(text.splitlines()))


if __name__ == "__main__":
    main()
