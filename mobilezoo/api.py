"""The Python API: what each command does, as a function that returns records.

    import mobilezoo

    best = mobilezoo.train("digits", "train.epochs=5")
    files = mobilezoo.export(best.path, to=["litert"], precision=["fp32", "int8"])
    scores = mobilezoo.evaluate(files[0].path)
    report = mobilezoo.profile(files[0].path, device="cortex_a76")

A config is a path, a bare name, or a record; dotted overrides come after it, as on the command line. Nothing is
printed: pass `hooks` to receive progress. A user's mistake raises a subclass of `mobilezoo.MobilezooError` with the
text of the command line.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypedDict, TypeVar, Unpack, cast

from mobilezoo.artifacts import Checkpoint
from mobilezoo.config import Record, apply_overrides, listed
from mobilezoo.latency_report import LatencyReport
from mobilezoo.notebook import Records
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import ModelOptions, read_labels

if TYPE_CHECKING:
    from mobilezoo.doctor_report import DoctorReport
    from mobilezoo.search.config import SearchConfig
    from mobilezoo.search.records import SearchResult
    from mobilezoo.train.config import TrainConfig
    from mobilezoo.workflows.evaluate import Scores
    from mobilezoo.workflows.kit import Kit
    from mobilezoo.workflows.load_model import LoadedModel
    from mobilezoo.workflows.predict import Prediction
    from mobilezoo.workflows.recommendation import Recommendation
    from mobilezoo_export import ExportConfig, ExportResult
    from mobilezoo_latency import ProfileConfig

R = TypeVar("R", bound=Record)
Named = str | Path
P = ParamSpec("P")
T = TypeVar("T")


def _heard(function: Callable[P, T]) -> Callable[P, T]:
    """The function, with `hooks` hearing of published weights that are fetched meanwhile."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        hooks = kwargs.get("hooks", SILENT)
        assert isinstance(hooks, Hooks)
        with hooks.listening():
            return function(*args, **kwargs)

    return called


class ModelKeywords(TypedDict, total=False):
    """Keywords that describe a network, as the command line's options of the same names do."""

    checkpoint: Named
    pretrained: bool | str
    """True, or the tag of a published file."""
    key: str
    """Dotted path of the weights inside the checkpoint."""
    labels: Named | Sequence[str]
    """Class names, or a file of them."""
    resolution: int | str | Sequence[int]
    """Pixels: 224, "224x320", (height, width)."""
    num_classes: int
    in_chans: int
    mean: float | Sequence[float]
    std: float | Sequence[float]
    preprocess: str
    """Preprocessing of an exported file that does not declare it."""


class EvaluateKeywords(ModelKeywords, total=False):
    """Further keywords of `evaluate`."""

    batch_size: int
    workers: int
    """Processes that load images."""


class ExportKeywords(ModelKeywords, total=False):
    """Keywords of `export`: those of a network, and replacements of the config's lists."""

    to: str | Sequence[str]
    """Targets: "onnx", "litert", "coreml", "executorch", "qnn", "ncnn", "coreai"."""
    precision: str | Sequence[str]
    """Precisions: "fp32", "fp16", "int8"."""


class LimitKeywords(TypedDict, total=False):
    """Keywords of `recommend`."""

    max_ms: float
    """Slowest inference in milliseconds, batch 1."""
    max_mb: float
    """Largest file, in 10^6 bytes."""
    precision: str
    """fp32 (default), fp16, int8 or any."""
    license: str
    """Of the weights: any (default), permissive, or words of its name."""
    task: Literal["classify", "dense"]
    """dense: networks that give feature maps of several sizes."""
    peers: bool
    """Whether timm's networks are considered."""


@_heard
def train(
    config: "Named | TrainConfig",
    *overrides: str,
    out: Named | None = None,
    resume: bool = False,
    hooks: Hooks = SILENT,
) -> Checkpoint:
    """Train a backbone.

    Args:
        config: a recipe (bare name in configs/train/, or the path of a YAML), a run folder to resume, or a record.
        overrides: dotted changes: "train.epochs=5".
        out: run folder; `runs/NAME` where it is left out.
        resume: go on after the last whole checkpoint.
        hooks: callbacks for progress.

    Returns:
        The record of the best weights; its `path` is that of the file.

    Raises:
        MobilezooError: for whatever a user can mend.
    """
    from mobilezoo.train.config import TrainConfig
    from mobilezoo.workflows import train as workflow

    named = _changed(config, overrides) if isinstance(config, TrainConfig) else str(config)
    return workflow.train(named, overrides, out=_path(out), resume=resume, hooks=hooks)


