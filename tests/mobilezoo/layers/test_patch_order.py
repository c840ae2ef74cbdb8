"""LOOPE's order of patches: a curve through all cells, and embeddings that are sines of places on it."""

import pytest
import torch

from mobilezoo.layers.patch_order import PatchOrder, curve

GRIDS = [(14, 14), (7, 7), (1, 5), (5, 1), (6, 9), (13, 8), (16, 20)]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_curve_visits_every_cell_once_in_steps_of_one(grid: tuple[int, int]) -> None:
    steps = curve(grid, torch.zeros(1))[0, 0]
    order = steps.flatten().argsort()
    assert steps.flatten()[order].tolist() == list(range(grid[0] * grid[1]))
    cells = torch.stack([order // grid[1], order % grid[1]], dim=1)
    jumps = (cells[1:] - cells[:-1]).abs()
    assert int(jumps.max()) == 1
    assert int((jumps.sum(dim=1) > 1).sum()) <= 1  # odd sides may need one diagonal step


@torch.no_grad()
def test_embeddings_are_sines_and_cosines_of_order_plus_context() -> None:
    torch.manual_seed(0)
    layer = PatchOrder(3, 8, 4, (3, 5)).eval()
    x = torch.randn(2, 3, 12, 20)
    context = layer._context(x, 3, 5)
    assert float(context.abs().max()) < 1.0
    assert not torch.allclose(context[0], context[1])
    place = curve((3, 5), x) + context
    speeds = 10000.0 ** (-torch.arange(0, 8, 2) / 8).reshape(1, -1, 1, 1)
    expected = torch.cat([(place * speeds).sin(), (place * speeds).cos()], dim=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_maps_of_another_size_get_places_of_their_own() -> None:
    layer = PatchOrder(3, 8, 4, (3, 5)).eval()
    assert layer(torch.randn(1, 3, 19, 30)).shape == (1, 8, 4, 7)
