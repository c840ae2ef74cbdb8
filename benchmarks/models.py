"""Every variant against its official network: parameters, MACs, logits, the fused form, the time of a training step.

    python benchmarks/models.py --out benchmarks/results/models.md

Counts of the official code and its outputs on reproducible weights are those of `tests/data`. Variants without a
reference output show none. A step is one forward and backward pass of 4
images in fp32 on one CPU thread; where timm has the network, ours and timm's run in turns and the ratio of their times
is given (median of the repeats, lowest and highest), below 1 when ours is faster.
"""

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from rich.progress import track
from torch import Tensor, nn

import mobilezoo
from mobilezoo.config import config_names
from mobilezoo.files import write_text
from mobilezoo.models import create_model, load_model_config
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.macs import count
from mobilezoo.models.randomize import randomize_norms
from mobilezoo.testing.references import load_reference

IN_TIMM = {
    "mnasnet_a1": "semnasnet_100",
    "mnasnet_a1_075": "semnasnet_075",
    "mnasnet_a1_140": "semnasnet_140",
    "mnasnet_b1": "mnasnet_100",
    "mnasnet_small": "mnasnet_small",
    **{name: name for name in config_names("models") if name.startswith(("ghost", "shvit"))},
}
"""Our name → timm's name of the same network."""
BATCH, REPEATS = 4, 5
DATA = Path(__file__).parents[1] / "tests" / "data"


def official_names(config: ModelConfig) -> tuple[str, ...]:
    """The names under which facts and references may know a variant."""
    aliases = config.aliases
    return (config.name, *aliases, *(f"tv_{a}" for a in aliases), *(f"{a}_unofficial" for a in aliases))


def parity(config: ModelConfig) -> tuple[float, float] | None:
    """(largest difference, the same over the deviation of the logits) from the official output."""
    name = next((n for n in official_names(config) if (DATA / "references" / f"{n}.json").is_file()), None)
    if name is None:
        return None
    official = load_reference(DATA / "references", name)
    with tempfile.TemporaryDirectory() as place:
        checkpoint = Path(place) / "official.pth"
        torch.save(official.state, checkpoint)
        model = create_model(config, checkpoint=checkpoint).eval()
    with torch.no_grad():
        output = model(official.inputs)
    return float((output - official.output).abs().max()), official.difference(output)


def fused_difference(model: nn.Module, x: Tensor) -> float:
    """Largest difference of the fused network's logits over their deviation."""
    with torch.no_grad():
        expected = model(x)
        return float((mobilezoo.fuse(model)(x) - expected).abs().max() / expected.std())


def step_ms(model: nn.Module, x: Tensor) -> float:
    """One forward and backward pass in training mode."""
    start = time.perf_counter()
    out = model.train()(x)
    out = out if isinstance(out, Tensor) else sum(out)
    out.square().mean().backward()
    return (time.perf_counter() - start) * 1e3


def step_times(model: nn.Module, peer: nn.Module | None, x: Tensor) -> tuple[float, list[float]]:
    """(our median in ms, our time over the peer's in every repeat)."""
    ours, ratios = [], []
    for repeat in range(REPEATS + 1):
        own = step_ms(model, x)
        ratio = own / step_ms(peer, x) if peer is not None else None
        if repeat:  # the first is warm-up
            ours.append(own)
            ratios += [ratio] if ratio else []
    return median(ours), ratios


def row(name: str, facts: dict[str, Any]) -> str:
    config = load_model_config(name)
    fact = next((facts[n] for n in official_names(config) if n in facts), {})
    torch.manual_seed(0)
    model = randomize_norms(create_model(config)).eval()
    costs = count(model, config.resolution)
    images = torch.randn(BATCH, 3, *config.resolution)
    same = parity(config)
    fused = fused_difference(model, images[:2])
    peer = timm.create_model(IN_TIMM[name]) if name in IN_TIMM else None
    ms, ratios = step_times(model, peer, images)
    off = f"{costs['params'] - fact['params']:+d}" if fact else ""
    macs_off = f"{100 * (costs['macs'] / fact['macs'] - 1):+.2f}%" if fact.get("macs") else ""
    agreement = f"{same[0]:.1e} | {same[1]:.1e}" if same else " | "
    ratio = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else ""
    cells = [name, f"{costs['params']:,}", off, f"{costs['macs'] / 1e6:.1f}", macs_off, agreement, f"{fused:.1e}"]
    return "| " + " | ".join([*cells, f"{ms:.0f}", ratio]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/models.md"))
    parser.add_argument("--only", default="", help="variants whose name begins so")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    facts = json.loads((DATA / "core-variants.json").read_text(encoding="utf-8"))["variants"]
    names = [name for name in config_names("models") if name.startswith(args.only)]
    rows = [row(name, facts) for name in track(names, "comparing")]
    head = (
        "# Models against their official networks\n\nWritten by `benchmarks/models.py`, whose docstring says what the "
        f"columns mean. Steps: {BATCH} images, one CPU thread, torch {torch.__version__}, timm {timm.__version__}.\n\n"
        "| model | parameters | − official | MACs (M) | − official | largest difference | over deviation | fused, over "
        "deviation | step ms | step, ours over timm's |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|---|\n"
    )
    write_text(args.out, head + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
