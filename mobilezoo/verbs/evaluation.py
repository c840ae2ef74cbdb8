"""`mobilezoo eval`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mobilezoo.artifacts import record_path
from mobilezoo.data.config import DataConfig, named_data
from mobilezoo.errors import ConfigError
from mobilezoo.verbs.opening import described, is_exported
from mobilezoo.verbs.options import SubjectOptions

if TYPE_CHECKING:
    import torch

    from mobilezoo.data.classes import Places
    from mobilezoo.data.loaders import Batch, EvalBatches
    from mobilezoo.train.evaluate import EvalResult
    from mobilezoo.verbs.subject import Subject


def evaluate_subject(
    subject: str,
    data: str | None,
    options: SubjectOptions,
    batch_size: int,
    workers: int,
    progress: bool,
    classes: str | None = None,
) -> dict[str, Any]:
    """Scores of a network in PyTorch, or of an exported file in its own runtime, on the validation split.

    `data` None takes the data that the network's record names; splits and the meaning of pixels are as in training
    where a record tells. `classes` says where the data's classes lie among the outputs (see `place_classes`). With a
    file come, under `pytorch`, the scores of the weights it was made of: `options.checkpoint`, else what its record
    names, where that is still there.
    """
    from mobilezoo.data import open_data
    from mobilezoo.verbs.subject import load_subject

    is_file = is_exported(subject)
    weights = _weights_of(Path(subject), options) if is_file else (subject, options)
    loaded = load_subject(*weights) if weights is not None else None
    source = _source(subject, data, loaded).model_copy(update={"batch_size": batch_size, "workers": workers})
    split = open_data(source, train=False)
    network = None
    if loaded is not None and weights is not None:
        network = _evaluate_network(weights[0], loaded, source, split, progress, classes)
    if not is_file:
        assert network is not None
        return network
    result = _evaluate_file(Path(subject), source, split, progress, classes, options)
    if network is not None:
        result |= {"pytorch": network, "top1_drop": network["top1"] - result["top1"]}
    return result


def _source(subject: str, data: str | None, loaded: "Subject | None") -> DataConfig:
    recorded = loaded.data if loaded is not None else None
    if data is None and recorded is None:
        raise ConfigError(f"no record says what {subject!r} was trained on: pass --data, for example folder:PATH")
    return named_data(data, recorded) if data is not None else cast("DataConfig", recorded)


def evaluate_file(path: Path, source: DataConfig, progress: bool = False, classes: str | None = None) -> dict[str, Any]:
    """Scores of an exported file, run in its own runtime, on the validation split of a data config."""
    from mobilezoo.data import open_data

    return _evaluate_file(path, source, open_data(source, train=False), progress, classes)


def evaluate_loaded(subject: "Subject", source: DataConfig, classes: str | None = None) -> "EvalResult":
    """Scores of a network at hand, on the CPU, on the validation split of a data config."""
    import torch

    from mobilezoo.data import open_data

    return _score_loaded(subject, source, open_data(source, train=False), torch.device("cpu"), False, classes)


def print_result(result: dict[str, Any]) -> None:
    if "pytorch" in result:
        print_result(result["pytorch"])
    print(
        f"{result['subject']} on {result['data']} ({result['images']} images, {result['runs_in']}): "
        f"top-1 {result['top1']:.2f}%  top-5 {result['top5']:.2f}%  loss {result['loss']:.4f}"
        + (f"  drop {result['top1_drop']:.2f}" if "top1_drop" in result else "")
    )


def _evaluate_network(
    subject: str, loaded: "Subject", source: DataConfig, split: Any, progress: bool, classes: str | None
) -> dict[str, Any]:
    from mobilezoo.train.build import pick_device

    device = pick_device("auto")
    if loaded.fresh:
        raise ConfigError(f"{subject!r} has random weights here: pass --checkpoint PATH")
    scores = _score_loaded(loaded, source, split, device, progress, classes)
    return {"subject": subject, "data": source.source, "runs_in": f"PyTorch ({device.type})", **scores.model_dump()}


def _score_loaded(
    loaded: "Subject", source: DataConfig, split: Any, device: "torch.device", progress: bool, classes: str | None
) -> "EvalResult":
    import torch

    from mobilezoo.data import eval_loader
    from mobilezoo.data.classes import placed
    from mobilezoo.train.evaluate import evaluate

    network = loaded.network.to(device)
    one = torch.zeros(1, loaded.in_chans, *loaded.resolution, device=device)
    places = _placed(network, one, loaded.labels, split, classes, loaded.name)
    loader = eval_loader(source, split, loaded.resolution, loaded.preprocessing, device)
    return evaluate(network, placed(_tracked(loader, progress), places))


def _weights_of(file: Path, options: SubjectOptions) -> tuple[str, SubjectOptions] | None:
    """The network that a file was made of, with what was said of it; None where its record names none that exists."""
    from mobilezoo_export import open_artifact

    record = open_artifact(file)
    said = options.model_dump(exclude_defaults=True)
    if options.checkpoint is None and record.checkpoint:
        recorded = (file.parent / record.checkpoint).resolve()
        said |= {"checkpoint": recorded if recorded.is_file() else None, "key": options.key or record.checkpoint_key}
    weights = said.get("checkpoint")
    if weights is None:
        return None
    named = str(weights) if record_path(weights).is_file() else record.model
    prep = record.preprocessing
    files_own = {"resolution": record.input.resolution, "mean": prep.mean, "std": prep.std, "labels": record.labels}
    return named, SubjectOptions(**{**files_own, **said, "checkpoint": None if named == str(weights) else weights})


def _evaluate_file(
    path: Path,
    source: DataConfig,
    split: Any,
    progress: bool,
    classes: str | None,
    options: SubjectOptions | None = None,
) -> dict[str, Any]:
    import torch

    from mobilezoo.data import eval_loader
    from mobilezoo.data.classes import placed
    from mobilezoo.train.evaluate import evaluate
    from mobilezoo_export import FileApart

    record = described(path, options or SubjectOptions())
    with FileApart(path, record) as opened:

        def logits_of(x_bchw: torch.Tensor) -> torch.Tensor:
            answer = torch.from_numpy(opened.run(x_bchw.numpy()))
            if answer.ndim != 2:
                raise ConfigError(f"{path.name!r} answers with shape {tuple(answer.shape)}: that is no score per class")
            return answer.clamp_min(1e-12).log() if record.output == "probabilities" else answer

        size, prep = record.input.resolution, record.preprocessing
        places = _placed(logits_of, torch.zeros(1, prep.channels, *size), record.labels, split, classes, path)
        loader = eval_loader(source, split, size, prep, torch.device("cpu"))
        scores = evaluate(logits_of, placed(_tracked(loader, progress), places))
        return {"subject": str(path), "data": source.source, "runs_in": opened.runtime, **scores.model_dump()}


def _placed(
    logits_of: Any, x_bchw: "torch.Tensor", labels: tuple[str, ...], split: Any, classes: str | None, whose: str | Path
) -> "Places":
    """Which output stands for which class of the split; one empty image tells how many outputs there are."""
    import sys

    import torch

    from mobilezoo.data.classes import place_classes

    with torch.inference_mode():
        outputs = int(logits_of(x_bchw).shape[-1])
    places = place_classes(split.labels, outputs, labels, classes, str(whose))
    for line in (split.left_out, places.note):
        if line:
            print(line, file=sys.stderr)
    return places


def _tracked(loader: "EvalBatches", progress: bool) -> "Iterator[Batch]":
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return iter(track(loader, "evaluating", total=len(loader), console=console, disable=not progress, transient=True))
