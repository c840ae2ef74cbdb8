"""`mobilezoo report`: gathers the records that lie in run folders and writes one page."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mobilezoo.artifacts import Artifact, Checkpoint, Described, read_record_of, record_path, why_changed
from mobilezoo.errors import MobilezooError, existing_folder, writable_place
from mobilezoo.evaluation_report import EVALUATION, EvaluationReport
from mobilezoo.files import COMMIT, tidy
from mobilezoo.latency_report import LatencyReport
from mobilezoo.reading import read_json
from mobilezoo.resolution import written
from mobilezoo.training_preview import PREVIEW, TrainingPreview
from mobilezoo.workflows.card import CARD
from mobilezoo.workflows.card_records import LATENCY
from mobilezoo_export.registry import file_suffixes

if TYPE_CHECKING:
    from mobilezoo.report.search_section import FinetuneFound, SearchFound

T = TypeVar("T")
METRICS = "metrics.csv"


def write_report(folders: list[Path], out: Path) -> Path:
    """One page over all records found below some folders; records that cannot be read are listed with the reason.

    Args:
        folders: searched with their subfolders.
        out: HTML file to write.

    Raises:
        MobilezooError: there is nothing to show.
    """
    from mobilezoo.report import ReportContents, build_report
    from mobilezoo.report.curves import read_curves

    writable_place(out, "--out")
    found = _Found([existing_folder(folder, "run folder") for folder in folders])
    runs = [path.parent for path in found.named(METRICS) if found.read(path, lambda p: read_curves(p.parent, p.name))]
    artifacts = [record for file in found.exported() if (record := found.read(file, _artifact))]
    latencies = [report for path in found.ending(LATENCY) if (report := found.read(path, _latency))]
    previews = [(p.parent.name, one) for p in found.named(PREVIEW) if (one := found.read(p, _preview))]
    evaluations = [scores for path in found.ending(EVALUATION) if (scores := found.read(path, _evaluation))]
    searches = _searches(found)
    models = [row for run in runs if (row := found.read(run / "best.safetensors", _model_row))]
    if not (runs or artifacts or latencies or searches or evaluations):
        named = ", ".join(map(str, folders))
        reason = "; ".join(f"{name}: {why}" for name, why in found.unread[:3])
        raise MobilezooError(f"nothing to report in {named}: {reason or 'no run, file, latency or search in it'}")
    contents = ReportContents(
        title="mobilezoo report",
        models=models,
        runs=runs,
        previews=previews,
        artifacts=artifacts,
        latencies=latencies,
        searches=searches,
        evaluations=evaluations,
        model_cards=found.ending(CARD),
        unread=found.unread,
    )
    return build_report(out, contents)


class _Found:
    """The files below some folders, without hidden ones and those of a search's single candidates."""

    def __init__(self, roots: list[Path]) -> None:
        self.unread: list[tuple[str, str]] = []
        """(file, why it cannot be read)"""
        self._suffixes = file_suffixes()
        self._files = list(dict.fromkeys(path for root in roots for path in _below(root, self._suffixes)))

    def named(self, name: str) -> list[Path]:
        return [path for path in self._files if path.name == name]

    def ending(self, ending: str) -> list[Path]:
        return [path for path in self._files if path.name.endswith(ending)]

    def exported(self) -> list[Path]:
        """Exported files, and the paths of those whose record alone is left."""
        endings = tuple(record_path(Path(suffix)).name for suffix in self._suffixes)
        recorded = [
            path.with_name(path.name.removesuffix(".json")) for path in self._files if path.name.endswith(endings)
        ]
        return sorted({*recorded, *(path for path in self._files if path.suffix in self._suffixes)})

    def read(self, path: Path, reader: Callable[[Path], T]) -> T | None:
        """What `reader` makes of a file; None, and a line on the page, where it cannot."""
        try:
            return reader(path)
        except MobilezooError as error:
            self.unread.append((str(path), " ".join(str(error).split())))
            return None