@_heard
def evaluate(
    model: Named,
    data: str | None = None,
    *,
    classes: str | None = None,
    report: Named | None = None,
    hooks: Hooks = SILENT,
    **options: Unpack[EvaluateKeywords],
) -> "Scores":
    """Top-1, top-5 and loss of a network, a checkpoint, or an exported file run in its own runtime.

    Args:
        model: zoo name, model YAML, checkpoint, exported file, or `timm:NAME`.
        data: "digits", "folder:PATH", ...; the data that the model's record names where it is left out.
        classes: the data's class of each output, see docs/data.md.
        report: HTML page to write: confusions, classes, calibration, the most confident mistakes.
        hooks: callbacks for progress.
        options: batch_size (64) and workers (2), processes that load images; and the command line's options of a
            network: checkpoint, key, pretrained, labels, resolution, num_classes, in_chans, mean, std, preprocess.

    Returns:
        The scores; for an exported file, `pytorch` holds those of the weights it was made of.

    Raises:
        MobilezooError: for whatever a user can mend.
    """
    from mobilezoo.workflows.evaluate import Loading
    from mobilezoo.workflows.evaluate import evaluate as workflow

    of_network: dict[str, Any] = dict(options)
    loading = Loading(**{key: of_network.pop(key) for key in Loading._fields if key in of_network})
    page = None if report is None else Path(report)
    return workflow(
        str(model), data, model_options(of_network), classes=classes, loading=loading, report=page, hooks=hooks
    )


@_heard
def predict(
    model: Named,
    images: Named | Sequence[Named],
    *,
    top: int | None = None,
    hooks: Hooks = SILENT,
    **options: Unpack[ModelKeywords],
) -> "Records[Prediction]":
    """Predict the most likely classes of single images, or of all images in folders.

    Args:
        model: as in `evaluate`.
        images: an image, a folder, or several of them.
        top: classes, boxes or areas per image at most; None: 5 classes, all boxes, all areas.
        hooks: callbacks for progress.
        options: as in `evaluate`.

    Returns:
        A prediction per image, in order; `fault` states why an image could not be read.

    Raises:
        MobilezooError: for whatever a user can mend.
    """
    from mobilezoo.workflows.predict import predict as workflow

    paths = [Path(images)] if isinstance(images, str | Path) else [Path(image) for image in images]
    return Records(workflow(str(model), paths, model_options(options), top=top, hooks=hooks))


@_heard
def export(
    model: Named,
    config: "Named | ExportConfig" = "default",
    *overrides: str,
    out: Named | None = None,
    hooks: Hooks = SILENT,
    **options: Unpack[ExportKeywords],
) -> "Records[ExportResult]":
    """Write files for phones; each is run in its own runtime and compared with PyTorch before it gets its name.

    Args:
        model: zoo name, model YAML, checkpoint, or `timm:NAME`.
        config: a YAML, a bare name in configs/export/, or a record.
        overrides: dotted changes: "softmax=true".
        out: folder; `export/` beside the checkpoint where it is left out.
        hooks: what hears of progress.
        options: `to` (targets) and `precision`, each a name or several, in place of the config's; the others as in
            `evaluate`.

    Returns:
        A result per target and precision; what a target cannot do has its `reason`.

    Raises:
        MobilezooError: for whatever a user can mend.
    """
    from mobilezoo.workflows.export import export as workflow
    from mobilezoo.workflows.export import load_export_config

    of_model: dict[str, Any] = dict(options)
    targets, precisions = of_model.pop("to", None), of_model.pop("precision", None)
    changes = (*overrides, *_listed("targets", targets), *_listed("precisions", precisions))
    named = isinstance(config, str | Path)
    files = load_export_config(str(config), changes) if named else _changed(cast("ExportConfig", config), changes)
    return Records(workflow(str(model), files, model_options(of_model), out=_path(out), hooks=hooks))


