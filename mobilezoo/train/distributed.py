"""Processes that train together: joined by torchrun's environment variables, agreeing on numbers after every update."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from mobilezoo.data.classes import require_same_classes
from mobilezoo.data.samplers import Distributed
from mobilezoo.errors import ConfigError, MobilezooError, first_line


@contextmanager
def joined(device_name: str) -> Iterator[Distributed]:
    """This process's place among those that torchrun started; alone where there is no torchrun.

    Raises MobilezooError where the port is taken or the others do not come, ConfigError for a broken environment.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Distributed()
        return
    try:
        distributed = Distributed(
            int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", "0"))
        )
    except (KeyError, ValueError) as error:
        raise ConfigError(f"WORLD_SIZE is set but RANK is not usable ({error}): start with torchrun") from None
    cuda = device_name.startswith("cuda") or (device_name == "auto" and torch.cuda.is_available())
    try:
        _join(distributed, "nccl" if cuda else "gloo")
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise MobilezooError(_why_not_joined(str(error))) from None
    try:
        yield distributed
    finally:
        dist.destroy_process_group()


def _join(distributed: Distributed, backend: str) -> None:
    """Meet the others under a key of this attempt: after a restart, torchrun's store still holds dead addresses."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store, rank, world = next(dist.rendezvous("env://", distributed.rank, distributed.world))
    dist.init_process_group(backend, store=dist.PrefixStore(f"attempt-{attempt}", store), rank=rank, world_size=world)


def device_of(name: str, distributed: Distributed) -> str:
    """The device name of one process.

    Args:
        name: `train.device`.
        distributed: with several processes, `auto` and `cuda` are spread over the GPUs of a machine.
    """
    if distributed.world > 1 and torch.cuda.is_available() and name in ("auto", "cuda"):
        return f"cuda:{distributed.local}"
    return name


def by_first(action: Callable[[], None], distributed: Distributed) -> None:
    """Let the first process act while the others wait for its success. Every process must call it.

    Args:
        action: what the first process does; with one process, this one.
        distributed: the processes.

    Raises:
        MobilezooError: in the others, with the text of the first one's error, which passes through there.
    """
    if distributed.world == 1:
        action()
        return
    fault: Exception | None = None
    if distributed.rank == 0:
        try:
            action()
        except Exception as error:  # the others would wait for a process that is gone
            fault = error
    if dist.get_backend() == "nccl":
        torch.cuda.set_device(distributed.local)
    text: list[str | None] = [None if fault is None else first_line(fault, 1000)]
    dist.broadcast_object_list(text, src=0)
    if fault is not None:
        raise fault
    if text[0] is not None:
        raise MobilezooError(text[0])


def total(values: list[float], device: torch.device, distributed: Distributed) -> list[float]:
    """Sum over all processes, in double precision. Every process must call it.

    Args:
        values: this process's summands.
        device: where the process group exchanges tensors: the process's GPU with NCCL, the CPU with gloo.
        distributed: with one process the values are returned as they are.
    """
    if distributed.world == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return list(tensor.tolist())


def require_same_data(
    labels: tuple[str, ...], sizes: list[int | None], device: torch.device, distributed: Distributed
) -> None:
    """Raise ConfigError in every process where one has other classes or another number of images than the first.

    Args:
        labels: class names of this process's data, in order.
        sizes: images of its training and validation splits; None for streams.
        device: as for `total`.
        distributed: with one process there is nothing to compare.
    """
    if distributed.world == 1:
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    seen: list[Any] = [None] * distributed.world
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