def _below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files in order; an `.mlpackage`, `.ncnn` or `.aimodel` is one."""
    if any(folder.glob(f"*{COMMIT}")):
        tidy(folder)
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "trials":
            continue
        if path.is_dir() and not path.is_symlink() and path.suffix not in suffixes:
            yield from _below(path, suffixes)
        else:
            yield path


def _artifact(file: Path) -> Artifact:
    """The record of a file; nothing it proved holds for a file that is gone or changed since."""
    beside = record_path(file)
    record = read_record_of(Artifact, file) if file.exists() else Artifact.parse(read_json(beside), str(beside))
    reason = _fault(file, record)
    return record.model_copy(update={"parity": None, "why_not_runnable": reason}) if reason else record


def _fault(file: Path, record: Described) -> str:
    """What is wrong with a file that has a record, if anything."""
    return (why_changed(file, record) or "") if file.exists() else "the file is missing"


def _latency(path: Path) -> LatencyReport:
    return LatencyReport.parse(read_json(path), str(path))


def _preview(path: Path) -> TrainingPreview:
    return TrainingPreview.parse(read_json(path), str(path))


def _evaluation(path: Path) -> EvaluationReport:
    """The record; with a note where the file that it is of has another content now."""
    from mobilezoo.workflows.evaluation_page import hash_of

    record = EvaluationReport.parse(read_json(path), str(path))
    if record.sha256 and hash_of(record.model) not in ("", record.sha256):
        name = Path(record.model).name
        return record.model_copy(update={"note": f"{name} has changed since: these are figures of an earlier one"})
    return record


def _searches(found: _Found) -> "list[SearchFound]":
    from mobilezoo.report.search_section import SearchFound
    from mobilezoo.search.finetune_result import FINETUNE_NAME
    from mobilezoo.search.records import RESULT_NAME, load_search_result

    results = [(p.parent, one) for p in found.named(RESULT_NAME) if (one := found.read(p, load_search_result))]
    finetunes = [(p, done) for p in found.named(FINETUNE_NAME) if (done := found.read(p, _finetune))]
    for path, _ in finetunes:
        if len(results) != 1 and not any(folder in path.parents for folder, _ in results):
            found.unread.append((str(path), "its search is not in these folders: name the search's folder too"))
    return [
        SearchFound(result, tuple(done for path, done in finetunes if len(results) == 1 or folder in path.parents))
        for folder, result in results
    ]


def _finetune(path: Path) -> "FinetuneFound":
    """The record and its files, which lie beside it also where the folder was moved."""
    from mobilezoo.report.search_section import FinetuneFound
    from mobilezoo.search.finetune_result import FinetuneResult

    record = FinetuneResult.parse(read_json(path), str(path))
    weights, file = path.parent / "train" / Path(record.checkpoint).name, path.parent / Path(record.file).name
    return FinetuneFound(record, ((weights, _state(Checkpoint, weights)), (file, _state(Artifact, file))))


def _state(cls: type[Described], file: Path) -> str:
    """In a word or two, what is wrong with a file; empty where it is the one its record describes."""
    if not file.exists():
        return "missing"
    try:
        return "changed" if why_changed(file, read_record_of(cls, file)) else ""
    except MobilezooError:
        return "no record that can be read"


def _model_row(weights: Path) -> dict[str, Any] | None:
    """The network that a run trained; None for a supernet, which is no single network."""
    from mobilezoo.models import create_model, recorded_config
    from mobilezoo.models.macs import count

    record = read_record_of(Checkpoint, weights)
    changed = why_changed(weights, record) is not None
    config = recorded_config(record, weights).built_for(record.resolution)
    if config.family == "supernet":
        return None
    network = create_model(
        config,
        num_classes=record.num_classes,
        in_chans=record.in_chans,
        **record.network_args(),
    ).eval()
    return {
        "name": f"{config.name} (weights changed since training)" if changed else config.name,
        "run": weights.parent.name,
        "resolution": written(record.resolution),
        **count(network, record.resolution),
        "top1": None if changed else record.top1,
        "dataset": record.dataset,
        "epoch": record.epoch,
    }
