"""`mobilezoo plugins`: what installed packages add, and whether each thing can be used."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.errors import ConfigError

if TYPE_CHECKING:
    from mobilezoo.plugins import InstalledPlugin
    from mobilezoo.registry import Registry

REGISTRIES = {
    "families": "mobilezoo.models.base:FAMILIES",
    "attention": "mobilezoo.layers.attention:ATTENTION",
    "targets": "mobilezoo_export.registry:TARGETS",
    "devices": "mobilezoo_latency.registry:DEVICES",
    "engines": "mobilezoo.search.engines:ENGINES",
    "rewards": "mobilezoo.search.objective:REWARDS",
    "data_sources": "mobilezoo.data.sources:SOURCES",
    "passes": "mobilezoo_export.passes:PASSES",
}
"""Field of `Plugin` → its table, imported only where a plugin adds to it."""


@dataclass(frozen=True)
class PluginRow:
    """One thing that a plugin adds, or a plugin that could not be read."""

    plugin: str
    package: str
    """Distribution and its version."""
    kind: str = ""
    name: str = ""
    place: str = ""
    """`package.module:attribute`, or a folder of configs."""
    state: str = "ok"
    """`ok`, or in one line why it cannot be used."""


def plugin_rows() -> list[dict[str, Any]]:
    """One plain record per thing that a plugin adds; a plugin that failed is one record with its reason."""
    from mobilezoo.plugins import installed_plugins

    return [asdict(row) for found in installed_plugins() for row in _rows(found)]


def _rows(found: "InstalledPlugin") -> list[PluginRow]:
    if found.fault:
        return [PluginRow(found.name, found.package, state=found.fault)]
    rows = []
    for kind in REGISTRIES:
        for name, place in found.plugin.places(kind).items():
            rows.append(PluginRow(found.name, found.package, kind, name, place, _state(kind, name)))
    if found.plugin.configs:
        rows += _config_rows(found, Path(found.plugin.configs))
    return rows or [PluginRow(found.name, found.package, state="adds nothing")]


def _config_rows(found: "InstalledPlugin", folder: Path) -> list[PluginRow]:
    """One row per YAML of the plugin's folder."""
    files = sorted(folder.glob("*/*.yaml")) if folder.is_dir() else []
    kind = "configs"
    if not files:
        state = "holds no KIND/NAME.yaml" if folder.is_dir() else "no such folder"
        return [PluginRow(found.name, found.package, kind, "", str(folder), state)]
    return [PluginRow(found.name, found.package, f"{kind}/{f.parent.name}", f.stem, str(f)) for f in files]


def _state(kind: str, name: str) -> str:
    from mobilezoo.plugins import resolve

    registry: Registry[Any] = resolve(REGISTRIES[kind])  # type: ignore[assignment]
    try:
        registry.load(name)
    except ConfigError as error:
        return str(error)
    return "ok"
