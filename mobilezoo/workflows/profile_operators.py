"""Where the time of a network goes, operator by operator: milliseconds on this machine, cycles on an emulated core."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.errors import MobilezooError
from mobilezoo.files import write_text
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.profile import files_to_time, load_profile_config

if TYPE_CHECKING:
    from mobilezoo_export.records import OperatorProfile
    from mobilezoo_latency import ProfileConfig
    from mobilezoo_latency.emulator.device import EmulatedDevice
    from mobilezoo_latency.emulator.operators import CountedProfile

    Profile = OperatorProfile | CountedProfile


def profile_operators(
    models: Sequence[str],
    config: "ProfileConfig | None" = None,
    options: ModelOptions = NO_OPTIONS,
    *,
    plot: Path | None = None,
    hooks: Hooks = SILENT,
) -> "dict[str, Profile]":
    """Per-operator times or counts by file.

    Args:
        models: exported files, names, YAMLs or checkpoints.
        config: threads and formats, and a device that is this machine or an emulated core; None takes
            configs/profile/default.yaml.
        options: changes to the networks that are exported.
        plot: SVG file for a picture of one file's operators; None draws none.
        hooks: receives messages and progress.

    Raises:
        MobilezooError: the device is neither, a runtime's operators cannot be had, or `plot` is given for several
            files.
    """
    from mobilezoo.report.flamegraph import flame
    from mobilezoo_latency import operators

    config = config or load_profile_config()
    core = None if config.device.startswith("host") else _core(config)
    files = files_to_time(models, config, options, hooks)
    if plot is not None and len(files) != 1:
        raise MobilezooError(f"--plot draws one file, got {len(files)}")
    alike = len({file.name for file in files}) < len(files)
    found: dict[str, Profile] = {}
    for file in hooks.track(files, "counting" if core else "timing", len(files)):
        name = str(file) if alike else file.name
        found[name] = _count(file, core, config) if core else operators.profile_operators(file, config.threads or 1)
    if plot is not None:
        write_text(plot, flame(*next(iter(found.items()))))
    return found


def _core(config: "ProfileConfig") -> "EmulatedDevice":
    """The emulated core of a config, ready to count. Raises MobilezooError for any other device."""
    from mobilezoo_latency import load_device, load_protocol
    from mobilezoo_latency.emulator.device import EmulatedDevice

    device = load_device(config.device, config.device_overrides)
    if not isinstance(device, EmulatedDevice):
        raise MobilezooError(
            f"--ops takes this machine or an emulated core (cortex_*), not {config.device!r}: leave --device out"
        )
    device.protocol_for(load_protocol(config.tier, threads=config.threads))
    device.check()
    return device


def _count(file: Path, core: "EmulatedDevice", config: "ProfileConfig") -> "CountedProfile":
    """Operators of one file; the whole is counted too, or was before."""
    from mobilezoo_latency import load_artifact
    from mobilezoo_latency import profile as measure
    from mobilezoo_latency.emulator.layout import find_emulator
    from mobilezoo_latency.emulator.operators import count_operators
    from mobilezoo_latency.emulator.tracing import check_traceable

    artifact = load_artifact(file)
    check_traceable(find_emulator(), artifact.record.target, artifact.path.name)
    whole = measure(file, core, reuse="quiet" if config.use_cache else "none", allow_folded=config.allow_folded)
    assert whole.counts is not None
    return count_operators(core, artifact, whole.counts.cycles)


def operators_dict(found: "Mapping[str, Profile]") -> list[dict[str, Any]]:
    """Plain data, as `--json` prints it."""
    return [{"file": name, **_sums(p), "operators": [op._asdict() for op in p.operators]} for name, p in found.items()]


def _sums(profile: "Profile") -> dict[str, Any]:
    """A profile's fields with the sum over its operators."""
    return {
        **profile._asdict(),
        **{key: getattr(profile, key) for key in ("sum_ms", "sum_cycles") if hasattr(profile, key)},
    }
