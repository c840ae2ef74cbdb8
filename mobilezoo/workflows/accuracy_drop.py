"""What a reduced precision costs a trained network: top-1 of its files beside PyTorch's, on labelled images held out.

Differences of logits show broken files; whether a sound one still classifies is shown by images with labels alone.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.artifacts import Top1Drop, save_record
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.workflows.export_images import ExportImages
from mobilezoo.workflows.hooks import Hooks
from mobilezoo.workflows.load_model import LoadedModel

if TYPE_CHECKING:
    import numpy as np

    from mobilezoo.data.config import DataConfig
    from mobilezoo_export import ExportConfig, ExportResult

EXACT = ("fp32",)
"""Precisions whose parity leaves no room for another answer."""
WIDE = "w8a16"
"""int8 weights and 16-bit activations."""


def with_top1_drops(
    loaded: LoadedModel, config: "ExportConfig", images: ExportImages, results: "list[ExportResult]", hooks: Hooks
) -> "list[ExportResult]":
    """The results with the top-1 that each file of reduced precision costs, in its record too, and a warning of each
    file that costs too much.

    Nothing is measured of random weights, without labelled images beside those that files are compared and calibrated
    on, and of files that cannot be run on this machine.

    Args:
        loaded: the network.
        config: most images to score, and the places of the data's classes.
        images: what files were compared and calibrated on, and the labelled data.
        results: of an export.
        hooks: receives the file under way, or why nothing can be measured.
    """
    wanted = [one for one in results if _is_scored(one)]
    if loaded.random_weights or images.labelled is None or not wanted or not config.scored_images:
        return results
    try:
        held = Held(loaded, config, images.labelled)
    except ConfigError as error:
        hooks.on_message(f"{loaded.name}: what its files cost in top-1 is not measured: {error}")
        return results
    if not held.positions:
        return results
    return [_scored(one, held, hooks) if _is_scored(one) else one for one in results]


def _is_scored(result: "ExportResult") -> bool:
    from mobilezoo_export import load_exporter

    if result.artifact is None or result.artifact.parity is None or result.precision in EXACT:
        return False
    return load_exporter(result.target).proof_images is None  # where an image takes a second, hundreds are too many


def _scored(result: "ExportResult", held: "Held", hooks: Hooks) -> "ExportResult":
    artifact = result.artifact
    assert artifact is not None
    assert result.path is not None
    if not held.gave(artifact.top1_drop):
        hooks.on_status(f"top-1 of {artifact.path}")
        path = Path(result.path)
        try:
            drop = Top1Drop.of(held.by_pytorch(), held.by_file(path), held.name)
        except MobilezooError as error:
            hooks.on_message(f"{artifact.path}: its top-1 is not measured: {error}")
            return result
        artifact = artifact.model_copy(update={"top1_drop": drop})
        save_record(path, artifact)
    warning = warning_of(artifact.top1_drop, result.target, result.precision)
    return result.model_copy(update={"artifact": artifact, "warnings": (*result.warnings, *warning)})


def warning_of(drop: Top1Drop | None, target: str, precision: str) -> tuple[str, ...]:
    """A line about a file that costs too much; none where the images do not show that.

    Args:
        drop: what was measured.
        target: export target of the file.
        precision: of the file.
    """
    if drop is None or not drop.too_large:
        return ()
    wide = wide_remedy(target) if precision == "int8" else ""
    mixed = "--max-drop 1 keeps parts of it in float" if precision in ("int8", "w8a8") else "take another precision"
    remedy = ", ".join(filter(None, (mixed, wide)))
    return (
        f"{target} {precision} costs {drop.points:.1f} points of top-1: {drop.top1_pytorch:.1f}% in PyTorch, "
        f"{drop.top1:.1f}% in the file, on {drop.inputs} ({drop.lost} lost, {drop.won} won, "
        f"p = {drop.p_value:.1g}): {remedy}",
    )


def wide_remedy(target: str) -> str:
    """What 16-bit activations offer instead of int8; empty for a target without them.

    Args:
        target: name or place of an export target.
    """
    from mobilezoo_export import load_exporter

    if WIDE not in load_exporter(target).precisions:
        return ""
    return f"--precision {WIDE} has 16-bit activations at int8's size (for NPUs, slow on CPUs)"


class Held:
    """Labelled images that no file was compared or calibrated on, and which of them are classified rightly."""

    def __init__(self, loaded: LoadedModel, config: "ExportConfig", source: "DataConfig") -> None:
        """Choose at most `config.scored_images` positions of the validation split; none of a stream.

        Raises:
            MobilezooError: the data cannot be read, or its classes and the network's do not agree.
        """
        from torch.utils.data import IterableDataset

        from mobilezoo.data import open_data
        from mobilezoo.data.loaders import spread_positions

        self._loaded, self._source = loaded, source.model_copy(update={"workers": 0})
        self._split = open_data(self._source, train=False)
        self._classes = config.classes
        self.positions: list[int] = []
        self._pytorch: np.ndarray | None = None
        if not isinstance(self._split.dataset, IterableDataset):
            total = len(self._split.dataset)
            used = set(spread_positions(total, config.parity_images))
            left = [position for position in range(total) if position not in used]
            self.positions = [left[at] for at in spread_positions(len(left), config.scored_images)]
        if self.positions:
            self._places = self._placed()
        self.name = f"{len(self.positions)} held images of {source.source} (split {source.val_split})"

    def gave(self, drop: Top1Drop | None) -> bool:
        """Whether a kept file was scored on these images, and by the data's own classes: no record holds others."""
        return drop is not None and drop.inputs == self.name and self._classes is None

    def by_pytorch(self) -> "np.ndarray":
        """(images,) whether PyTorch's top-1 is right; computed once."""
        if self._pytorch is None:
            import torch

            network = self._loaded.network.eval()

            def run(x_bchw: "np.ndarray") -> "np.ndarray":
                with torch.inference_mode():
                    answer: np.ndarray = network(torch.from_numpy(x_bchw)).float().numpy()
                return answer

            self._pytorch = self._right(run)
        return self._pytorch

    def by_file(self, path: Path) -> "np.ndarray":
        """(images,) whether a file's top-1 is right. Raises MobilezooError.

        Args:
            path: an exported file beside its record.
        """
        from mobilezoo_export import FileApart

        with FileApart(path) as opened:
            return self._right(opened.run)

    def _right(self, run: Any) -> "np.ndarray":
        import numpy as np
        import torch

        from mobilezoo.data import eval_loader
        from mobilezoo.data.classes import placed

        own = self._loaded
        loader = eval_loader(
            self._source, self._split, own.resolution, own.preprocessing, torch.device("cpu"), images=self.positions
        )
        found: list[np.ndarray] = []
        for x_bchw, y_b in placed(loader, self._places):
            scores = np.reshape(run(x_bchw.numpy()), (len(y_b), -1))
            found.append(scores.argmax(axis=1) == y_b.numpy())
        return np.concatenate(found)

    def _placed(self) -> Any:
        import torch

        from mobilezoo.data.classes import place_classes

        own = self._loaded
        with torch.inference_mode():
            outputs = int(own.network.eval()(torch.zeros(1, own.in_chans, *own.resolution)).shape[-1])
        return place_classes(self._split.labels, outputs, own.labels, self._classes, own.name)
