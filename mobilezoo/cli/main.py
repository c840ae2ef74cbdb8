"""The commands of `mobilezoo`. Each imports what it needs when it runs, so that `--help` answers at once."""

import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

import mobilezoo
from mobilezoo.cli import (
    card,
    check,
    convert,
    data,
    demo,
    device,
    doctor,
    evaluate,
    explain,
    export,
    faults,
    hub,
    kit,
    latency,
    latency_estimates,  # noqa: F401 - adds its commands to `latency`
    models,
    plugins,
    predict,
    profile,
    recommend,
    report,
    schema,
    search,
    train,
    try_file,
    weights,
)
from mobilezoo.cli.model_options import with_tags
from mobilezoo.cli.options import SETTINGS, command
from mobilezoo.errors import MobilezooError, printable

app = typer.Typer(
    name="mobilezoo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
    help="""Mobile vision backbones, from a paper to a phone: train, export, profile and search.

A first walk:

\b
    mobilezoo demo                                     everything below on a small data set, in minutes
    mobilezoo list                                     the backbones, their cost and published accuracy
    mobilezoo recommend --max-ms 10                    which of them to take for a phone
    mobilezoo train digits                             train from a config in configs/train/
    mobilezoo export runs/digits/best.safetensors      ONNX, LiteRT and Core ML files, each checked
    mobilezoo profile runs/digits/export/*.tflite      latency on this machine, raw samples kept
    mobilezoo device list                              phones, browsers and emulated cores to measure on
""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mobilezoo {mobilezoo.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options of `mobilezoo` itself; each acts by its callback."""


COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("list", models.list_),
    ("show", models.show),
    ("recommend", recommend.recommend),
    ("train", train.train),
    ("eval", evaluate.eval_),
    ("predict", predict.predict),
    ("explain", explain.explain),
    ("try", try_file.try_),
    ("kit", kit.kit),
    ("convert", convert.convert),
    ("card", card.card),
    ("push", hub.push),
    ("pull", hub.pull),
    ("export", export.export),
    ("profile", profile.profile),
    ("doctor", doctor.doctor),
    ("check", check.check),
    ("report", report.report),
    ("schema", schema.schema),
    ("demo", demo.demo),
    ("plugins", plugins.plugins),
)
for name, function in COMMANDS:
    command(app, name)(function)
for group in (data, device, latency, search, weights):
    app.add_typer(group.app)


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
        app(args=with_tags(sys.argv[1:] if args is None else args), prog_name="mobilezoo")
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
    sys.stderr.write(f"{label}: {text}\n")  # one write: torchrun's processes share the stream, unbuffered
    return code


def _one_line(error: MobilezooError) -> str:
    """The message, without the traceback that a loader process wraps around it, safe for a terminal."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return printable(" ".join(text.splitlines()))


if __name__ == "__main__":
    main()
