"""Which of a file's tensors are a network's weights: any nesting and prefix, counters and averages left apart.

A published file holds the state dict itself or keeps it somewhere inside, beside averages, other networks and what
tools counted. All of it is taken as one tree of dotted names; a branch whose names are the network's own (or the
official ones of its family) is its weights. Of several, the one wins that the file's own evaluation reads: the average,
except where `model` stands beside `model_ema`, whose trainer (DeiT's, and all that grew out of it) scores `model`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mobilezoo.errors import CheckpointError, printable, shortened, wrong_kind
from mobilezoo.models.base import ModelConfig, family_module
from mobilezoo.models.tensor_file import read_content

COUNTERS = ("total_ops", "total_params", "n_averaged")
"""What thop and torch's AveragedModel count beside the weights."""
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""What torch.compile, FSDP, recomputation and DeepSpeed put into names, wherever they wrap a part."""
AVERAGED = re.compile(r"(^|_)(ema|averaged?|avg|swa|shadow)(_|$)|^net_E$")
USUAL = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params")
TRAINING = ("optim", "lr_sched", "sched", "scaler", "rng", "amp", "callbacks", "loops", "loss_scaler")
"""Beginnings of names under which training keeps its own tensors."""
MAX_DEPTH = 12
MAX_NAMES = 1_000_000
MAX_TENSORS = 100_000
MAX_DOTS = 64
"""Of a name: networks are not looked for deeper."""
MAX_LETTERS = 1 << 27
"""Of all dotted names together."""
SHOWN = 3
"""How many names a message lists."""

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Branch:
    """Tensors under one prefix, by the network's own names where they are a network of its kind."""

    key: str
    """Dotted path in the file; "" where the file is the state dict."""
    state: Tensors
    faults: int
    """Names and shapes in which the network differs, its head and stem aside."""
    rank: tuple[int, tuple[int, ...]]
    """Of several that fit, the lowest is what the file's own evaluation reads."""
    unexpected: int
    """Tensors that the network has not."""


@dataclass(frozen=True)
class Found:
    """The branch that was taken, and what stays behind."""

    taken: Branch
    others: tuple[str, ...]
    """Branches that fit as well."""
    left_out: tuple[str, ...]
    """Tensors outside of all these."""

    def line(self, path: str | Path) -> str | None:
        """One line for the user on what was taken; None where there was nothing to choose."""
        if not self.taken.key:
            return None
        text = f"{path}: weights under {self.taken.key!r} taken"
        if self.others:
            text += f"; {names(self.others)} would fit too (--key)"
        if self.left_out:
            text += f"; {len(self.left_out)} other tensors left out: {names(self.left_out)}"
        return text


