"""Accuracy of a network, or of a file in its own runtime, on a validation split."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from mobilezoo.artifacts import Artifact, Output, has_record
from mobilezoo.config import Record
from mobilezoo.data.config import DataConfig, named_data
from mobilezoo.errors import ConfigError
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.open_file import check_network, described, refuse_dense, refuse_weights

if TYPE_CHECKING:
    import torch

    from mobilezoo.data.class_lists import Places
    from mobilezoo.train.evaluate import EvalResult
    from mobilezoo.workflows.load_model import LoadedModel
    from mobilezoo.workflows.tally import Tally


class Scores(Record):
    """Accuracy of a network or a file on one split."""

    model: str
    data: str
    runs_in: str
    images: int
    top1: float
    """Percent."""
    top5: float
    """Percent."""
    loss: float | None
    """Mean cross entropy in nats; None for outputs that are no distribution."""
    output: Output | None = None
    """What a file answers with."""
    zeros: int = 0
    """Images whose class a file gave probability 0."""
    parity: str | None = None
    """Of a file without a record: that nothing was shown of it."""
    pytorch: "Scores | None" = None
    """Of the weights that a file was made of."""
    top1_drop: float | None = None
    """By which the file is worse, in points."""


class Loading(NamedTuple):
    """How the images of a split are loaded."""

    batch_size: int = 64
    workers: int = 2
    """Processes beside this one."""


LOADING = Loading()


def evaluate(
    model: str,
    data: str | None = None,
    options: ModelOptions = NO_OPTIONS,
    *,
    classes: str | None = None,
    loading: Loading = LOADING,
    report: Path | None = None,
    hooks: Hooks = SILENT,
) -> Scores:
    """Scores of a network in PyTorch, or of an exported file in its own runtime, on the validation split.

    With a file come, under `pytorch`, the scores of the weights it was made of: `options.checkpoint`, else those that
    its record names, where they still exist.

    Args:
        model: name, YAML, checkpoint or exported file.
        data: source; None takes the recorded one. Splits and the meaning of pixels are as in training where recorded.
        options: changes to what the record or the config has.
        classes: where the data's classes lie among the outputs, see `place_classes`.
        loading: how images are loaded.
        report: page to write of it, with its record beside it; None writes none.
        hooks: receives messages and progress.

    Raises:
        MobilezooError: no data or weights, or classes that do not agree.
    """
    from mobilezoo.data import open_data
    from mobilezoo.workflows.evaluation_page import Watched, check_place
    from mobilezoo.workflows.load_model import load_model
    from mobilezoo_export.registry import is_exported

    if report is not None:
        check_place(report)
    record = described(Path(model), options) if is_exported(model) else None
    if record is None:
        check_network(model, options)
    else:
        refuse_dense(Path(model), record, "eval scores")
    weights = weights_of(Path(model), record, options) if record else (model, options)
    if weights is None:
        refuse_weights(Path(model), options)
    loaded = load_model(*weights) if weights is not None else None
    source = _source(model, data, loaded).model_copy(update=loading._asdict())
    split = open_data(source, train=False)
    watched = Watched(report, of_file=record is not None)
    result: Scores | None = None
    if loaded is not None and weights is not None:
        result = _evaluate_network(weights[0], loaded, source, split, _How(hooks, classes, watched.network))
    if record is not None:
        network, how = result, _How(hooks, classes, watched.file)
        result = _evaluate_file(Path(model), record, source, split, how)
        if network is not None:
            result = result.model_copy(update={"pytorch": network, "top1_drop": network.top1 - result.top1})
    assert result is not None
    watched.write(result)
    return result


def _source(model: str, data: str | None, loaded: "LoadedModel | None") -> DataConfig:
    recorded = loaded.data if loaded is not None else None
    if data is None and recorded is None:
        raise ConfigError(f"no record says what {model!r} was trained on: pass --data, for example folder:PATH")
    return named_data(data, recorded) if data is not None else cast("DataConfig", recorded)


def evaluate_file(
    path: Path,
    source: DataConfig,
    classes: str | None = None,
    hooks: Hooks = SILENT,
    record: Artifact | None = None,
) -> Scores:
    """Scores of an exported file, run in its own runtime, on the validation split.

    Args:
        path: the file, beside its record where it has one.
        source: data, batch size and loader processes.
        classes: as for `evaluate`.
        hooks: receives messages and progress.
        record: how the file is fed; None: its own record, or what the file declares.
    """
    from mobilezoo.data import open_data

    record = record or described(path, ModelOptions())
    refuse_dense(path, record, "eval scores")
    return _evaluate_file(path, record, source, open_data(source, train=False), _How(hooks, classes))


def evaluate_loaded(loaded: "LoadedModel", source: DataConfig, classes: str | None = None) -> "EvalResult":
    """Scores of a loaded network, on the CPU, on the validation split.

    Args:
        loaded: the network.
        source: data, batch size and loader processes.
        classes: as for `evaluate`.
    """
    import torch

    from mobilezoo.data import open_data

    split = open_data(source, train=False)
    return _score_loaded(loaded, source, split, torch.device("cpu"), _How(SILENT, classes))


class _How(NamedTuple):
    """Beside what is scored: who hears of it, where the data's classes lie, and who watches every batch."""

    hooks: Hooks
    classes: str | None = None
    tally: "Tally | None" = None


