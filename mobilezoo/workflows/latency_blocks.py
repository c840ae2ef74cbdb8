"""Networks and blocks of a search space as files to measure: what `mobilezoo latency table` and `fit` export.

All files carry seeded random weights with no folded branch: their latency means something, their answers do not.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mobilezoo.artifacts import Preprocessing, has_record
from mobilezoo.errors import ExportError
from mobilezoo.files import write_text

if TYPE_CHECKING:
    from torch import nn

    from mobilezoo.search.space import Point, Space

CLASSES = 10
REFUSED = ".refused"
"""Ending of the file that is written in place of an export that failed; it holds the reason."""
OnMessage = Callable[[str], None]


class Sampled(NamedTuple):
    """A random network of a space and its LiteRT file."""

    point: "Point"
    path: Path


def sample_networks(
    space: "Space", count: int, folder: Path, on_message: OnMessage = lambda text: None
) -> list[Sampled]:
    """Random networks of a space as LiteRT files, always the same ones; files that exist are kept.

    Args:
        space: search space.
        count: networks to return; those that cannot be exported are skipped.
        folder: where the files go.
        on_message: receives a line per export.

    Raises:
        ExportError: too few of the networks can be exported.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    found: list[Sampled] = []
    number = -1
    while len(found) < count:
        number += 1
        if number > 10 * count + 100:
            raise ExportError(
                f"only {len(found)} of {number} random networks can be exported: see *{REFUSED} in {folder}"
            )
        point, name = space.sample(rng), f"net{number:04d}"
        path = folder / f"{name}.fp32.tflite"
        if not _there(path):
            on_message(f"exporting network {len(found) + 1} of {count}")
            _export(_network(space, point, number), name, 3, point.resolution, folder)
        if has_record(path):
            found.append(Sampled(point, path))
    return found


def block_keys(space: "Space", point: "Point") -> list[str]:
    """The blocks of a network, stem and head included, named by all that decides their latency.

    Args:
        space: gives stem, head and activation.
        point: one network of the space.
    """
    from mobilezoo.search.stages import MIXERS

    side, width = _halved(point.resolution, 2), space.stem
    activation = space.network.get("activation", "relu")
    keys = [f"{activation}-stem-3>{width}-{point.resolution}"]
    for stage in point.stages:
        if stage.block in MIXERS:
            keys.append(f"{activation}-entry-s{stage.stride}-{width}>{stage.width}-{side}")
            side, width = _halved(side, stage.stride), stage.width
            keys += [f"{stage.block}-{width}>{width}-{side}"] * stage.depth
            continue
        what = f"{activation}-{stage.block}-k{stage.kernel}-e{stage.expansion:g}-{stage.attention}"
        for index in range(stage.depth):
            stride = stage.stride if index == 0 else 1
            skip = "-skip" if stage.skip and stride == 1 and width == stage.width else ""
            keys.append(f"{what}-s{stride}{skip}-{width}>{stage.width}-{side}")
            side, width = _halved(side, stride), stage.width
    return [*keys, f"{activation}-head-{width}>{space.head}-{side}"]


def export_blocks(
    space: "Space", points: "list[Point]", folder: Path, on_message: OnMessage = lambda text: None
) -> dict[str, Path]:
    """Key to LiteRT file of every block that occurs in some networks; files that exist are kept.

    Args:
        space: search space.
        points: networks of the space.
        folder: where the files go.
        on_message: receives a line per export.

    Raises:
        ExportError: a block cannot be exported.
    """
    wanted: dict[str, tuple[int, Point, int]] = {}
    for number, point in enumerate(points):
        for index, key in enumerate(block_keys(space, point)):
            wanted.setdefault(key, (number, point, index))
    files: dict[str, Path] = {}
    for done, (key, (number, point, index)) in enumerate(wanted.items(), 1):
        name = key.replace(">", "to")
        files[key] = folder / f"{name}.fp32.tflite"
        if not _there(files[key]):
            on_message(f"exporting block {done} of {len(wanted)}: {key}")
            channels, side = _input_of(key)
            _export(_pieces(_network(space, point, number))[index], name, channels, side, folder)
        if not has_record(files[key]):
            reason = files[key].with_name(name + REFUSED).read_text(encoding="utf-8").strip()
            raise ExportError(f"block {key} cannot be exported: {reason}")
    return files


def _halved(side: int, stride: int) -> int:
    return -(-side // stride)


def _input_of(key: str) -> tuple[int, int]:
    """(channels, side) of a block's input."""
    *_, widths, side = key.split("-")
    return int(widths.partition(">")[0]), int(side)


def _there(path: Path) -> bool:
    name = path.name.removesuffix(".fp32.tflite")
    return has_record(path) or path.with_name(name + REFUSED).is_file()


def _network(space: "Space", point: "Point", seed: int) -> "nn.Module":
    import torch

    from mobilezoo.models import create_model
    from mobilezoo.models.randomize import randomize_norms
    from mobilezoo.search.networks import model_config

    torch.manual_seed(seed)
    network = create_model(model_config(space, point, f"net{seed:04d}"), num_classes=CLASSES).eval()
    return randomize_norms(network, torch.Generator().manual_seed(seed))


def _pieces(network: "nn.Module") -> "list[nn.Module]":
    """Stem, blocks and head in order; each but the head ends in a mean, so that it answers like a classifier."""
    from torch import nn

    inner = dict(network.named_children())

    def block(*modules: nn.Module) -> nn.Module:
        return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(1)).eval()

    blocks = [block(module) for stage in inner["blocks"].children() for module in stage.children()]
    head = nn.Sequential(*(inner[name] for name in ("conv_head", "bn2", "global_pool", "classifier"))).eval()
    return [block(inner["conv_stem"], inner["bn1"]), *blocks, head]


def _export(network: "nn.Module", name: str, channels: int, side: int, folder: Path) -> None:
    """A LiteRT file with its record, or a note why there is none."""
    import numpy as np

    from mobilezoo_export import ExportConfig, ModelSpec, ProofImages, export_model

    plain = Preprocessing(mean=(0.5,) * channels, std=(0.5,) * channels)
    spec = ModelSpec(model=name, resolution=(side, side), in_chans=channels, preprocessing=plain)
    image = np.random.default_rng(0).standard_normal((1, channels, side, side), dtype=np.float32)
    config, images = ExportConfig(targets=("litert",), precisions=("fp32",)), ProofImages(parity=image)
    (result,) = export_model(network, spec, config, folder, images=images, isolate=False)
    if result.path is None:
        write_text(folder / (name + REFUSED), result.reason + "\n")