def tensors_of(path: str | Path, key: str | None = None) -> Tensors:
    """All tensors of a file by dotted name, training's own left out.

    Args:
        path: file to read.
        key: dotted name; only what is below it is returned, by names relative to it.

    Raises:
        CheckpointError: the file is missing, damaged, or has no such tensors.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise CheckpointError(wrong_kind(path, "checkpoint"))
    content = read_content(file)
    tensors = dict(_walk(content))
    if len(tensors) > MAX_TENSORS:
        raise CheckpointError(f"{str(path)!r} holds {len(tensors):,} tensors, which no network has")
    if not tensors:
        found = names(list(map(str, content))) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{str(path)!r} holds no state dict (found: {found or 'nothing'})")
    return tensors if key is None else _below(tensors, key, path)


def find_weights(network: nn.Module, config: ModelConfig, tensors: Tensors, path: str | Path) -> Found:
    """The branch of a file's tensors that is the network's state dict, sizes of head and stem aside.

    Where none is, the nearest one, so that the caller can list what differs.

    Args:
        network: network that the weights are for.
        config: its config, whose family renames official keys.
        tensors: dotted name → tensor of the file.
        path: the file, for messages.

    Raises:
        CheckpointError: two branches fit equally well and differ, or the family recognizes the file as another
            network's.
    """
    own, branches, refusal = network.state_dict(), [], None
    for prefix, part in _parts(tensors, len(without_counts(own)) // 2):
        try:
            state = official_to_ours(network, config, _clean(part, own))
        except CheckpointError as error:
            refusal = refusal or error
            continue
        branches.append(_branch(prefix, state, network, own, tensors))
    best = min(branches, key=lambda b: (b.faults, b.rank, b.unexpected), default=None)
    if refusal and (best is None or best.faults):
        raise refusal
    assert best is not None
    fitting = [b for b in branches if b.faults == 0] if best.faults == 0 else [best]
    _refuse_two(best, fitting, config, path)
    taken = [b.key for b in fitting]
    left = [name for name in tensors if not _inside(name, taken) and not _counts(name)]
    return Found(best, tuple(b.key for b in fitting if b is not best), tuple(left))


def official_to_ours(network: nn.Module, config: ModelConfig, state: Tensors) -> Tensors:
    """Rename official keys to the network's; its own keys pass through unchanged.

    Args:
        network: network that the weights are for.
        config: its config, whose family renames.
        state: tensors by official or own names.
    """
    if set(without_counts(state)) == set(without_counts(network.state_dict())):
        return state
    renamed: Tensors = family_module(config.family).from_official(state, network)
    return renamed


def sizes_of(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """(classes, input channels) of weights; None where they have no classifier of the network's kind.

    Args:
        network: network that the weights are for.
        state: tensors by the network's own names.
    """
    own = network.state_dict()
    heads = [key for key in head_keys(network) if key in own and key in state and state[key].dim()]
    if not heads:
        return None
    classes, channels = int(state[heads[0]].shape[0]), channels_of(network)
    for key in stem_keys(network):
        if key in own and key in state and own[key].dim() > 1 < state[key].dim():
            channels = channels * int(state[key].shape[1]) // int(own[key].shape[1])
            break
    return classes, channels


def channels_of(network: nn.Module) -> int:
    """Input channels of a network as it was built."""
    return int(getattr(network, "in_chans", None) or _config_of(network)["input_size"][0])


def classes_of(network: nn.Module) -> int:
    """Classes of a network as it was built."""
    built: Any = network
    return int(built.num_classes)


def head_keys(network: nn.Module) -> list[str]:
    """Names of the classifiers' weights and biases."""
    return [f"{part}.{kind}" for part in _named(network, "classifier") for kind in ("weight", "bias")]


def stem_keys(network: nn.Module) -> list[str]:
    """Names of the weights that the input's channels meet."""
    return [f"{part}.weight" for part in _named(network, "first_conv")]


def without_counts(state: Mapping[str, Tensor]) -> Tensors:
    """Without what norms count; files of old have none."""
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def is_plain(tensor: Tensor) -> bool:
    """Numbers in memory: not sparse, quantized or without values."""
    return tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta


