"""The factorized hierarchical space of MnasNet (Tan et al. 2019, arXiv:1807.11626, section 4.1), as data.

A network is a fixed sequence of stages; each stage repeats one block, and its choices are independent of the other
stages'. The paper lists per stage: convolution type {conv, dconv, MBConv}, kernel {3, 5}, SE ratio {0, 0.25}, skip
{pool, identity, none}, filters {0.75, 1, 1.25} x MobileNetV2's and layers {0, +-1}. What is ours, and why:

- `expansion` is a choice here (the paper uses expansions 1, 3 and 6 without listing them, so its space is incomplete);
- `width` is given in channels (MnasNet-A1's 112 filters are none of 0.75, 1, 1.25 x 96);
- `attention` replaces the SE ratio, so that other attention layers compete with SE;
- a pooled skip is left out: neither the official network code nor timm's blocks have one;
- a whole stage may consist of another family's blocks (`shvit`, `cas_vit`, `agent`, ...: MIXERS), which have their
  own kernels, expansions and residuals: only width and depth are choices of such a stage.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import product
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError
from mobilezoo.models.notation import LEAST_WIDTHS
from mobilezoo.search.genes import Gene, GeneSpace, Genome
from mobilezoo.search.stages import ATTENDING, CONVOLVING, EXPANDING, KERNELS, MIXERS, PLAIN, Block, Stage, stage_cost

SPACE_VERSION = 1
"""Incremented when the same YAML describes other networks: a study of another version is not continued."""


class Point(Record):
    """One network of a space."""

    resolution: int
    stages: tuple[Stage, ...]


class StageSpace(Record):
    """Alternatives of one stage."""

    stride: Literal[1, 2] = Field(description="stride of the stage's first block")
    block: tuple[Block, ...] = Field(
        default=("ir",), description="cn, ds, er, ir, or a mixer: shvit, cas_vit, emov2, mobilemamba, agent, nat, ..."
    )
    kernel: tuple[int, ...] = Field(default=(3, 5), description="1, 3, 5, 7 or 9; not of mixers")
    expansion: tuple[float, ...] = Field(default=(), description="hidden over input channels of er and ir blocks")
    attention: tuple[str, ...] = Field(
        default=("none",), description="none, se, coord, halo, agent, ...: any the zoo knows; not in cn"
    )
    skip: tuple[bool, ...] = Field(default=(True,), description="residual where shapes allow one; mixers have theirs")
    width: tuple[int, ...] = Field(description="output channels; of mixers multiples of 8")
    depth: tuple[int, ...] = Field(description="number of blocks; mixers come after one block that strides")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("block", "kernel", "attention", "skip", "width", "depth"):
            if not getattr(self, name):
                raise ValueError(f"at least one choice for {name!r}: the space is empty")
        # Values outside of these ranges give blocks that cannot be built.
        if any(k not in KERNELS for k in self.kernel):
            raise ValueError(f"kernel sizes out of {list(KERNELS)}, got {list(self.kernel)}")
        if any(c < 1 for c in self.width) or any(d < 1 for d in self.depth) or any(e < 1 for e in self.expansion):
            raise ValueError("width, depth and expansion of at least 1")
        # An expanding block needs ratios; without one they would be a gene without effect, counted in the space's size.
        expanding = [block for block in self.block if block in EXPANDING]
        if expanding and not self.expansion:
            raise ValueError(f"ratios in 'expansion' for block {expanding[0]!r}")
        if not expanding and self.expansion:
            raise ValueError(f"no 'expansion': none of the blocks {list(self.block)} expands")
        # Attention has an effect in attending blocks only, for the same reason.
        if not set(self.block) & set(ATTENDING) and self.attention != ("none",):
            raise ValueError(f"no 'attention': none of the blocks {list(self.block)} has any")
        # Mixers split their channels into heads of at least eight.
        odd = [width for width in self.width if width % 8]
        if odd and set(self.block) & set(MIXERS):
            raise ValueError(f"widths of a stage with mixers that are multiples of 8, got {odd[0]}")
        for block in set(self.block) & set(LEAST_WIDTHS):
            if min(self.width) < LEAST_WIDTHS[block]:
                raise ValueError(f"widths from {LEAST_WIDTHS[block]} for block {block!r}, got {min(self.width)}")
        return self


class Space(Record):
    """A search space: alternatives per stage, and the parts that all its networks share."""

    resolution: tuple[int, ...] = Field(description="input heights and widths in pixels")
    stem: int = Field(default=32, gt=0, description="channels of the 3x3 stride-2 stem")
    head: int = Field(default=1280, gt=0, description="channels of the last 1x1 convolution")
    network: dict[str, Any] = Field(
        default={}, description="keys of an mbconv model YAML that all networks share: activation, padding, mean, ..."
    )
    stages: tuple[StageSpace, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.resolution or not self.stages:
            raise ValueError("at least one resolution and one stage: the space is empty")
        # The smallest input must leave one pixel after all strides, the stem's 2 included.
        stride = 2 * math.prod(stage.stride for stage in self.stages)
        small = [r for r in self.resolution if r < stride]
        if small:
            raise ValueError(f"resolutions of at least the total stride {stride}, got {small[0]}")
        try:
            self.genes  # noqa: B018  builds the gene table, which checks the choices
        except ConfigError as error:
            raise ValueError(f"consistent choices ({error})") from None
        return self

    @cached_property
    def genes(self) -> GeneSpace:
        """The space as genes: `resolution`, then `s0.block`, `s0.kernel`, ... per stage."""
        genes = [Gene(name="resolution", choices=self.resolution)]
        for number, stage in enumerate(self.stages):
            at = f"s{number}."
            genes.append(Gene(name=at + "block", choices=stage.block))
            convolves = set(stage.block) & set(CONVOLVING)
            # Only where there are mixers does a kernel depend on the block, so that other spaces keep their genes.
            of_block: dict[str, Any] = (
                {"parent": at + "block", "when": CONVOLVING} if set(stage.block) - convolves else {}
            )
            if convolves:
                genes.append(Gene(name=at + "kernel", choices=stage.kernel, **of_block))
            if stage.expansion:
                genes.append(Gene(name=at + "expansion", choices=stage.expansion, parent=at + "block", when=EXPANDING))
            if set(stage.block) & set(ATTENDING):
                genes.append(Gene(name=at + "attention", choices=stage.attention, parent=at + "block", when=ATTENDING))
            if convolves:
                genes.append(Gene(name=at + "skip", choices=stage.skip, **of_block))
            genes.append(Gene(name=at + "width", choices=stage.width))
            genes.append(Gene(name=at + "depth", choices=stage.depth))
        return GeneSpace(genes)

    @property
    def sha256(self) -> str:
        """Identity of the space: hash of its choices and of `SPACE_VERSION`."""
        text = json.dumps({"version": SPACE_VERSION, **self.model_dump(mode="json")}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def point(self, genome: Mapping[str, Any]) -> Point:
        """Returns the network of a genome. Raises ConfigError for a genome of another space."""
        self.genes.check(genome)
        stages = []
        for number, stage in enumerate(self.stages):
            values = {name: genome[key] for name in Stage.model_fields if (key := f"s{number}.{name}") in genome}
            stages.append(Stage(**{**PLAIN, "stride": stage.stride, **values}))
        return Point(resolution=int(genome["resolution"]), stages=tuple(stages))

    def genome(self, point: Point) -> Genome:
        """Returns the genome of a network. Raises ConfigError naming the stage and the value if it is no point."""
        if len(point.stages) != len(self.stages):
            raise ConfigError(f"not a point of the space: {len(point.stages)} stages, the space has {len(self.stages)}")
        genome: Genome = {"resolution": point.resolution}
        for number, (stage, choices) in enumerate(zip(point.stages, self.stages, strict=True)):
            if stage.stride != choices.stride:
                raise ConfigError(f"not a point of the space: stage {number} has stride {stage.stride}")
            _check_canonical(number, stage)
            for name in ("block", "width", "depth", *(("kernel", "skip") if stage.block in CONVOLVING else ())):
                genome[f"s{number}.{name}"] = getattr(stage, name)
            if stage.block in EXPANDING:
                genome[f"s{number}.expansion"] = stage.expansion
            if stage.block in ATTENDING:
                genome[f"s{number}.attention"] = stage.attention
        try:
            self.genes.check(genome)
        except ConfigError as error:
            raise ConfigError(f"not a point of the space: {error}") from None
        return genome

    def __contains__(self, point: Point) -> bool:
        try:
            self.genome(point)
        except ConfigError:
            return False
        return True

    def count(self) -> int:
        """Returns the exact number of networks."""
        return self.genes.count()

    def points(self) -> Iterator[Point]:
        """Generates every network once; for small spaces."""
        return (self.point(genome) for genome in self.genes.enumerate())

    def sample(self, rng: np.random.Generator) -> Point:
        """Draws a network, uniformly over all."""
        return self.point(self.genes.sample(rng))

    def mutate(self, point: Point, rng: np.random.Generator) -> Point:
        """Changes one choice of a network.

        Args:
            point: a network of the space.
            rng: source of randomness.

        Raises:
            ConfigError: the space has a single network.
        """
        return self.point(self.genes.mutate(self.genome(point), rng))

    def crossover(self, mother: Point, father: Point, rng: np.random.Generator) -> Point:
        """Draws each choice from one of two networks.

        Args:
            mother: a network of the space.
            father: a network of the space.
            rng: source of randomness.
        """
        return self.point(self.genes.crossover(self.genome(mother), self.genome(father), rng))

    def neighbors(self, point: Point) -> Iterator[Point]:
        """Generates every network that differs in one choice."""
        return (self.point(genome) for genome in self.genes.neighbors(self.genome(point)))

    def smallest(self) -> Point:
        """Finds the network with the fewest multiply-adds by `stage_cost`, which is expected to be the fastest.

        Dynamic programming over the stages: since a narrow stage makes its successor cheaper, the cheapest prefix is
        kept for each output width. The cost of mixers is approximate.
        """
        # Output width of a prefix → its cost and stages. Area is relative to the stem's output.
        best: dict[int, tuple[float, tuple[Stage, ...]]] = {self.stem: (0.0, ())}
        area = 1.0
        for choices in self.stages:
            grown: dict[int, tuple[float, tuple[Stage, ...]]] = {}
            for in_channels, (cost, stages) in best.items():
                for stage in _alternatives(choices):
                    total = cost + stage_cost(stage, in_channels, area)
                    if stage.width not in grown or total < grown[stage.width][0]:
                        grown[stage.width] = (total, (*stages, stage))
            best, area = grown, area / choices.stride**2
        # The head's cost depends on the last width, so the prefixes are compared with it.
        width = min(best, key=lambda w: best[w][0] + area * w * self.head)
        return Point(resolution=min(self.resolution), stages=best[width][1])


def _alternatives(choices: StageSpace) -> Iterator[Stage]:
    """Generates the cheapest stage of each block type and width."""
    attention = "none" if "none" in choices.attention else choices.attention[0]
    for block, width in product(choices.block, choices.width):
        yield Stage(
            block=block,
            kernel=min(choices.kernel) if block in CONVOLVING else PLAIN["kernel"],
            stride=choices.stride,
            expansion=min(choices.expansion) if block in EXPANDING else 1.0,
            attention=attention if block in ATTENDING else "none",
            skip=choices.skip[0] if block in CONVOLVING else PLAIN["skip"],
            width=width,
            depth=min(choices.depth),
        )


def _check_canonical(number: int, stage: Stage) -> None:
    if stage.block not in EXPANDING and stage.expansion != 1:
        raise ConfigError(f"not a point of the space: stage {number}: a {stage.block} block has no expansion")
    if stage.block not in ATTENDING and stage.attention != "none":
        raise ConfigError(f"not a point of the space: stage {number}: a {stage.block} block has no attention")
    if stage.block in MIXERS and (stage.kernel, stage.skip) != (PLAIN["kernel"], PLAIN["skip"]):
        raise ConfigError(f"not a point of the space: stage {number}: {stage.block} has no choice of kernel or skip")
