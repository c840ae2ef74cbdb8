"""Converters trace a graph anew dozens of times; torch.fx notes where each node came from every time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def shared_provenance() -> Iterator[None]:
    """Share the notes instead of copying each one's whole history: a quarter of ExecuTorch's lowering is that copy.

    `torch.fx.traceback.NodeSource` is never changed once made (torch 2.14), so sharing tells the same.
    """
    from torch.fx.traceback import NodeSource

    def itself(source: NodeSource, _memo: dict[int, Any]) -> NodeSource:
        return source

    NodeSource.__deepcopy__ = itself  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]
