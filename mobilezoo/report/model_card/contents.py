"""What a model card shows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from mobilezoo.artifacts import Artifact, Checkpoint, Origin, Output
from mobilezoo.latency_report import LatencyReport
from mobilezoo.models.latency_table import LatencyRow
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size

if TYPE_CHECKING:
    from mobilezoo.models.base import ModelConfig
    from mobilezoo.models.published.choose import Published

PLACEHOLDER = "OWNER/NAME"
"""Stands for a repository that is not known yet."""
REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
PULLED = "runs/pulled/{}.safetensors"
"""Where `mobilezoo pull` puts the weights of a repository of this name."""
NAMED = ("hfds", "torch", "tfds")
"""Kinds of sources that are names of public data sets, not places on somebody's disk."""


@dataclass(frozen=True, kw_only=True)
class CardContents:
    """Records and facts of one network, checkpoint or exported file."""

    kind: Literal["network", "checkpoint", "file"]
    name: str
    """The network's name."""
    source: str
    """Zoo name, or file name of the checkpoint or file, as a command takes it."""
    config: "ModelConfig | None" = None
    """None where the network is not known, for a file that others made."""
    checkpoint: Checkpoint | None = None
    weights: "Sequence[Published]" = ()
    """Published weights of a network."""
    origin: Origin | None = None
    params: int | None = None
    macs: int | None = None
    """At `resolution`, of one image."""
    num_classes: int | None = None
    in_chans: int = 3
    resolution: Size
    preprocessing: Preprocessing | None
    """None where a file of others does not declare it."""
    labels: Sequence[str] = ()
    output: Output = "logits"
    artifacts: Sequence[Artifact] = ()
    latencies: Sequence[LatencyReport] = ()
    counted: Sequence[LatencyRow] = ()
    """Estimates that come with the zoo, each with a latency."""
    repo: str = PLACEHOLDER
    """Repository OWNER/NAME on the hub."""
    through_timm: str | None = None
    """Name that timm builds a network by, with its weights; None where it has none or another under that name."""
    timm_has_another: bool = False
    """Whether timm has a network of its own under the zoo's name."""

    @property
    def licenses(self) -> tuple[str, ...]:
        """Licenses of the weights in words, each once; () where nobody recorded one."""
        words = [one.file.license for one in self.weights] if self.origin is None else [self.origin.license]
        return tuple(dict.fromkeys(filter(None, words)))

    @property
    def sha256(self) -> str:
        """Hash of the checkpoint or file; empty for a network."""
        if self.checkpoint is not None:
            return self.checkpoint.sha256
        return self.artifacts[0].sha256 if self.kind == "file" else ""


def data_name(source: str) -> str:
    """Name of the data for readers elsewhere: of folders and archives only the last part of their path is shown.

    Args:
        source: `digits`, `folder:PATH`, `hfds/OWNER/NAME`, …
    """
    kind, colon, place = source.partition(":")
    reader = kind.partition("/")[0]
    if not colon or reader in NAMED:
        place = source[len(reader) + 1 :]
        if not place.startswith(("/", "~", ".")) and place.count("/") < 2:
            return source
    return f"{PurePosixPath(place.replace(chr(92), '/')).name or 'images'} ({reader})"


def with_repo(text: str, repo: str) -> str:
    """Names the repository in a card that was written before it was known.

    Args:
        text: a card, perhaps edited since.
        repo: OWNER/NAME on the hub.
    """
    before, after = (PULLED.format(name.rpartition("/")[2]) for name in (PLACEHOLDER, repo))
    return text.replace(PLACEHOLDER, repo).replace(before, after)
