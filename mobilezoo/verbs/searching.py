"""`mobilezoo search`: candidates trained by the trainer, exported and timed, one study."""

from pathlib import Path

from rich.console import Console

from mobilezoo.config import find_config, load_record, write_yaml
from mobilezoo.errors import DeviceError, ExportError, require
from mobilezoo.search.networks import yaml_data
from mobilezoo.search.records import Candidate, LatencyEstimate, SearchConfig, SearchResult, TrialRecord
from mobilezoo.verbs.subject import Subject
from mobilezoo.verbs.tables import print_table

PARITY_IMAGES = 8


def run_search(config: str, overrides: tuple[str, ...], out: Path | None, progress: bool) -> SearchResult:
    """Begin or go on with the study that the config names; every finished trial prints one line."""
    require("optuna", "search")
    from mobilezoo.search.study import search
    from mobilezoo.search.supernet.accuracy import shared_accuracy

    path = find_config("search", config)
    settings = load_record(SearchConfig, path, overrides)
    if settings.estimator:
        from mobilezoo.verbs.estimating import is_table

        is_table(
            Path(settings.estimator).expanduser()
        )  # one that is missing or none is told before anything is trained
    folder = out or Path("runs") / f"search-{settings.name or path.stem}"
    console = Console(stderr=True, quiet=not progress)
    with console.status(f"searching {path.stem}: {settings.trials} trials") as status:

        def tell(trial: TrialRecord) -> None:
            console.print(_line(trial), highlight=False, markup=False)
            status.update(f"searching {path.stem}: trial {trial.number + 1} of {settings.trials} done")

        shared = shared_accuracy(settings, folder, say=lambda text: console.print(text, highlight=False, markup=False))
        judge = Judge(settings)
        result = search(settings, shared or judge.accuracy, judge.latency, folder, on_trial=tell)
        if shared is not None:
            shared.write(result, folder)
        return result


class Judge:
    """What the search calls for each candidate: latency of the untrained network, then accuracy."""

    def __init__(self, settings: SearchConfig) -> None:
        self.settings = settings

    def latency(self, candidate: Candidate) -> LatencyEstimate:
        """Latency of the candidate: measured on the device, or what the config's estimator says. Raises ExportError."""
        return self._estimated(candidate) if self.settings.estimator else self._on_device(candidate)

    def _estimated(self, candidate: Candidate) -> LatencyEstimate:
        """From a table of blocks or a predictor, with its interval and error."""
        from mobilezoo.verbs.estimating import is_table
        from mobilezoo.verbs.spaces import block_keys
        from mobilezoo_latency.estimators.predictor import Predictor
        from mobilezoo_latency.estimators.table import load_table

        by = Path(str(self.settings.estimator)).expanduser()
        if is_table(by):
            found = load_table(by).compose(block_keys(self.settings.space, candidate.point))
        else:
            found = Predictor.load(by).predict(self._file(candidate))
        return LatencyEstimate(
            ms=found.latency_ms,
            source=f"estimated: {by.name} ({found.basis})",
            low_ms=found.low_ms,
            high_ms=found.high_ms,
            error_percent=found.error_percent,
        )

    def _on_device(self, candidate: Candidate) -> LatencyEstimate:
        """Median latency of the candidate's file, with its 95% interval; an emulated core's is an estimate."""
        from mobilezoo_latency import profile, summarize

        report = profile(self._file(candidate), self.settings.device)
        if not report.samples_ms and report.estimate is None:
            raise DeviceError(f"{report.device.name} counts and is not calibrated to a phone: it gives no latency")
        summary = summarize(report)
        how = "measured" if report.samples_ms else "estimated from counted instructions"
        return LatencyEstimate(
            ms=summary["median_ms"],
            source=f"{how}: {report.device.runtime} on {report.device.name}",
            low_ms=summary["ci_low_ms"],
            high_ms=summary["ci_high_ms"],
            noisy=bool(report.noisy),
            error_percent=report.estimate.error_percent if report.estimate else None,
        )

    def _file(self, candidate: Candidate) -> Path:
        """The candidate, exported."""
        from mobilezoo.train.config import TrainConfig
        from mobilezoo.verbs.exporting import export_network

        recipe = load_record(TrainConfig, find_config("train", self.settings.recipe), self.settings.recipe_overrides)
        subject = _fresh(candidate, recipe.train.resolution)
        (result,) = export_network(
            subject, [self.settings.target], ["fp32"], candidate.folder, isolate=False, images=PARITY_IMAGES
        )
        if result.path is None:
            raise ExportError(f"{result.target}: {result.reason}")
        return Path(result.path)

    def accuracy(self, candidate: Candidate) -> float:
        """Top-1 in percent after the recipe's short training."""
        from mobilezoo.train.config import TrainConfig
        from mobilezoo.train.trainer import train

        model = candidate.folder / f"{candidate.config.name}.yaml"
        write_yaml(model, yaml_data(self.settings.space, candidate.point), [f"trial {candidate.number}"])
        overrides = (*self.settings.recipe_overrides, f"model={model}")
        recipe = load_record(TrainConfig, find_config("train", self.settings.recipe), overrides)
        folder = candidate.folder / "train"
        record = train(recipe, folder, resume=folder.exists(), progress=False, on_epoch=candidate.report)
        assert record.top1 is not None, "the trainer scores every epoch"
        return record.top1


def print_search(result: SearchResult) -> None:
    """The front, fastest first, and where the winner's YAML lies."""
    rows = []
    for number, file in zip(result.front, result.front_yaml, strict=True):
        trial = result.trial(number)
        assert trial.latency is not None
        best = "best" if number == result.best else ""
        rows.append((file, f"{trial.latency.ms:.3f}", f"{trial.top1:.2f}", f"{trial.reward:.2f}", best))
    print_table(f"front of {len(result.trials)} trials", ("network", "latency ms", "top-1 %", "reward", ""), rows)


def _fresh(candidate: Candidate, resolution: int | None) -> Subject:
    from mobilezoo.models import create_model

    config = candidate.config
    return Subject(
        network=create_model(config).eval(),
        name=config.name,
        resolution=resolution or config.resolution,
        in_chans=3,
        preprocessing=config.preprocessing(),
        labels=(),
        dataset="",
        fresh=True,
        checkpoint=None,
    )


def _line(trial: TrialRecord) -> str:
    if trial.state != "complete":
        return f"trial {trial.number}: {trial.state}: {trial.reason}"
    assert trial.latency is not None
    again = f" (same network as trial {trial.duplicate_of})" if trial.duplicate_of is not None else ""
    noisy = " noisy" if trial.latency.noisy else ""
    return (
        f"trial {trial.number}: top-1 {trial.top1:.2f}%  {trial.latency.ms:.3f} ms{noisy}  reward {trial.reward:.2f}  "
        f"{trial.seconds:.0f} s{again}"
    )
