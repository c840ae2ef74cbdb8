"""`mobilezoo recommend`: which network to take for a phone."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mobilezoo.cli.options import AllowCommands, Json, Quiet, config_completion, print_json
from mobilezoo.cli.progress import shown
from mobilezoo.cli.tables import print_table
from mobilezoo.errors import printable

if TYPE_CHECKING:
    from mobilezoo.workflows.recommendation import Recommendation

NAMED = 6
"""Networks that a line of those left out names."""


@dataclass(frozen=True)
class Limits:
    """Device and limits; the fields of `Wanted`."""

    device: Annotated[
        str,
        typer.Option(
            "--device",
            autocompletion=config_completion("devices"),
            help="A core of the latency table, or a device of yours, which is measured: android, host, a YAML.",
        ),
    ] = "cortex_a76"
    max_ms: Annotated[float | None, typer.Option("--max-ms", min=0.0, help="Slowest inference, batch 1.")] = None
    max_mb: Annotated[float | None, typer.Option("--max-mb", min=0.0, help="Largest file, in 10^6 bytes.")] = None
    precision: Annotated[str, typer.Option("--precision", help="fp32, fp16, int8 or any.")] = "fp32"
    license: Annotated[
        str, typer.Option("--license", "--licence", help="Of the weights: any, permissive, or words such as MIT.")
    ] = "any"
    task: Annotated[
        str, typer.Option("--task", help="classify, or dense: networks that give feature maps of several sizes.")
    ] = "classify"
    peers: Annotated[bool, typer.Option("--peers/--no-peers", help="Consider timm's networks too.")] = True


def recommend(
    limits: Limits,
    allow_commands: AllowCommands = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The most accurate networks for their latency, within your limits, with the command that takes each on.

    On a core of the table nothing is run: latencies are estimates of an emulated core, with their error. On a device of
    yours the front's candidates are exported and measured there, fastest first.

    Examples:

        mobilezoo recommend --device cortex_a76 --max-ms 10
        mobilezoo recommend --max-ms 10 --max-mb 8 --precision any --license permissive
        mobilezoo recommend --task dense --max-ms 20 --json
        mobilezoo recommend --device android --max-ms 10
    """
    from mobilezoo.workflows.recommend import recommend as workflow
    from mobilezoo.workflows.recommendation import Wanted

    wanted = Wanted.parse(asdict(limits), "recommend")
    with shown(quiet) as hooks:
        found = workflow(wanted, hooks=hooks)
    print_json(found.model_dump()) if as_json else print_recommendation(found)


def print_recommendation(found: "Recommendation") -> None:
    """The front, the command of each network, and a line per reason why others are not on it."""
    how = "emulated: estimated, not timed" if found.kind == "emulated" else f"measured ({found.kind})"
    wanted = found.wanted
    columns = ("model", "precision", "ms", "low-high", "top-1 %", "params M", "MACs M", "file MB", "pixels", "license")
    cells = [
        (
            pick.model,
            pick.precision,
            f"{pick.latency_ms:.2f}" + (" (may be over)" if wanted.max_ms and pick.high_ms > wanted.max_ms else ""),
            f"{pick.low_ms:.2f}-{pick.high_ms:.2f}",
            f"{pick.top1:.1f}" + (" (taught)" if pick.distilled else ""),
            f"{pick.params / 1e6:.2f}",
            f"{pick.macs / 1e6:.0f}",
            "" if pick.size_bytes is None else f"{pick.size_bytes / 1e6:.2f}",
            pick.resolution,
            pick.license,
        )
        for pick in found.front
    ]
    print_table(f"{wanted.device}, {how}; top-1 as published, of float weights", columns, cells)
    print("\nto take one on:")
    for pick in found.front:
        print(f"  {printable(pick.command)}")
    for error in dict.fromkeys(pick.latency_error for pick in found.front if pick.latency_error):
        print(f"error of the latencies: {printable(error)}")
    print(f"they rest on: {printable(found.basis)}")
    print("left out:")
    for group in found.left_out:
        more = f" and {len(group.models) - NAMED} more" if len(group.models) > NAMED else ""
        print(f"  {len(group.models):3} {printable(group.reason)}: {', '.join(group.models[:NAMED])}{more}")
