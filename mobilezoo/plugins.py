"""Packages that add to mobilezoo, found by the Python entry point group `mobilezoo.plugins`.

A plugin's `pyproject.toml` names one `Plugin`, which lists what the package adds as text, so that nothing of it is
imported before it is used:

    [project.entry-points."mobilezoo.plugins"]
    my_package = "my_package:PLUGIN"

A plugin that cannot be imported is left out with one line on the log; the others work on.
"""

import importlib
import logging
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from mobilezoo.errors import first_line

GROUP = "mobilezoo.plugins"
KINDS = ("families", "attention", "targets", "devices", "engines", "rewards", "data_sources", "passes")
"""What a plugin can add: the fields of `Plugin` that map names to places."""

log = logging.getLogger("mobilezoo")


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """Additions of one package: each field maps a new name to its place, `package.module:attribute`."""

    families: dict[str, str] | None = None
    """Network families: a module or object with `Config`, `build` and `from_official` (see `mobilezoo.models.base`)."""
    attention: dict[str, str] | None = None
    """Attention layers: a callable that makes a module for a number of channels."""
    targets: dict[str, str] | None = None
    """Export targets: subclasses of `mobilezoo_export.contract.Exporter`."""
    devices: dict[str, str] | None = None
    """Kinds of devices: subclasses of `mobilezoo_latency.contract.Device`."""
    engines: dict[str, str] | None = None
    """Search engines (see `mobilezoo.search.engines`)."""
    rewards: dict[str, str] | None = None
    """Rewards of a search (see `mobilezoo.search.objective`)."""
    data_sources: dict[str, str] | None = None
    """Data sources: a callable (DataConfig, train) → `mobilezoo.data.datasets.ImageData`."""
    passes: dict[str, str] | None = None
    """Graph passes: a function `run(graph_module) -> int`, the number of places it changed."""
    configs: str | None = None
    """A folder of YAMLs laid out like `configs/`, found by bare name."""

    def places(self, kind: str) -> dict[str, str]:
        """Returns name → place of one of `KINDS`."""
        return dict(getattr(self, kind) or {})


@dataclass(frozen=True)
class InstalledPlugin:
    """An installed plugin; `fault` is the reason why it is left out, or empty."""

    name: str
    package: str
    """Distribution and its version."""
    plugin: Plugin = Plugin()
    fault: str = ""


@cache
def installed_plugins() -> tuple[InstalledPlugin, ...]:
    """Loads every installed plugin, sorted by name; one that cannot be used has a `fault` and is logged once."""
    points = sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))
    return tuple(_load(point) for point in points)


def config_folders() -> tuple[Path, ...]:
    """Returns the folders of YAMLs of all plugins."""
    folders = (found.plugin.configs for found in installed_plugins())
    return tuple(Path(folder) for folder in folders if folder)


def faults() -> str:
    """Lists the plugins that were left out, for the message about an unknown name; empty where there are none."""
    out = [f"plugin {found.name!r} was left out: {found.fault}" for found in installed_plugins() if found.fault]
    return "; ".join(out)


def resolve(place: str) -> object:
    """Imports the object at `package.module:attribute`, or the module where no attribute is named.

    Raises:
        ImportError: the module cannot be imported.
        AttributeError: the module has no such attribute.
        Exception: anything that the module raises while it is imported.
    """
    module, _, attribute = place.partition(":")
    found: object = importlib.import_module(module)
    for name in filter(None, attribute.split(".")):
        found = getattr(found, name)
    return found


def _load(point: EntryPoint) -> InstalledPlugin:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown package"
    try:
        plugin = resolve(point.value)
        fault = _malformed(plugin) if isinstance(plugin, Plugin) else "is no mobilezoo.plugins.Plugin"
        fault = fault and f"{point.value} {fault}"
    except (Exception, SystemExit) as error:  # somebody else's module may raise anything
        fault = f"{point.value}: {type(error).__name__}: {first_line(error)}"
    if fault:
        log.warning("plugin %r of %s is left out: %s", point.name, package, fault)
        return InstalledPlugin(point.name, package, fault=fault)
    assert isinstance(plugin, Plugin)
    return InstalledPlugin(point.name, package, plugin)


def _malformed(plugin: Plugin) -> str:
    """Describes the fault of a plugin's fields; empty where there is none."""
    for kind in KINDS:
        names = getattr(plugin, kind)
        if names is not None and not (isinstance(names, dict) and all(map(_is_text, [*names, *names.values()]))):
            return f"has {kind} that do not map names to places: {{'name': 'package.module:attribute'}}"
    return "" if plugin.configs is None or _is_text(plugin.configs) else "has configs that name no folder"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
