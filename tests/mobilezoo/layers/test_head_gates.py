"""Gates of heads: the strongest are those that sorting finds; offsets are those of pooled positions."""

import copy

import pytest
import torch
from torch.nn import functional as F

from mobilezoo.layers.head_choice import HeadGates, strongest, unbalance
from mobilezoo.layers.head_gates import OffsetBias, neighbors_inside, offsets


@pytest.mark.parametrize(("heads", "count"), [(6, 4), (20, 12), (3, 3), (5, 1)])
def test_the_strongest_heads_are_those_that_sorting_finds(heads: int, count: int) -> None:
    gates = torch.randn(2, heads, 9, 7, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    kept = torch.zeros_like(gates).scatter(1, gates.topk(count, dim=1).indices, 1.0)
    assert torch.equal(strongest(gates, count), kept)


def test_routed_gates_add_up_to_what_heads_without_gates_weigh() -> None:
    torch.manual_seed(0)
    gates = HeadGates(16, 8, shared=2, routed=4)(torch.randn(2, 16, 5, 3))
    assert gates.shape == (2, 8, 5, 3)
    balance = gates[:, :2].sum(1) / 2 + gates[:, 2:].sum(1) / 4
    torch.testing.assert_close(balance, torch.full_like(balance, 2.0))
    assert bool(((gates[:, 2:] == 0).sum(1) == 2).all())


def test_unbalance_is_the_official_loss_and_least_where_heads_count_alike() -> None:
    gates = torch.randn(2, 6, 5, 3, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    taken = strongest(gates, 4)
    rows = gates.permute(0, 2, 3, 1).reshape(-1, 6)
    mask = F.one_hot(rows.topk(4, dim=1).indices, 6).sum(dim=1).float()
    torch.testing.assert_close(unbalance(gates, taken), (rows.mean(0) * mask.mean(0)).mean() * 36)
    even = torch.full((1, 6, 1, 1), 1 / 6)
    assert float(unbalance(even, torch.full_like(even, 4 / 6))) == pytest.approx(4)
    fixed = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0, 0.0]).reshape(1, 6, 1, 1)
    assert float(unbalance(fixed, strongest(fixed, 2))) > 4


def test_a_batch_in_training_leaves_its_unbalance_but_copies_do_not_have_it() -> None:
    layer = HeadGates(16, 8, shared=2, routed=4)
    layer.eval()(torch.randn(1, 16, 5, 3))
    assert layer.unbalance is None
    layer.train()(torch.randn(1, 16, 5, 3))
    assert layer.unbalance is not None
    assert layer.unbalance.requires_grad
    assert copy.deepcopy(layer).unbalance is None


@pytest.mark.parametrize(("shared", "routed"), [(1, 4), (2, 7), (4, 0)])
def test_impossible_shares_of_heads_are_refused(shared: int, routed: int) -> None:
    with pytest.raises(ValueError, match="heads need 2 shared ones or more"):
        HeadGates(16, 8, shared, routed)


@pytest.mark.parametrize(("queries", "keys"), [(14, 7), (7, 7), (10, 3), (1, 1)])
def test_offsets_are_taken_from_the_middle_of_what_a_key_pools(queries: int, keys: int) -> None:
    places = F.adaptive_avg_pool1d(torch.arange(queries, dtype=torch.float32)[None, None], keys)[0, 0]
    values, index = offsets(queries, keys)
    found = torch.tensor(values)[torch.tensor(index)].reshape(queries, keys)
    torch.testing.assert_close(found, torch.arange(queries)[:, None] - places)
    assert len(set(values)) == len(values)


def test_a_bias_depends_on_the_offset_alone() -> None:
    torch.manual_seed(0)
    bias = OffsetBias(3, (4, 5))((4, 5), (4, 5)).reshape(3, 4, 5, 4, 5)
    torch.testing.assert_close(bias[:, 1:, 1:, 1:, 1:], bias[:, :-1, :-1, :-1, :-1])
    assert not torch.allclose(bias[:, 0, 0, 1, 0], bias[:, 0, 0, 0, 1])


def test_neighbors_outside_the_map_are_known() -> None:
    inside = neighbors_inside((3, 4), torch.device("cpu")).sum(dim=1).reshape(3, 4)
    assert inside.tolist() == [[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]]
