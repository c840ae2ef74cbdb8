"""Neighbourhoods: the deployment form is the gathered one on maps of any size, and both are the definition."""

import pytest
import torch

from mobilezoo.layers.neighborhood_attention import NeighborhoodAttention, Tiles, neighbors

SIZES = [(7, 7), (14, 14), (21, 28), (17, 30), (15, 9), (5, 23), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "dilation"), [(7, 1), (3, 1), (3, 2), (3, 5)])
def test_tiles_give_what_gathered_keys_give(size: tuple[int, int], kernel: int, dilation: int) -> None:
    torch.manual_seed(0)
    plain = NeighborhoodAttention(16, 2, kernel, dilation)
    torch.nn.init.normal_(plain.table)
    x = torch.randn(2, 16, *size)
    with torch.no_grad():
        torch.testing.assert_close(plain.fuse()(x), plain(x), rtol=1e-4, atol=1e-5)


def test_windows_stay_inside_and_keep_their_size() -> None:
    keys, steps = neighbors(11, 3, 2, torch.device("cpu"))
    assert keys[0].tolist() == keys[2].tolist() == [0, 2, 4]
    assert keys[4].tolist() == [2, 4, 6]
    assert keys[10].tolist() == [6, 8, 10]
    assert keys[1].tolist() == [1, 3, 5]
    assert keys[9].tolist() == [5, 7, 9]
    assert steps[0].tolist() == [2, 3, 4]
    assert steps[4].tolist() == [1, 2, 3]
    assert steps[10].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("side", "count", "keys"), [(7, 1, 7), (14, 1, 14), (28, 4, 13), (56, 8, 13), (30, 5, 13)])
def test_a_tile_holds_every_key_that_its_queries_see(side: int, count: int, keys: int) -> None:
    tiles = Tiles(side, 7)
    assert (tiles.count, tiles.keys) == (count, keys)
    _, seen = tiles.steps(torch.device("cpu"))
    assert bool((seen.sum(-1) == 7).all())
