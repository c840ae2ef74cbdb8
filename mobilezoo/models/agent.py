"""Agent Attention on the plans of DeiT and PVT: a few agents gather from the keys and hand on to the queries.

Paper: "Agent Attention: On the Integration of Softmax and Linear Attention", ECCV 2024, arXiv:2312.08874 (section 3.2,
equation 5). Official code: LeapLabTHU/Agent-Attention; its repository states no license for networks and weights.

Where it differs from the official code, and why: sequences are maps of one column and linear layers 1×1 convolutions,
so that phones keep channels innermost; biases and positions are resized to the map at hand, which for the published
resolution is what the official code computes, and folded into constants at export.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from mobilezoo.layers.agent_attention import AgentAttention
from mobilezoo.models.transformer import TransformerConfig, build_transformer, rename_official


class Config(TransformerConfig):
    """A transformer of agent attention as data."""

    family: Literal["agent"]
    agents: tuple[int, ...] = Field(description="agent tokens per stage, a square number each")

    @model_validator(mode="after")
    def _agents_are_maps(self) -> Self:
        if len(self.agents) != len(self.widths):
            raise ValueError(f"agents: one value per stage, {len(self.widths)} as in widths")
        if any(count < 1 or round(count**0.5) ** 2 != count for count in self.agents):
            raise ValueError(f"agents: square numbers, got {self.agents}")
        return self


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a transformer whose blocks attend through agents; see `build_transformer`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """

    def attend(stage: int) -> nn.Module:
        width, heads, agents = config.widths[stage], config.heads[stage], config.agents[stage]
        return AgentAttention(width, heads, agents, config.grid(stage), config.class_token)

    return build_transformer(config, attend, **kwargs)


_BIASES = {
    "an_bias": "key_bias.coarse",
    "ah_bias": "key_bias.rows",
    "aw_bias": "key_bias.columns",
    "ac_bias": "key_bias.token",
    "na_bias": "query_bias.coarse",
    "ha_bias": "query_bias.rows",
    "wa_bias": "query_bias.columns",
    "ca_bias": "query_bias.token",
}


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`agent_deit_*`, `agent_pvt_*`) state dict; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    renamed = rename_official(state_dict)
    if renamed is None:
        return dict(state_dict)
    found = {}
    for key, value in renamed.items():
        owner, _, name = key.rpartition(".")
        if name in _BIASES:
            found[f"{owner}.{_BIASES[name]}"] = _agents_first(name, value)
        else:
            found[key.replace(".attn.dwc.", ".attn.local.")] = value
    return found


def _agents_first(name: str, bias: Tensor) -> Tensor:
    """[h, a, ...] of an official bias, which for queries has the agents last and often a batch axis in front."""
    if name in ("an_bias", "na_bias"):
        return bias
    bias = bias.squeeze(0)
    return bias.movedim(-1, 1) if name in ("ha_bias", "wa_bias", "ca_bias") else bias
