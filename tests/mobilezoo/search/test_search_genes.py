"""Every operation on conditional spaces against brute force over all combinations."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilezoo.errors import ConfigError
from mobilezoo.search.genes import Gene, GeneSpace, Genome

SPACE = GeneSpace(
    [
        Gene(name="size", choices=(32, 64)),
        Gene(name="block", choices=("cn", "ds", "ir")),
        Gene(name="kernel", choices=(3, 5)),
        Gene(name="expand", choices=(3.0, 6.0), parent="block", when=("ir",)),
        Gene(name="attention", choices=("none", "se"), parent="block", when=("ds", "ir")),
        Gene(name="ratio", choices=(0.25, 0.5, 1.0), parent="attention", when=("se",)),
        Gene(name="depth", choices=(2,)),
    ]
)


def brute_force(space: GeneSpace) -> list[Genome]:
    """All subsets of genes with all values, kept where `check` accepts them: slow and without any structure."""
    found = []
    options = [[*gene.choices, None] for gene in space.genes]
    for values in itertools.product(*options):
        genome = {gene.name: v for gene, v in zip(space.genes, values, strict=True) if v is not None}
        try:
            space.check(genome)
        except ConfigError:
            continue
        found.append(genome)
    return found


ALL = brute_force(SPACE)
KEYS = {tuple(sorted(g.items())) for g in ALL}


def key(genome: Genome) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(genome.items()))


def test_enumeration_and_count_equal_brute_force() -> None:
    listed = [key(genome) for genome in SPACE.enumerate()]
    assert len(listed) == len(set(listed)) == SPACE.count() == len(ALL) == 2 * 2 * (1 + 4 + 8)
    assert set(listed) == KEYS
    assert len({SPACE.key(genome) for genome in ALL}) == len(ALL)


def test_sampling_is_uniform_over_points_and_repeats_with_its_seed() -> None:
    draws = 52 * 400
    rng = np.random.default_rng(0)
    counts = Counter(key(SPACE.sample(rng)) for _ in range(draws))
    assert set(counts) == KEYS
    expected = draws / len(ALL)
    chi_square = sum((c - expected) ** 2 / expected for c in counts.values())
    assert chi_square < 90  # 51 degrees of freedom: above 90 once in about 1,500 seeds
    assert SPACE.sample(np.random.default_rng(7)) == SPACE.sample(np.random.default_rng(7))


def differing(a: Genome, b: Genome) -> int:
    return sum(a[name] != b[name] for name in a.keys() & b.keys())


@pytest.mark.parametrize("genome", ALL)
def test_neighbors_are_all_points_one_choice_away(genome: Genome) -> None:
    listed = [key(other) for other in SPACE.neighbors(genome)]
    assert len(listed) == len(set(listed))
    assert set(listed) == {key(other) for other in ALL if differing(genome, other) == 1}


@given(st.integers(0, len(ALL) - 1), st.integers(0, 2**32))
def test_a_mutation_is_a_neighbor(index: int, seed: int) -> None:
    child = SPACE.mutate(ALL[index], np.random.default_rng(seed))
    assert key(child) in KEYS
    assert differing(ALL[index], child) == 1


@settings(max_examples=20)
@given(st.integers(0, len(ALL) - 1))
def test_mutation_reaches_every_neighbor(index: int) -> None:
    rng = np.random.default_rng(1)
    reached = {key(SPACE.mutate(ALL[index], rng)) for _ in range(600)}
    assert reached == {key(other) for other in SPACE.neighbors(ALL[index])}


@given(st.integers(0, len(ALL) - 1), st.integers(0, len(ALL) - 1), st.integers(0, 2**32))
def test_a_crossover_is_a_point_with_each_choice_from_a_parent(mother: int, father: int, seed: int) -> None:
    a, b = ALL[mother], ALL[father]
    child = SPACE.crossover(a, b, np.random.default_rng(seed))
    assert key(child) in KEYS
    assert all(value in (a.get(name), b.get(name)) for name, value in child.items())


def test_faulty_spaces_and_points_are_named() -> None:
    with pytest.raises(ConfigError, match="kernel: no choices"):
        GeneSpace([Gene(name="kernel", choices=())])
    with pytest.raises(ConfigError, match="listed twice"):
        GeneSpace([Gene(name="kernel", choices=(3, 3))])
    with pytest.raises(ConfigError, match="never active"):
        GeneSpace([Gene(name="b", choices=("ds",)), Gene(name="e", choices=(3,), parent="b", when=("ir",))])
    with pytest.raises(ConfigError, match="not defined before"):
        GeneSpace([Gene(name="e", choices=(3,), parent="b", when=("ir",))])
    with pytest.raises(ConfigError, match=r"kernel = 7: expected one of \[3, 5\]"):
        SPACE.check({"size": 32, "block": "cn", "kernel": 7, "depth": 2})
    with pytest.raises(ConfigError, match="expand means nothing while block = 'cn'"):
        SPACE.check({"size": 32, "block": "cn", "kernel": 3, "depth": 2, "expand": 3.0})
    with pytest.raises(ConfigError, match="nothing to mutate"):
        GeneSpace([Gene(name="a", choices=(1,))]).mutate({"a": 1}, np.random.default_rng(0))
