"""FaViT's tokens: both means over windows against unfolded maps, edges reflected as often as it takes."""

import pytest
import torch
from torch.nn import functional as F

from mobilezoo.layers.factorized_attention import TOKENS, WINDOW, WindowMeanAttention, places, take


def unfolded(x: torch.Tensor, step: int) -> torch.Tensor:
    """[b, c, t, w]: pixels of the windows, as the official code takes them."""
    length = step * (WINDOW - 1) + 1
    below, right = -x.shape[2] % length, -x.shape[3] % length
    x = F.pad(x, (0, right, 0, below), mode="reflect")
    return F.unfold(x, WINDOW, dilation=step, stride=length).reshape(x.shape[0], x.shape[1], TOKENS, -1)


@pytest.mark.parametrize(("size", "step"), [((14, 14), 1), ((14, 21), 2), ((28, 28), 4), ((20, 17), 1), ((30, 28), 3)])
def test_tokens_are_means_over_windows(size: tuple[int, int], step: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 12, *size)
    pixels = unfolded(x, step)
    attention = WindowMeanAttention(12, 3, step, "windows")
    torch.testing.assert_close(attention._tokens(x), pixels.mean(-1).transpose(1, 2))
    attention.mean = "official"
    by_head = pixels.reshape(2, 3, 4, TOKENS, -1).permute(0, 1, 3, 4, 2).flatten(3)
    pooled = F.adaptive_avg_pool2d(by_head, (None, 4)).transpose(1, 2).reshape(2, TOKENS, 12)
    torch.testing.assert_close(attention._tokens(x), pooled)


def test_edges_are_reflected_as_often_as_it_takes() -> None:
    assert places(3, 1) == [0, 1, 2, 1, 0, 1, 2]
    assert places(1, 4) == [0] * WINDOW
    assert places(8, 1) == [0, 1, 2, 3, 4, 5, 6, 7, 6, 5, 4, 3, 2, 1]


def test_runs_of_neighbors_are_one_slice() -> None:
    x = torch.arange(10.0).reshape(1, 1, 10, 1)
    assert take(x, 2, list(range(10))) is x
    assert take(x, 2, [3, 4, 5, 0, 9, 8]).flatten().tolist() == [3, 4, 5, 0, 9, 8]
