"""Names of published weights: `shvit_s1`, `shvit_s1.timm_in1k` → the record in a model's YAML."""

import fnmatch
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict

from mobilezoo.config import config_names, config_path, read_yaml
from mobilezoo.errors import ConfigError, near_names
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.weight_file import WeightFile
from mobilezoo.models.yaml_files import model_file
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size


class WeightsError(ConfigError):
    """Published weights that are not there, cannot be fetched, or are not what they were."""


@dataclass(frozen=True)
class Published:
    """One published file of one network."""

    config: ModelConfig
    tag: str
    file: WeightFile

    @property
    def name(self) -> str:
        """As timm writes it: network.tag."""
        return f"{self.config.name}.{self.tag}"

    @property
    def resolution(self) -> Size:
        """(height, width) of the images that it was scored on."""
        return self.file.resolution or self.config.resolution

    def preprocessing(self) -> Preprocessing:
        """How the images that it was scored on became its input."""
        return self.file.prepared(self.config.preprocessing())


def choose(config: ModelConfig, tag: str | bool = True) -> Published:
    """Choose a published file of a network.

    Args:
        config: the network, of any family.
        tag: its tag in the YAML; True for the first.

    Raises:
        WeightsError: the network has none, or none of this tag; which there are is in the message.
    """
    known = config.weights
    if not known:
        raise WeightsError(f"{config.name}: its weights were never published{_of_its_family(config)}")
    if isinstance(tag, bool):
        tag = next(iter(known))
    if tag not in known:
        near = near_names(tag, known, 3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise WeightsError(f"{config.name} has no weights tagged {tag!r}: {hint}")
    return Published(config, tag, known[tag])


class _Described(ModelConfig):
    """A model YAML without its family's keys, so that its weights can be listed before torch is imported."""

    model_config = ConfigDict(extra="ignore")


def described(model: str | Path) -> ModelConfig:
    """What every family's config has of a model by its name, an alias or its YAML. Raises ConfigError."""
    path = model_file(model)
    return _Described.parse({**read_yaml(path), "name": path.stem}, str(path))


def split_tag(name: str) -> tuple[str, str | bool]:
    """`shvit_s1.in1k` → its network and tag; without a tag, True stands for the first one."""
    if name.endswith((".yaml", ".yml")):
        return name, True
    network, _, tag = name.partition(".")
    return network, tag or True


def all_published(pattern: str = "*") -> list[Published]:
    """Every published file of the networks whose names match a shell pattern, by name; a pattern may hold a tag."""
    network, _, tag = pattern.partition(".")
    names = [name for name in fnmatch.filter(config_names("models"), network) if "\nweights:" in _text(name)]
    found = [choose(config, t) for config in map(described, names) for t in config.weights]
    return [one for one in found if fnmatch.fnmatch(one.tag, tag or "*")]


def _text(name: str) -> str:
    """A shipped YAML as it is written: looking for a word is fifty times as fast as reading all of them."""
    path = config_path("models", name)
    return path.read_text(encoding="utf-8") if path is not None else ""


def _of_its_family(config: ModelConfig) -> str:
    written = f"\nfamily: {config.family}\n"
    others = [name for name in config_names("models") if written in (text := _text(name)) and "\nweights:" in text]
    if not others:
        return f", nor are those of any other {config.family}: bring your own by checkpoint=PATH"
    near = near_names(config.name, others, 6) or others[:6]
    return f"; there are some of {', '.join(near)}" + (" and others" if len(others) > len(near) else "")
