"""DiNAT-Mini, of which there is no reference output: NAT-Mini with every other block's neighbours apart."""

import torch

from mobilezoo.layers.neighborhood_attention import NeighborhoodAttention
from mobilezoo.models import create_model, nat

OFFICIAL = ((1, 8, 1), (1, 4, 1, 4), (1, 2, 1, 2, 1, 2), (1, 1, 1, 1, 1))
"""Dilations by stage and block: `dilations` of dinat_mini in the official classification/dinat.py."""
PARAMETERS = 19_984_174
"""Of nat_mini, whose layers it shares."""


def test_dilations_and_parameters_are_the_official_ones() -> None:
    model = create_model("dinat_mini")
    assert isinstance(model, nat.Nat)
    found = tuple(tuple(block.attn.dilation for block in stage.blocks) for stage in model.stages)  # type: ignore[union-attr]
    assert found == OFFICIAL
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS


@torch.no_grad()
def test_a_dilated_query_sees_neighbours_that_many_steps_away_and_no_others() -> None:
    torch.manual_seed(0)
    layer = NeighborhoodAttention(8, 2, kernel=3, dilation=2)
    x = torch.randn(1, 8, 9, 9)
    before = layer(x)[0, :, 4, 4]
    for row in range(9):
        for column in range(9):
            other = x.clone()
            other[0, :, row, column] += 1.0
            seen = row in (2, 4, 6) and column in (2, 4, 6)
            assert torch.equal(layer(other)[0, :, 4, 4], before) is not seen