@_heard
def kit(
    file: Named,
    kind: str,
    out: Named | None = None,
    *,
    overwrite: bool = False,
    hooks: Hooks = SILENT,
    **options: Unpack[ModelKeywords],
) -> "Kit":
    """Write a folder that runs an exported file in an app's own language, without mobilezoo.

    Args:
        file: an exported file.
        kind: "python", ...: the app's language or platform.
        out: the folder; `NAME-KIND` beside the file where it is left out.
        overwrite: replace a kit that is there.
        hooks: callbacks for progress.
        options: `labels` and `preprocess`, as in `evaluate`.

    Returns:
        The folder, its files, and notes on what the file leaves open.

    Raises:
        MobilezooError: for whatever a user can mend.
    """
    from mobilezoo.workflows.kit import write_kit

    return write_kit(file, kind, _path(out), model_options(options), overwrite=overwrite, hooks=hooks)


@_heard
def profile(
    model: Named | Sequence[Named],
    config: "Named | ProfileConfig" = "default",
    *overrides: str,
    device: str | None = None,
    to: str | Sequence[str] | None = None,
    hooks: Hooks = SILENT,
    **options: Unpack[ModelKeywords],
) -> "LatencyReport | Records[LatencyReport]":
    """Measure latency by a fixed protocol; raw samples are kept, noisy runs are marked.

    Args:
        model: exported file, checkpoint, zoo name or `timm:NAME`, or several of them.
        config: a YAML, a bare name in configs/profile/, or a record.
        overrides: dotted changes: "tier=report", "device.serial=R58M".
        device: device config, in place of the config's.
        to: formats that networks are exported to, in place of the config's.
        hooks: callbacks for progress.
        options: as in `evaluate`, for the networks that are exported first.

    Returns:
        The report of the one file that was measured, or all of them.

    Raises:
        MobilezooError: for whatever a user can mend.
    """
    from mobilezoo.workflows.profile import load_profile_config
    from mobilezoo.workflows.profile import profile as workflow

    changes = (*overrides, *_listed("targets", to), *((f"device={device}",) if device else ()))
    named = isinstance(config, str | Path)
    how = load_profile_config(str(config), changes) if named else _changed(cast("ProfileConfig", config), changes)
    models = [str(model)] if isinstance(model, str | Path) else [str(one) for one in model]
    reports = Records(workflow(models, how, model_options(options), hooks=hooks))
    return reports[0] if len(reports) == 1 and isinstance(model, str | Path) else reports


def recommend(
    device: str = "cortex_a76", *, hooks: Hooks = SILENT, **limits: Unpack[LimitKeywords]
) -> "Recommendation":
    """Recommend networks for a device: the front of published top-1 and latency, and why others are not on it.

    Args:
        device: a core of the latency table (emulated, nothing is run), or another device, which is measured.
        hooks: callbacks for progress, where something is measured.
        limits: max_ms, max_mb, precision, license, task, peers.

    Returns:
        The front, fastest first, each network with the command that takes it on.

    Raises:
        MobilezooError: for whatever a user can mend, limits that nothing meets included.
    """
    from mobilezoo.workflows.recommend import recommend as workflow
    from mobilezoo.workflows.recommendation import Wanted

    return workflow(Wanted.parse({"device": device, **limits}, "recommend"), hooks=hooks)


@_heard
def doctor(
    file: Named,
    *,
    images: Named | None = None,
    units: str | Sequence[str] = ("cpu", "gpu", "npu"),
    static: bool = False,
    fail_on: str | Sequence[str] = "",
    hooks: Hooks = SILENT,
    **options: Unpack[ModelKeywords],
) -> "DoctorReport":
    """What an exported file of any maker holds, which units take it, where its time goes, and what would help.

    Args:
        file: a .tflite, .onnx, .mlpackage, .pte or .aimodel.
        images: folder of images that the units compute.
        units: units of a phone that the file is run on, where they are set up.
        static: read the file and run nothing.
        fail_on: conditions as on the command line; those that hold are in `failed_on`.
        hooks: callbacks for progress.
        options: `resolution` and `preprocess`, where the file leaves them open.

    Returns:
        What was found; `parts` holds what could not be looked at, and why.

    Raises:
        MobilezooError: for whatever a user can mend.
    """
    from mobilezoo.workflows.doctor import doctor as workflow

    names = tuple(listed(units) if isinstance(units, str) else units)
    conditions = fail_on if isinstance(fail_on, str) else ",".join(fail_on)
    how = {"images": _path(images), "units": names, "static": static, "fail_on": conditions, "hooks": hooks}
    return workflow(file, model_options(options), **cast("dict[str, Any]", how))


