"""`mobilezoo train`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mobilezoo.cli.model_options import PretrainedArg, chosen_weights, resolution_override
from mobilezoo.cli.options import ConfigFlags, config_completion, print_json, short_forms
from mobilezoo.workflows.hooks import Hooks


def train(
    config: Annotated[
        str,
        typer.Argument(
            autocompletion=config_completion("train"),
            help="A recipe (bare name in configs/train/, or a YAML), or a run folder.",
        ),
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted changes: train.epochs=5 data.workers=4")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last whole checkpoint.")] = False,
    resolution: Annotated[
        str | None, typer.Option("--resolution", help="Short for train.resolution: 224, or 192x256 (height x width).")
    ] = None,
    pretrained: PretrainedArg = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default runs/NAME.")] = None,
    *,
    flags: ConfigFlags,
) -> None:
    """Train a backbone; checkpoints, metrics and the best weights land in the run folder.

    Examples:

        mobilezoo train digits
        mobilezoo train digits --keys
        mobilezoo train digits model=shvit_s1 train.epochs=5 name=shvit
        mobilezoo train runs/shvit --resume
        mobilezoo train digits --resolution 48x64 model_args.in_chans=1
        torchrun --nproc-per-node 8 -m mobilezoo train shvit --resume
        mobilezoo train digits data.source=folder:~/my_photos model_args.drop_path_rate=0.1
    """
    changes = (*(overrides or ()), *resolution_override(resolution))
    if weights := chosen_weights(pretrained):
        changes = (*changes, *short_forms({"pretrained": weights}))
    if flags.keys:
        from mobilezoo.config import load_record
        from mobilezoo.train.config import TrainConfig
        from mobilezoo.workflows.train import recipe_file

        recipe = load_record(TrainConfig, recipe_file(config), changes)
        flags.keys_printed(f"recipe {config}", recipe)
        return
    from mobilezoo.workflows import train as workflow

    record = workflow.train(config, changes, out=out, resume=resume, hooks=Hooks(show_progress=not flags.quiet))
    if os.environ.get("RANK", "0") == "0":  # torchrun starts this verb several times
        print_json(record.model_dump()) if flags.as_json else print(f"best top-1 {record.top1:.2f}%  {record.path}")
