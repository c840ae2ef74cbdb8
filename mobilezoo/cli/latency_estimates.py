"""`mobilezoo latency table | import-table | fit | predict`: estimates from measured blocks or measured networks."""

from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.cli.latency import app
from mobilezoo.cli.options import AllowCommands, Json, Quiet, command, config_completion, print_json
from mobilezoo.cli.progress import shown
from mobilezoo.errors import writable_place
from mobilezoo.workflows.estimate_latency import estimate, load_space
from mobilezoo.workflows.latency_blocks import block_keys, export_blocks, sample_networks

SpaceArg = Annotated[str, typer.Argument(help="A search config: path of a YAML, or a bare name in configs/search/.")]
DeviceOpt = Annotated[
    str,
    typer.Option(
        "--device", autocompletion=config_completion("devices"), help="A name of `mobilezoo device list`, or a YAML."
    ),
]
Folder = Annotated[Path, typer.Option("--work", help="Where exported files stay, so that a second call goes on.")]
WORK = Path("runs/latency")


@command(app)
def table(
    space: SpaceArg,
    out: Annotated[Path, typer.Option("--out", help="The table, JSON.")],
    device: DeviceOpt = "host_litert",
    networks: Annotated[int, typer.Option("--networks", min=3, help="Whole networks that the overhead rests on.")] = 12,
    work: Folder = WORK,
    allow_commands: AllowCommands = False,
    quiet: Quiet = False,
) -> None:
    """Measure the blocks of random networks of a space and the networks themselves; the table carries its error.

    Interrupted, it goes on where it stopped: files stay in the folder, latencies in the results database.

    Examples:

        mobilezoo latency table digits --out digits.host.json
        mobilezoo latency table mnasnet --device android --networks 30 --out mnasnet.pixel.json
    """
    from mobilezoo_latency import load_device
    from mobilezoo_latency.estimators.table import measure_table

    writable_place(out, "--out")
    choices = load_space(space)
    chosen = load_device(device)
    with shown(quiet) as hooks:
        sampled = sample_networks(choices, networks, work / Path(space).stem, hooks.on_status)
        blocks = export_blocks(choices, [s.point for s in sampled], work / Path(space).stem / "blocks", hooks.on_status)
        networks_of = [(block_keys(choices, s.point), s.path) for s in sampled]
        made = measure_table(blocks, chosen, networks=networks_of, on_message=hooks.on_status)
        chosen.close()
    made.save(out)
    print(
        f"{out}: {len(made.blocks_ms)} blocks on {made.device.name} ({made.device.runtime}), "
        f"error {made.error_percent:.1f}% on {made.networks} networks, each left out once"
    )


@command(app, "import-table")
def import_table(
    file: Annotated[Path, typer.Argument(help="CSV, a block per row.")],
    on: Annotated[str, typer.Option("--on", help="The device it was measured on, for example 'Pixel 1'.")],
    out: Annotated[Path, typer.Option("--out", help="The table, JSON.")],
    runtime: Annotated[str, typer.Option("--runtime", help="For example 'TFLite 1.13'.")] = "unknown",
    key: Annotated[str, typer.Option("--key", help="Column of block names.")] = "key",
    ms: Annotated[str, typer.Option("--ms", help="Column of milliseconds.")] = "mean_ms",
) -> None:
    """Take over a published table of block latencies.

    Example:

        mobilezoo latency import-table pixel1_lut.csv --on 'Pixel 1' --runtime TFLite --out pixel1.json
    """
    from mobilezoo.latency_report import DeviceInfo
    from mobilezoo_latency.estimators.table import import_csv

    made = import_csv(file, DeviceInfo(name=on, kind="phone", runtime=runtime), key, ms)
    made.save(out)
    print(f"{out}: {len(made.blocks_ms)} blocks on {on}; its error is unknown until whole networks are measured there")


@command(app)
def fit(
    space: SpaceArg,
    out: Annotated[Path, typer.Option("--out", help="The predictor, JSON.")],
    device: DeviceOpt = "host_litert",
    networks: Annotated[int, typer.Option("--networks", min=8, help="Networks to measure.")] = 200,
    source: Annotated[
        Path | None, typer.Option("--from", help="Another device's predictor: then 20 networks are enough.")
    ] = None,
    work: Folder = WORK,
    allow_commands: AllowCommands = False,
    quiet: Quiet = False,
) -> None:
    """Measure random networks of a space and train a predictor on them; it carries its error and interval.

    Examples:

        mobilezoo latency fit digits --out digits.host.json
        mobilezoo latency fit digits --device cortex_a76 --networks 20 --from digits.host.json --out digits.a76.json
    """
    from mobilezoo_latency import load_device, profile
    from mobilezoo_latency.estimators.kernels import kernels_of
    from mobilezoo_latency.estimators.predictor import Measured, Predictor, train
    from mobilezoo_latency.estimators.speed import at_one_speed

    writable_place(out, "--out")
    known = Predictor.load(source) if source else None
    choices, chosen = load_space(space), load_device(device)
    with shown(quiet) as hooks:
        sampled = sample_networks(choices, networks, work / Path(space).stem, hooks.on_status)
        reports = []
        for number, one in enumerate(sampled, 1):
            hooks.on_status(f"measuring {number} of {len(sampled)}: {one.path.name}")
            reports.append(profile(one.path, chosen, reuse="any"))
        chosen.close()
        hooks.on_status("training")
        times = at_one_speed(reports)
        rows = [Measured(kernels_of(s.path), ms) for s, ms in zip(sampled, times, strict=True)]
        made = train(rows, reports[0].device, known)
    made.save(out)
    noisy = sum(bool(report.noisy) for report in reports)
    print(
        f"{out}: {len(rows)} networks on {made.record.device.name} ({noisy} marked as noisy), "
        f"error {made.record.error_percent:.1f}% on networks left out of the fit"
    )


@command(app)
def predict(
    model: Annotated[str, typer.Argument(help="Model YAML, zoo name, timm:NAME, checkpoint or .tflite file.")],
    by: Annotated[Path, typer.Option("--with", help="A table or a predictor.")],
    space: Annotated[str | None, typer.Option("--space", help="The search space of a table's blocks.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="Refuse a table made for another device.")] = None,
    allow_commands: AllowCommands = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Latency without measuring, with its interval and error beside it.

    Examples:

        mobilezoo latency predict runs/search-digits/best.yaml --with digits.predictor.json
        mobilezoo latency predict runs/search-digits/best.yaml --with digits.table.json --space digits
    """
    with shown(quiet) as hooks:
        found = estimate(model, by, space, device, hooks)
    if as_json:
        print_json(found.model_dump())
        return
    print(
        f"{model}: {found.latency_ms:.3f} ms, {found.low_ms:.3f}–{found.high_ms:.3f} "
        f"(estimated, not measured; error {found.error_percent:.1f}%; {found.basis})"
    )
