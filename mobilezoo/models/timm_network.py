"""Any network of timm's registry as a config of ours, named `timm:NAME`; NAME may have a tag (`resnet18.a1_in1k`).

Source: the installed timm (Apache-2.0). Structure and weights are timm's; only the preparation of images is read from
its pretrained configuration.
"""

from typing import Any, Literal, Self

from pydantic import Field
from torch import Tensor, nn

from mobilezoo.errors import ConfigError, MobilezooError, UnknownNameError, first_line
from mobilezoo.models.base import TIMM, ModelConfig
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size


class Config(ModelConfig):
    """A network by its name in timm."""

    family: Literal["timm"]
    architecture: str = Field(description="timm's name, with or without a pretrained tag")
    fixed_size: bool = Field(default=False, description="built for `resolution` and no other")

    def built_for(self, resolution: Size) -> Self:
        return self.model_copy(update={"resolution": resolution})


def config_data(name: str) -> dict[str, Any]:
    """`timm:NAME` as a model YAML would have it. Raises UnknownNameError, ConfigError."""
    import timm

    architecture = name.removeprefix(TIMM)
    if not timm.is_model(architecture):
        raise UnknownNameError("timm model", architecture, timm.list_models())
    try:
        described = timm.get_pretrained_cfg(architecture)
    except RuntimeError as error:  # a tag that it has not
        raise ConfigError(f"{name}: {error}") from None
    known = described.to_dict() if described else {}
    _, *size = known.get("input_size") or (3, 224, 224)
    return {
        "family": "timm",
        "architecture": architecture,
        "resolution": size,
        "fixed_size": bool(known.get("fixed_input_size", False)),
        **Preprocessing.from_timm(known).to_timm(),
    }


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a network with timm's own `create_model`.

    Args:
        config: the architecture.
        kwargs: every argument of `timm.create_model`, `pretrained` included.

    Raises:
        ConfigError: timm cannot build it with these arguments, or cannot load its weights.
    """
    import timm

    if config.fixed_size:
        kwargs.setdefault("img_size", config.resolution)
    try:
        network: nn.Module = timm.create_model(config.architecture, **kwargs)
    except MobilezooError:  # the zoo's own under timm's name
        raise
    except Exception as error:  # constructors and downloads raise whatever they raise
        what = "its pretrained weights cannot be loaded" if kwargs.get("pretrained") else "it cannot be built so"
        raise ConfigError(f"{config.name}: {what}: {type(error).__name__}: {first_line(error)}") from error
    return network


def from_official(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state dict itself: files of timm's networks have timm's names.

    Args:
        state_dict: tensors by timm's names.
        model: unused.
    """
    return state_dict
