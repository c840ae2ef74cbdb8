"""The form of each file that is fastest on an emulated core: `mobilezoo export … --optimize-for CORE`.

A network can be written in many forms that compute the same: with or without each graph pass of the target, and, in
int8, with some segments in float. Which one is fast depends on the core, so forms are made and their cycles counted.
Each change is tried alone; those that gain are then combined, the largest gain first, and kept while cycles fall.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mobilezoo.artifacts import Artifact, Form, file_stem
from mobilezoo.errors import ConfigError
from mobilezoo.files import sha256_of
from mobilezoo.scratch import temporary_folder
from mobilezoo.workflows.check_units import UnitChecks
from mobilezoo.workflows.export_images import ExportImages
from mobilezoo.workflows.hooks import Hooks
from mobilezoo.workflows.load_model import LoadedModel

if TYPE_CHECKING:
    from mobilezoo_export import ExportConfig, ExportResult, ExportSession, ExportSpec, ModelSpec
    from mobilezoo_latency.emulator.device import EmulatedDevice

LEAST_GAIN = 0.002
"""Share of the cycles that a change must save to be kept; block boundaries alone move counts by less."""
INTEGER = ("int8",)
"""Precisions whose files may keep segments in float."""


class Change(NamedTuple):
    """One difference from the plain form."""

    without: str | None = None
    """A graph pass that is left out."""
    float_segment: int | None = None
    """A segment that stays float."""

    def __str__(self) -> str:
        return f"without {self.without}" if self.without else f"segment {self.float_segment} in float"


PLAIN: tuple[Change, ...] = ()
Cycles = Callable[[tuple[Change, ...]], float | None]
"""Cycles of the form with these changes; None where no such file computes what PyTorch computes."""


def search_form(cycles: Cycles, plain: float, changes: list[Change]) -> tuple[tuple[Change, ...], float]:
    """Finds the changes that together save the most cycles.

    Args:
        cycles: makes and counts a form.
        plain: cycles of the plain form.
        changes: what may be changed.

    Returns:
        The changes of the best form, and its cycles.
    """
    alone = {change: found for change in changes if (found := cycles((change,))) is not None}
    best, fewest = PLAIN, plain
    for change in sorted(alone, key=lambda one: alone[one]):
        if alone[change] > plain * (1 - LEAST_GAIN):
            break
        together = (*best, change)
        found = alone[change] if best == PLAIN else cycles(together)
        if found is not None and found < fewest * (1 - LEAST_GAIN):
            best, fewest = together, found
    return best, fewest


def emulated_core(name: str, targets: tuple[str, ...]) -> "EmulatedDevice":
    """The core that forms are counted on, ready to count files of these targets.

    Args:
        name: a device of configs/devices/, or a YAML.
        targets: export targets.

    Raises:
        ConfigError: it is no emulated core, or no emulated runtime runs such files.
        DeviceError: the emulator or a runtime is not prepared.
        UnknownNameError: there is no such device.
    """
    from mobilezoo_latency import list_devices, load_device
    from mobilezoo_latency.emulator.device import EmulatedDevice
    from mobilezoo_latency.emulator.runtimes import RUNTIMES

    device = load_device(name)
    if not isinstance(device, EmulatedDevice):
        cores = [one for one in list_devices() if isinstance(load_device(one), EmulatedDevice)]
        raise ConfigError(
            f"optimize_for is an emulated core, whose cycles are counted, and {name!r} is none: {', '.join(cores)}"
        )
    for target in targets:
        if target not in RUNTIMES:
            raise ConfigError(f"optimize_for counts {', '.join(RUNTIMES)} files, not {target!r}: pass --to litert")
        EmulatedDevice(device.config, target).check()
    return device


def export_optimized(
    loaded: LoadedModel, model: "ModelSpec", config: "ExportConfig", images: ExportImages, out: Path, *, hooks: Hooks
) -> "list[ExportResult]":
    """A file for each target and precision, in the form with the fewest cycles of `config.optimize_for`.

    Args:
        loaded: the network.
        model: name, input and labels of the files.
        config: targets, precisions and the core.
        images: compared and calibrated on.
        out: folder of the files.
        hooks: receives the form under way.

    Raises:
        ConfigError: the core is none, or `max_drop` is set as well.
        DeviceError: the emulator is not prepared.
    """
    from mobilezoo_export import ExportSession

    assert config.optimize_for is not None
    if config.max_drop is not None:
        raise ConfigError("optimize_for and max_drop both choose what stays float: leave one out")
    device = emulated_core(config.optimize_for, config.targets)
    done = []
    with ExportSession(loaded.network, config.spec(model, "fp32"), images.proof) as session:
        for target in config.targets:
            for precision in config.precisions:
                forms = Forms(session, target, config.spec(model, precision), device, hooks)
                done.append(forms.export(out, config))
    return done


class Forms:
    """Makes and counts the forms of one file.

    Args:
        session: of the network.
        target: an export target with an emulated runtime.
        spec: the plain form.
        device: the core.
        hooks: receives the form under way.
    """

    def __init__(
        self, session: "ExportSession", target: str, spec: "ExportSpec", device: "EmulatedDevice", hooks: Hooks
    ) -> None:
        self._session, self._target, self._spec, self._device, self._hooks = session, target, spec, device, hooks
        self._counted: dict[str, float] = {}
        self._tried: dict[str, float] = {}

    def export(self, out: Path, config: "ExportConfig") -> "ExportResult":
        """Searches the forms and writes the best one.

        Args:
            out: folder of the file.
            config: whether it replaces a file, and the units that it is also run on.

        Returns:
            The file's record with its form, or the reason why there is none.
        """
        from mobilezoo_export import load_exporter

        name = f"{file_stem(self._spec.model)}.{self._spec.precision}{load_exporter(self._target).suffix}"
        with temporary_folder("forms") as folder:
            made, plain = self._made(PLAIN, folder / name)
            if plain is None:
                return made
            best, fewest = search_form(lambda changes: self._made(changes, folder / name)[1], plain, self._changes())
        spec = self._with(best)
        form = Form(
            device=self._device.config.name,
            without=spec.options.without,
            float_segments=spec.float_segments,
            megacycles=round(fewest / 1e6, 3),
            plain_megacycles=round(plain / 1e6, 3),
            tried=self._tried,
        )
        spec = spec.model_copy(update={"form": form})
        check = UnitChecks(config.check, self._hooks)
        return self._session.export(self._target, spec, out / name, overwrite=config.overwrite, check=check)

    def _changes(self) -> list[Change]:
        from mobilezoo_export.quantize.mixed import SEGMENTS

        changes = [Change(without=name) for name in self._session.changing_passes(self._target, self._spec)]
        if self._spec.precision in INTEGER:
            changes += [Change(float_segment=segment) for segment in range(SEGMENTS)]
        return changes

    def _with(self, changes: tuple[Change, ...]) -> "ExportSpec":
        without = tuple(change.without for change in changes if change.without)
        segments = tuple(sorted(one.float_segment for one in changes if one.float_segment is not None))
        options = self._spec.options.model_copy(update={"without": (*self._spec.options.without, *without)})
        return self._spec.model_copy(update={"options": options, "float_segments": segments})

    def _made(self, changes: tuple[Change, ...], path: Path) -> "tuple[ExportResult, float | None]":
        """One form's file and its cycles; None where it cannot be made right."""
        title = ", ".join(map(str, changes)) or "plain"
        self._hooks.on_status(f"{self._target} {self._spec.precision} for {self._device.config.name}: {title}")
        result = self._session.export(self._target, self._with(changes), path, overwrite=True)
        if result.artifact is None:
            return result, None
        file = sha256_of(path)
        if file not in self._counted:
            self._counted[file] = self._count(path, result.artifact)
        self._tried[title] = round(self._counted[file] / 1e6, 3)
        return result, self._counted[file]

    def _count(self, path: Path, record: Artifact) -> float:
        from mobilezoo_latency.contract import ArtifactFile
        from mobilezoo_latency.emulator.device import EmulatedDevice
        from mobilezoo_latency.emulator.layout import find_emulator

        artifact = ArtifactFile(path.resolve(), record)
        device = self._device.for_artifact(artifact)
        assert isinstance(device, EmulatedDevice)
        counts, calibration = device.count(find_emulator(), artifact), device.config.conversion
        line_cycles = calibration.dram_cycles if calibration else 0.0
        return counts.cycles + line_cycles * (counts.dram_lines or 0)