def names(some: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
    return ", ".join(shortened(printable(name)) for name in some[:SHOWN]) + more


def _walk(content: Any) -> Iterator[tuple[str, Tensor]]:
    """(dotted name, tensor) of all below mappings and lists, in the file's order."""
    waiting: list[tuple[str, int, Any]] = [("", 0, content)]
    letters = 0
    for _ in range(MAX_NAMES):
        if not waiting:
            return
        prefix, depth, node = waiting.pop()
        if isinstance(node, Tensor) and prefix:
            yield prefix, node
        elif isinstance(node, Mapping | list | tuple) and depth < MAX_DEPTH:
            items = node.items() if isinstance(node, Mapping) else enumerate(node)
            named = [(str(key), value) for key, value in items if isinstance(key, str | int) and str(key)]
            letters += sum(len(prefix) + len(k) for k, _ in named)
            if len(waiting) + len(named) > MAX_NAMES or letters > MAX_LETTERS:
                break
            inner = [(f"{prefix}.{k}" if prefix else k, depth + 1, v) for k, v in named if not _trains(k, v)]
            waiting += reversed(inner)
    raise CheckpointError(f"more than {MAX_NAMES:,} names in one file, which no network has")


def _trains(name: str, value: Any) -> bool:
    return name.startswith(TRAINING) and not isinstance(value, Tensor)


def _below(tensors: Tensors, key: str, path: str | Path) -> Tensors:
    found = {name.removeprefix(f"{key}."): value for name, value in tensors.items() if name.startswith(f"{key}.")}
    if not found:
        there = list(dict.fromkeys(name.partition(".")[0] for name in tensors))
        raise CheckpointError(f"{str(path)!r} has no weights under --key {key!r}: there are {names(there)}")
    return found


def _parts(tensors: Tensors, least: int) -> Iterator[tuple[str, Tensors]]:
    """(prefix, tensors under it), outermost first: all of them, and parts large enough to be the network."""
    waiting = [("", tensors)]
    while waiting:
        prefix, part = waiting.pop(0)
        yield prefix, part
        children: dict[str, Tensors] = {}
        for name, value in part.items():
            first, dot, rest = name.partition(".")
            if dot:
                children.setdefault(first, {})[rest] = value
        if prefix.count(".") < MAX_DOTS:
            waiting += [(f"{prefix}{k}.", v) for k, v in children.items() if len(v) >= least or 2 * len(v) > len(part)]


def _clean(part: Tensors, own: Mapping[str, Tensor]) -> Tensors:
    """Without counters and the words that wrappers leave inside names, unless they are the network's."""
    cleaned: Tensors = {}
    for name, value in part.items():
        plain = name if name in own else ".".join(word for word in name.split(".") if word not in WRAPPERS)
        if plain in own or not _counts(plain):
            cleaned[plain] = value
    return cleaned


def _counts(name: str) -> bool:
    return name.rpartition(".")[2] in COUNTERS


def _branch(prefix: str, state: Tensors, network: nn.Module, own: Mapping[str, Tensor], tensors: Tensors) -> Branch:
    ours, theirs = without_counts(own), without_counts(state)
    resizable = {*head_keys(network), *stem_keys(network)}
    faults = sum(k not in theirs or (k not in resizable and theirs[k].shape != v.shape) for k, v in ours.items())
    return Branch(
        key=prefix.removesuffix("."),
        state=state,
        faults=faults,
        rank=_rank(prefix, tensors),
        unexpected=sum(k not in ours for k in theirs),
    )


def _rank(prefix: str, tensors: Tensors) -> tuple[int, tuple[int, ...]]:
    """(0 for what evaluation reads, 1 where nothing shows it, 2 for the rest; places among the usual names)."""
    words = prefix.split(".")[:-1]
    usual = tuple(USUAL.index(word) if word in USUAL else len(USUAL) for word in words)
    if not any(map(AVERAGED.search, words)):
        return 1, usual
    before = prefix.partition("model_ema.")[0] if "model_ema" in words else None
    scored_plain = before is not None and any(name.startswith(f"{before}model.") for name in tensors)
    return 2 if scored_plain else 0, usual


def _refuse_two(best: Branch, fitting: Sequence[Branch], config: ModelConfig, path: str | Path) -> None:
    equal = [b for b in fitting if b.rank == best.rank and b.unexpected == best.unexpected and not _same(b, best)]
    if equal:
        keys = names([b.key for b in (best, *equal)])
        raise CheckpointError(
            f"{str(path)!r} holds several networks that fit {config.name}: name one with --key: {keys}"
        )


def _same(a: Branch, b: Branch) -> bool:
    def equal(ours: Tensor, theirs: Tensor | None) -> bool:
        return ours is theirs or (theirs is not None and is_plain(ours) and is_plain(theirs) and ours.equal(theirs))

    return a is b or all(equal(v, b.state.get(k)) for k, v in without_counts(a.state).items())


def _inside(name: str, keys: Sequence[str]) -> bool:
    return any(not key or name.startswith(f"{key}.") for key in keys)


def _config_of(network: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    return found


def _named(network: nn.Module, role: str) -> tuple[str, ...]:
    named = _config_of(network).get(role) or ()
    return (named,) if isinstance(named, str) else tuple(named)