def search(
    config: "Named | SearchConfig", *overrides: str, out: Named | None = None, hooks: Hooks = SILENT
) -> "SearchResult":
    """Search a space for networks that are accurate and fast; called again, it goes on where it stopped.

    Args:
        config: a YAML, a bare name in configs/search/, or a record.
        overrides: dotted changes of it or of its recipe: "trials=20", "train.epochs=3".
        out: run folder; `runs/search-NAME` where it is left out.
        hooks: callbacks for progress and finished trials.

    Returns:
        All trials, the front, and the best network's YAML.

    Raises:
        MobilezooError: for whatever a user can mend.
    """
    from mobilezoo.search.config import SearchConfig
    from mobilezoo.workflows.search import search as workflow

    named = _changed(config, overrides) if isinstance(config, SearchConfig) else str(config)
    return workflow(named, overrides, out=_path(out), hooks=hooks)


def report(runs: Named | Sequence[Named], out: Named = "report.html") -> Path:
    """Write one self-contained HTML page over run folders.

    Args:
        runs: a run folder, or several.
        out: the page.

    Returns:
        The page's path.

    Raises:
        MobilezooError: where there is nothing to show.
    """
    from mobilezoo.workflows.report import write_report

    folders = [runs] if isinstance(runs, str | Path) else runs
    return write_report([Path(folder) for folder in folders], Path(out))


def card(
    model: Named,
    out: Named | None = None,
    *,
    repo: str | None = None,
    overwrite: bool = False,
    hooks: Hooks = SILENT,
) -> Path:
    """Write a Hugging Face model card of a network, a checkpoint or an exported file.

    Args:
        model: zoo name (with or without a tag of published weights), model YAML, `timm:NAME`, checkpoint, or exported
            file.
        out: the Markdown file; `STEM.card.md` beside the checkpoint or file where it is left out.
        repo: repository OWNER/NAME that the card names.
        overwrite: replace a card that is there.
        hooks: receives what is left out, and why.

    Returns:
        The card's path.

    Raises:
        MobilezooError: for whatever a user can mend.
    """
    from mobilezoo.workflows.card import card as workflow

    return workflow(str(model), out=_path(out), repo=repo, overwrite=overwrite, hooks=hooks)


@_heard
def load_model(model: Named, **options: Unpack[ModelKeywords]) -> "LoadedModel":
    """Load a network with its weights, in eval mode, and the metadata that its exported files carry.

    Args:
        model: zoo name, model YAML, checkpoint of ours, or `timm:NAME`.
        options: as in `evaluate`.

    Raises:
        MobilezooError: for whatever a user can mend.
    """
    from mobilezoo.workflows.load_model import load_model as workflow

    return workflow(str(model), model_options(options))


def model_options(options: Mapping[str, object]) -> ModelOptions:
    """Parses keyword arguments into typed options; `labels` may be a file. Raises ConfigError."""
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    if isinstance(labels := plain.get("labels"), str):
        plain["labels"] = read_labels(labels)
    return ModelOptions.parse(plain, "options")


def _changed(record: R, overrides: Sequence[str]) -> R:
    """A record with dotted overrides applied."""
    return type(record).parse(apply_overrides(record.model_dump(mode="json"), overrides), type(record).__name__)


def _listed(key: str, values: str | Sequence[str] | None) -> tuple[str, ...]:
    """A list as an override."""
    if values is None:
        return ()
    names = listed(values) if isinstance(values, str) else values
    return (f"{key}=[{', '.join(names)}]",)


def _path(path: Named | None) -> Path | None:
    return None if path is None else Path(path)
