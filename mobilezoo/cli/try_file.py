"""`mobilezoo try`."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilezoo.cli.model_options import ClassesArg, DataArg, PreprocessArg
from mobilezoo.cli.options import Json, print_json
from mobilezoo.cli.progress import shown

if TYPE_CHECKING:
    from mobilezoo.workflows.try_file import TryPage


def try_(
    files: Annotated[list[str], typer.Argument(help="One exported file (.tflite, .onnx), or two side by side.")],
    labels: Annotated[
        str | None, typer.Option("--labels", help="Class names: a .txt or .json file, or a,b,c in the file's order.")
    ] = None,
    preprocess: PreprocessArg = None,
    data: DataArg = None,
    classes: ClassesArg = None,
    samples: Annotated[int, typer.Option("--samples", min=0, max=1000, help="Images of the data set.")] = 24,
    local: Annotated[
        bool, typer.Option("--local", help="For this machine, or a phone on its USB cable, only.")
    ] = False,
    https: Annotated[
        bool, typer.Option("--https/--no-https", help="Encrypt on the network; without, phones give no camera.")
    ] = True,
    address: Annotated[
        str, typer.Option("--address", help="Of this machine, to listen on; default: of its route.")
    ] = "",
    show: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser, too.")] = False,
    as_json: Json = False,
) -> None:
    """Run exported files in a phone's own browser: on its camera, on photographs and on samples.

    Prints a link and its QR code. Pictures stay in the browser; the page ends with Ctrl-C, or by itself some
    minutes after it was closed.

    Examples:

        mobilezoo try runs/digits/export/mobilenetv2_ca_100.fp32.tflite
        mobilezoo try a.fp32.tflite a.int8.tflite --local --open
        mobilezoo try theirs.onnx --preprocess imagenet --labels labels.txt --data folder:photos
    """
    from mobilezoo.workflows.model_options import ModelOptions, read_labels
    from mobilezoo.workflows.try_file import TryConfig, try_files

    options = ModelOptions(labels=read_labels(labels) if labels is not None else (), preprocess=preprocess)
    config = TryConfig(lan=not local, https=https, address=address, samples=samples)
    with (
        shown() as hooks,
        try_files(files, options, data=data, classes=classes, config=config, hooks=hooks) as page,
    ):
        print_json(_plain(page)) if as_json else _invite(page, local, https)
        sys.stdout.flush()
        if show:
            typer.launch(page.url)
        try:
            print(page.wait(), file=sys.stderr)
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)


def _plain(page: "TryPage") -> dict[str, Any]:
    return {"url": page.url, "note": page.note, **page.description}


def _invite(page: "TryPage", local: bool, https: bool) -> None:
    from mobilezoo_latency.browser.reach import qr_code

    port = page.site.port
    if local:
        print(f"open: {page.url}")
        print(f"an Android phone on a USB cable: `adb reverse tcp:{port} tcp:{port}`, then the same link there")
    else:
        print(f"{qr_code(page.url)}open: {page.url}")
    if not local and not https:
        print("--no-https: phones give this page no camera and one thread; photographs work")
    print(page.note)
    print("Ctrl-C ends it")
