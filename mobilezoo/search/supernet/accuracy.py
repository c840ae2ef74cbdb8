"""Accuracy of candidates by a supernet: trained on first use, then seconds per network.

In the search's folder: `supernet/supernet.yaml`, its training run `supernet/train/`, and beside each YAML of the front
a checkpoint with the network's inherited weights, ready for `mobilezoo train ... checkpoint=`.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from mobilezoo.artifacts import Checkpoint, load_record_of, write_with_record
from mobilezoo.config import find_config, load_record, write_yaml
from mobilezoo.errors import ConfigError
from mobilezoo.files import sha256_of
from mobilezoo.models import create_model
from mobilezoo.models.base import FREE
from mobilezoo.resolution import Size, as_size, written
from mobilezoo.search.space import Point
from mobilezoo.search.storage import writing_in
from mobilezoo.search.supernet.calibrate import recalibrate
from mobilezoo.search.supernet.images import Images
from mobilezoo.search.supernet.model import Supernet, supernet_config
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.evaluate import evaluate
from mobilezoo.train.trainer import train

if TYPE_CHECKING:
    from mobilezoo.search.config import SearchConfig
    from mobilezoo.search.records import Candidate, SearchResult

OnMessage = Callable[[str], None]


class SupernetAccuracy:
    """`Evaluate` of a search: the top-1 of a candidate with weights inherited from the supernet."""

    def __init__(self, config: "SearchConfig", folder: Path, on_message: OnMessage = lambda text: None) -> None:
        self.config, self.on_message = config, on_message
        self.folder = folder / "supernet"
        self.settings = config.supernet
        self.model = supernet_config(
            config.space,
            "supernet",
            random=self.settings.random,
            calibration_batches=self.settings.calibration_batches,
        )

    def check(self) -> None:
        """Checks recipe, space and given weights before the first trial.

        Raises:
            ConfigError: the recipe and the space contradict each other.
            CheckpointError: the given weights are of another space.
        """
        several, pixels = len(self.config.space.resolution) > 1, self.recipe.train.resolution
        if several and pixels is not None and pixels != self.model.resolution:
            raise ConfigError(
                f"train.resolution = {written(pixels)}: the space searches {list(self.config.space.resolution)}: "
                "set train.resolution=null"
            )
        if self.settings.checkpoint is not None:
            self.supernet  # noqa: B018  loads it

    def __call__(self, candidate: "Candidate") -> float:
        return self.top1(candidate.point)

    def top1(self, point: Point) -> float:
        """Computes the top-1 in percent on the held-out split, with recalibrated BatchNorm statistics."""
        return evaluate(self.inherit(point), self.images.held_out(self.pixels(point))).top1

    def inherit(self, point: Point, name: str = "subnet") -> nn.Module:
        """Extracts a network with recalibrated BatchNorm statistics, in eval mode.

        Args:
            point: a point of the space.
            name: name of the network.
        """
        network = self.supernet.extract(point, name)
        return recalibrate(network, self.images.calibration(self.pixels(point)))

    def pixels(self, point: Point) -> Size:
        """Returns the (height, width) at which a network is evaluated: the recipe's where it sets one."""
        several = len(self.config.space.resolution) > 1
        fixed = None if several else self.recipe.train.resolution
        return fixed or as_size(point.resolution)

    @cached_property
    def recipe(self) -> TrainConfig:
        """Training config of the supernet; its first use writes `supernet.yaml`."""
        path = self.folder / "supernet.yaml"
        data = self.model.model_dump(mode="json", exclude={"name", *FREE})
        write_yaml(path, data, [f"the supernet of {self.config.name or 'a search'}"])
        overrides = (*self.config.recipe_overrides, f"model={path}")
        return load_record(TrainConfig, find_config("train", self.config.recipe), overrides)

    @cached_property
    def images(self) -> Images:
        """Calibration and held-out images."""
        return Images(self.recipe, self.settings, self.model.preprocessing(self.recipe.in_chans))

    @cached_property
    def supernet(self) -> Supernet:
        """The trained supernet: the config's, or trained on first use; a stopped training is resumed."""
        if self.settings.checkpoint is not None:
            path = Path(self.settings.checkpoint).expanduser()
            record = load_record_of(Checkpoint, path)
        else:
            run = self.folder / "train"
            with writing_in(run):  # a second worker waits, and then finds it trained
                self.on_message(f"supernet: trained in {run}, unless it is already")
                record = train(self.recipe, run, resume=True, show_progress=False, on_epoch=self._report_epoch)
            path = run / record.path
        network = create_model(self.model, path, num_classes=record.num_classes, in_chans=record.in_chans)
        assert isinstance(network, Supernet)
        return network.to(self.images.device).eval()

    def write(self, result: "SearchResult", folder: Path) -> None:
        """Writes a checkpoint of inherited weights beside each YAML of the front and of the best network.

        Args:
            result: the search's result.
            folder: run folder.
        """
        files = dict(zip(result.front_yaml, result.front, strict=True))
        if result.best_yaml is not None and result.best is not None:
            files[result.best_yaml] = result.best
        with writing_in(self.folder):
            for old in (folder / "front").glob("[!.]*.safetensors*"):
                if f"front/{old.name.partition('.')[0]}.yaml" not in files:
                    old.unlink()
            for name, number in files.items():
                point = result.trial(number).point
                assert point is not None, "a finished trial has a network"
                self._save(point, folder / name)

    def _save(self, point: Point, yaml: Path) -> None:
        from safetensors.torch import save_file

        network = self.inherit(point, yaml.stem)
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
        path = yaml.with_suffix(".safetensors")

        def describe(written: Path) -> Checkpoint:
            return Checkpoint(
                path=path.name,
                sha256=sha256_of(written),
                model=str(yaml),
                num_classes=self.supernet.num_classes,
                in_chans=self.supernet.in_chans,
                resolution=self.pixels(point),
                preprocessing=self.model.preprocessing(self.supernet.in_chans),
                labels=self.images.labels,
                data=self.recipe.data.located().model_dump(mode="json"),
                top1=evaluate(network, self.images.whole(self.pixels(point))).top1,
            )

        write_with_record(
            path, lambda temporary: save_file(tensors, temporary, metadata={"model": str(yaml)}), describe
        )

    def _report_epoch(self, epoch: int, top1: float) -> None:
        self.on_message(f"supernet: epoch {epoch} of {self.recipe.train.epochs}, its largest network {top1:.2f}%")
