"""Evaluates a search's candidates with the exporter, the devices and the trainer."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mobilezoo.config import find_config, load_record, read_yaml, write_yaml
from mobilezoo.errors import DeviceError, ExportError
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.networks import yaml_data
from mobilezoo.search.records import Candidate, DeviceLostError, Figures, LatencyEstimate
from mobilezoo.workflows.load_model import with_random_weights

if TYPE_CHECKING:
    from mobilezoo.latency_report import LatencyReport

PARITY_IMAGES = 8
POLL_S = 15.0
"""Between two looks for a device that was lost."""


class CandidateEvaluator:
    """Latency, size and memory of the network with random weights, then accuracy."""

    def __init__(self, settings: SearchConfig, on_warning: Callable[[str], None] = lambda text: None) -> None:
        self.settings = settings
        self.on_warning = on_warning

    def measure(self, candidate: Candidate) -> Figures:
        """Latency by the config's devices or its estimator; with devices also size and memory of the file.

        Args:
            candidate: exported to its folder first.

        Raises:
            ExportError: the candidate cannot be exported.
            DeviceError: measuring failed twice while the device was there.
            DeviceLostError: the device is gone, and the config wants no waiting or has waited long enough.
        """
        settings = self.settings
        if settings.estimator:
            return Figures(latency={settings.devices[0]: self._estimated(candidate, settings.estimator)})
        file = self._file(candidate)
        latency, memory = {}, None
        for device in settings.devices:
            report = self._report(file, device)
            if report is None:
                latency[device] = self._estimated(candidate, str(settings.fallback), f"{device} is gone: ")
                continue
            latency[device] = estimate_of(report)
            memory = memory if memory is not None else _memory_mb(report)
        return Figures(latency=latency, size_mb=file.stat().st_size / 1e6, memory_mb=memory)

    def remeasure(self, candidate: Candidate, devices: tuple[str, ...]) -> dict[str, LatencyEstimate]:
        """Latency measured again, nothing taken from the results store.

        Args:
            candidate: exported to its folder first.
            devices: names to measure on.

        Raises:
            DeviceLostError: a device is gone.
        """
        file = self._file(candidate)
        found = {}
        for device in devices:
            report = self._report(file, device, anew=True)
            if report is None:
                raise DeviceLostError(f"device {device!r} is gone: connect it and measure the front again")
            found[device] = estimate_of(report)
        return found

    def accuracy(self, candidate: Candidate) -> float:
        """Top-1 in percent after the recipe's short training; a training that was interrupted goes on."""
        from mobilezoo.train.config import TrainConfig
        from mobilezoo.train.trainer import train

        model, folder = candidate.folder / f"{candidate.config.name}.yaml", candidate.folder / "train"
        data = yaml_data(self.settings.space, candidate.point)
        if folder.exists() and not (model.is_file() and read_yaml(model) == data):
            shutil.rmtree(folder)  # of another search's network
        write_yaml(model, data, [f"trial {candidate.number}"])
        overrides = (*self.settings.recipe_overrides, f"model={model}")
        recipe = load_record(TrainConfig, find_config("train", self.settings.recipe), overrides)
        record = train(recipe, folder, resume=folder.exists(), show_progress=False, on_epoch=candidate.report)
        assert record.top1 is not None, "the trainer scores every epoch"
        return record.top1

    def _file(self, candidate: Candidate) -> Path:
        """The candidate, exported."""
        from mobilezoo.train.config import TrainConfig
        from mobilezoo.workflows.export import export_network
        from mobilezoo_export import ExportConfig

        recipe = load_record(TrainConfig, find_config("train", self.settings.recipe), self.settings.recipe_overrides)
        loaded = with_random_weights(candidate.config, recipe.train.resolution or candidate.config.resolution)
        config = ExportConfig(targets=(self.settings.target,), overwrite=True, parity_images=PARITY_IMAGES)
        (result,) = export_network(loaded, config, candidate.folder, isolate=False)
        if result.path is None:
            raise ExportError(f"{result.target}: {result.reason}")
        return Path(result.path)

    def _estimated(self, candidate: Candidate, estimator: str, why: str = "") -> LatencyEstimate:
        """From a table of blocks or a predictor, with its interval and error."""
        from mobilezoo.workflows.estimate_latency import is_table
        from mobilezoo.workflows.latency_blocks import block_keys
        from mobilezoo_latency.estimators.predictor import Predictor
        from mobilezoo_latency.estimators.table import load_table

        by = Path(estimator).expanduser()
        if is_table(by):
            found = load_table(by).compose(block_keys(self.settings.space, candidate.point))
        else:
            found = Predictor.load(by).predict(self._file(candidate))
        return LatencyEstimate(
            ms=found.latency_ms,
            source=f"{why}estimated: {by.name} ({found.basis})",
            low_ms=found.low_ms,
            high_ms=found.high_ms,
            error_percent=found.error_percent,
        )

    # ---- devices that come and go

    def _report(self, file: Path, device: str, *, anew: bool = False) -> "LatencyReport | None":
        """Measured on the device; None where it is gone and the config names an estimator for that.

        A failure while the device is there is tried once more, and then the candidate's own (DeviceError).
        """
        from mobilezoo_latency import profile

        patience, again = time.monotonic() + 60 * self.settings.device_wait_min, False
        while True:
            try:
                return profile(file, device, reuse="none" if anew else "quiet")
            except DeviceError as error:
                if not _gone(device):
                    if again:
                        raise
                    again = True
                elif self.settings.on_device_lost == "estimate":
                    self.on_warning(f"device {device!r} is gone ({error}): estimating by {self.settings.fallback}")
                    return None
                else:
                    self._wait(device, str(error), patience)

    def _wait(self, device: str, error: str, patience: float) -> None:
        """Sleep until the next look. Raises DeviceLostError where the config wants no waiting, or has had enough."""
        remedy = "connect it and run the same command again; finished trials are kept"
        if self.settings.on_device_lost == "stop":
            raise DeviceLostError(f"device {device!r} is gone: {error}: {remedy} (on_device_lost=wait waits for it)")
        if time.monotonic() > patience:
            raise DeviceLostError(f"device {device!r} is gone for {self.settings.device_wait_min:g} minutes: {remedy}")
        self.on_warning(f"device {device!r} is gone ({error}): waiting for it")
        time.sleep(POLL_S)


def estimate_of(report: "LatencyReport") -> LatencyEstimate:
    """Median latency with its 95% interval; an emulated core's is an estimate. Raises DeviceError for mere counts."""
    from mobilezoo_latency import summarize

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


def _memory_mb(report: "LatencyReport") -> float | None:
    grown = [run.memory_bytes for run in report.processes if run.memory_bytes is not None]
    return max(grown) / 1e6 if grown else None


def _gone(device: str) -> bool:
    from mobilezoo_latency import load_device

    opened = load_device(device)
    try:
        opened.check()
    except DeviceError:
        return True
    finally:
        opened.close()
    return False
