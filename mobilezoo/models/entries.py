"""Every network that a latency table may hold, with what is known of it: those of the zoo, and timm's beside them."""

import re
from functools import lru_cache

from mobilezoo.config import Record
from mobilezoo.models.base import TIMM
from mobilezoo.models.latency_table import read_latencies
from mobilezoo.models.table import read_table
from mobilezoo.resolution import written

PERMISSIVE = re.compile(r"(MIT|Apache-2\.0|BSD-[23]-Clause|Clear BSD|ISC|CC0)\b", re.IGNORECASE)
"""How licenses begin that let anybody use the weights for anything, on naming their authors."""
MAPS = 3
"""Feature maps of different sizes that detection and segmentation heads want."""


class Entry(Record):
    """One network."""

    name: str
    """A name of the zoo, or `timm:NAME.TAG`."""
    family: str
    resolution: int | str
    params: int
    macs: int
    top1: float | None = None
    """Highest published ImageNet-1k top-1 in percent."""
    distilled: bool = False
    """Whether that was reached with a teacher."""
    source: str = ""
    license: str = ""
    """Of the weights, as published."""
    strides: tuple[int, ...] | None = None
    """Input pixels per pixel of each feature map; None where that was not looked at."""

    @property
    def is_peer(self) -> bool:
        """Whether it is timm's and not the zoo's."""
        return self.name.startswith(TIMM)

    @property
    def is_permissive(self) -> bool:
        """Whether its weights' license is a permissive one."""
        return PERMISSIVE.match(self.license) is not None

    @property
    def is_dense(self) -> bool:
        """Whether it gives feature maps of at least `MAPS` sizes."""
        return len(set(self.strides or ())) >= MAPS


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """All of them, by MACs."""
    table = read_latencies()
    found = []
    for row in read_table():
        plain, taught = row["top1"], row["top1_distilled"]
        top1 = max((score for score in (plain, taught) if score is not None), default=None)
        same = {key: row[key] for key in ("name", "family", "resolution", "params", "macs", "source", "license")}
        distilled = top1 is not None and top1 != plain
        found.append(Entry(**same, top1=top1, distilled=distilled, strides=table.strides.get(row["name"])))
    for peer in table.peers:
        same = peer.model_dump(exclude={"resolution"})
        size = written(peer.resolution)
        found.append(Entry(**same, family="timm", resolution=size, strides=table.strides.get(peer.name)))
    return tuple(sorted(found, key=lambda entry: (entry.macs, entry.name)))


def accepted(license_: str, wanted: str) -> bool:
    """Whether a license passes a filter.

    Args:
        license_: as published.
        wanted: `any`, `permissive`, or words of the license's name.
    """
    if wanted == "any":
        return True
    return PERMISSIVE.match(license_) is not None if wanted == "permissive" else wanted.lower() in license_.lower()