def _evaluate_network(model: str, loaded: "LoadedModel", source: DataConfig, split: Any, how: _How) -> Scores:
    from mobilezoo.train.build import pick_device

    device = pick_device("auto")
    if loaded.random_weights:
        raise ConfigError(f"{model!r} has random weights here: pass --pretrained, or --checkpoint PATH")
    scores = _score_loaded(loaded, source, split, device, how)
    runs_in = f"PyTorch ({device.type})"
    return Scores(model=model, data=source.source, runs_in=runs_in, **scores.model_dump())


def _score_loaded(
    loaded: "LoadedModel", source: DataConfig, split: Any, device: "torch.device", how: _How
) -> "EvalResult":
    import torch

    from mobilezoo.data import eval_loader
    from mobilezoo.data.classes import placed
    from mobilezoo.train.evaluate import evaluate

    network = loaded.network.to(device)
    one = torch.zeros(1, loaded.in_chans, *loaded.resolution, device=device)
    with torch.inference_mode():
        outputs = int(network(one).shape[-1])
    places = _placed(outputs, loaded.labels, split, loaded.name, how)
    loader = eval_loader(source, split, loaded.resolution, loaded.preprocessing, device)
    watch = how.tally.begin(loaded.preprocessing) if how.tally is not None else None
    return evaluate(network, placed(how.hooks.track(loader, "evaluating", len(loader)), places), watch)


def weights_of(file: Path, record: Artifact, options: ModelOptions) -> tuple[str, ModelOptions] | None:
    """The network that a file was made of, with the options to load it by; None where no such weights exist.

    Args:
        file: the exported file.
        record: its record.
        options: the user's weights and changes.
    """
    given = options.model_dump(exclude_defaults=True)
    if options.checkpoint is None and record.checkpoint:
        recorded = (file.parent / record.checkpoint).resolve()
        given |= {"checkpoint": recorded if recorded.is_file() else None, "key": options.key or record.checkpoint_key}
    weights = given.get("checkpoint")
    if weights is None:
        return None
    named = str(weights) if has_record(weights) else record.model
    prep = record.preprocessing
    files_own = {"resolution": record.input.resolution, "labels": record.labels}
    if not record.foreign:  # others may normalize inside of the file
        files_own |= {"mean": prep.mean, "std": prep.std}
    given.pop("preprocess", None)
    given.pop("outputs", None)
    return named, ModelOptions(**{**files_own, **given, "checkpoint": None if named == str(weights) else weights})


def _evaluate_file(path: Path, record: Artifact, source: DataConfig, split: Any, how: _How) -> Scores:
    import numpy as np
    import torch

    from mobilezoo.data import eval_loader
    from mobilezoo.data.classes import placed
    from mobilezoo.workflows.answers import Answers, check_labels, evaluate_answers
    from mobilezoo_export import FileApart

    with FileApart(path, record) as opened:
        size, prep = record.input.resolution, record.preprocessing
        empty = opened.run(np.zeros((1, prep.channels, *size), np.float32))
        outputs = Answers.of_file(path, record).read(empty, 1).shape[1]  # a blank image gives the number of outputs
        check_labels(record.labels, outputs)
        places = _placed(outputs, record.labels, split, path, how)
        loader = eval_loader(source, split, size, prep, torch.device("cpu"))
        batches = placed(how.hooks.track(loader, "evaluating", len(loader)), places)
        watch = how.tally.begin(prep) if how.tally is not None else None
        scores = evaluate_answers(opened.run, batches, Answers.of_file(path, record), watch)
    mark = record.why_not_runnable if record.foreign else None
    return Scores(model=str(path), data=source.source, runs_in=opened.runtime, parity=mark, **scores)


def _placed(outputs: int, labels: tuple[str, ...], split: Any, whose: str | Path, how: _How) -> "Places":
    """Which output stands for which class of the split."""
    from mobilezoo.data.classes import place_classes
    from mobilezoo.workflows.tally import output_names

    places = place_classes(split.labels, outputs, labels, how.classes, str(whose))
    for line in filter(None, (split.left_out, places.note)):
        how.hooks.on_message(line)
    if how.tally is not None:
        how.tally.names = output_names(outputs, places, split.labels, labels)
    return places
