"""Processes that train together: joined as torchrun's environment says, agreeing on numbers after every update."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from mobilezoo.data.classes import require_same_classes
from mobilezoo.data.samplers import Ranks
from mobilezoo.errors import ConfigError, MobilezooError, first_line


@contextmanager
def joined(device_name: str) -> Iterator[Ranks]:
    """This process's place among those that torchrun started; alone where there is no torchrun.

    Raises MobilezooError where the port is taken or the others do not come, ConfigError for a broken environment.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    try:
        ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", "0")))
    except (KeyError, ValueError) as error:
        raise ConfigError(f"WORLD_SIZE is set but RANK is not usable ({error}): start with torchrun") from None
    cuda = device_name.startswith("cuda") or (device_name == "auto" and torch.cuda.is_available())
    try:
        _join(ranks, "nccl" if cuda else "gloo")
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise MobilezooError(_why_not_joined(str(error))) from None
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def _join(ranks: Ranks, backend: str) -> None:
    """Meet the others under a key of this attempt: after a restart, torchrun's store still holds dead addresses."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store, rank, world = next(dist.rendezvous("env://", ranks.rank, ranks.world))
    dist.init_process_group(backend, store=dist.PrefixStore(f"attempt-{attempt}", store), rank=rank, world_size=world)


def device_of(name: str, ranks: Ranks) -> str:
    """The device name of one process: `auto` and `cuda` are spread over the GPUs of a machine."""
    if ranks.world > 1 and torch.cuda.is_available() and name in ("auto", "cuda"):
        return f"cuda:{ranks.local}"
    return name


def total(values: list[float], device: torch.device, ranks: Ranks) -> list[float]:
    """Sum over all processes, in double precision."""
    if ranks.world == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return list(tensor.tolist())


def require_same_data(labels: tuple[str, ...], sizes: list[int | None], device: torch.device, ranks: Ranks) -> None:
    """Raise ConfigError in every process where one sees other classes or another number of images than the first."""
    if ranks.world == 1:
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    seen: list[Any] = [None] * ranks.world
    dist.all_gather_object(seen, (labels, sizes))
    first, first_sizes = seen[0]
    for rank, (theirs, their_sizes) in enumerate(seen):
        remedy = "give all processes the same data"
        require_same_classes(first, theirs, "process 0", f"process {rank}", remedy)
        if first_sizes != their_sizes:
            raise ConfigError(
                f"process 0 has {first_sizes} images (training, validation), process {rank} has {their_sizes}: {remedy}"
            )


def _why_not_joined(text: str) -> str:
    where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
    if "EADDRINUSE" in text or "already in use" in text:
        return f"port in use at {where}: set MASTER_PORT to a free one, or run torchrun --standalone"
    reason = first_line(text, 200)
    return f"cannot join the other processes at {where} ({reason}): check MASTER_ADDR, MASTER_PORT and the network"
