"""The YAML behind a network's name, alias or path."""

from pathlib import Path

from mobilezoo.config import config_names, config_path, find_config, read_yaml
from mobilezoo.errors import ConfigError, UnknownNameError


def model_file(model: str | Path) -> Path:
    """Find the YAML behind a name, an official alias, or its own path. Raises ConfigError, UnknownNameError."""
    try:
        return find_config("models", model)
    except UnknownNameError:
        if Path(model).expanduser().exists():
            raise ConfigError(_no_network(Path(model).expanduser())) from None
        return _find_alias(str(model))


def _no_network(path: Path) -> str:
    what = "folder" if path.is_dir() else "file"
    return (
        f"{str(path)!r} is a {what}, and no network's YAML: name a network (see `mobilezoo list`), its YAML or "
        "timm:NAME; exported files go to eval, predict and profile, checkpoints to --checkpoint"
    )


def _find_alias(alias: str) -> Path:
    known = {}
    for name in config_names("models"):
        path = config_path("models", name)
        assert path is not None
        known[name] = path
        for other in read_yaml(path).get("aliases", ()):
            known[other] = path
    if alias in known:
        return known[alias]
    raise UnknownNameError("model", alias, known)
