"""Watch one forward pass: which layer feeds which, and how often each tensor is used.

Folding two layers is right only when nothing else reads the tensor between them. A module tree does not show that, a
forward pass does: every tensor gets a token, each step (a layer's call, or a torch function outside of such calls)
notes the tokens it reads and writes. Layers that do nothing in eval mode (dropout, identity) hand their token through.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame, DropBlock2d, DropPath, FrozenBatchNormAct2d, SyncBatchNormAct
from timm.layers import Linear as TimmLinear
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from torchvision.ops import FrozenBatchNorm2d, StochasticDepth

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv2dSame)
LINEARS = (*CONVS, nn.Linear, TimmLinear, nn.ConvTranspose2d)
"""Layers whose weights can take up a neighbour's scale. Exact types: a subclass may compute something else."""
NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNormAct2d, SyncBatchNormAct),
    *(FrozenBatchNorm2d, FrozenBatchNormAct2d),
)
NOOPS = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(DropPath, DropBlock2d, StochasticDepth),
)
"""Layers that return their input in eval mode."""
_METADATA = {
    "size",
    "dim",
    "stride",
    "numel",
    "__len__",
    "is_contiguous",
    "is_floating_point",
    "get_device",
    "nelement",
}


def is_scale(module: nn.Module) -> bool:
    """Whether a module looks like a LayerScale: named so, and one vector of weights is all it holds."""
    parameters = list(module.parameters())
    named_so = "scale" in type(module).__name__.lower() and not list(module.children())
    return named_so and len(parameters) == 1 and parameters[0].numel() == max(parameters[0].shape, default=0)


@dataclass(frozen=True, eq=False)
class Step:
    """A layer's call (`module`) or a torch function (`function`) with the tokens it read and wrote."""

    module: nn.Module | None
    function: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shape: tuple[int, ...]
    """Shape of the first input."""
    result: tuple[int, ...]
    """Shape of the first output."""
    constants: tuple[Any, ...] = ()
    """The function's arguments that are not tensors."""


@dataclass(frozen=True, eq=False)
class Span:
    """A composite module's call: the steps `first` to `last` (exclusive), from one tensor to one tensor."""

    module: nn.Module
    first: int
    last: int
    source: int
    result: int


@dataclass(eq=False)
class Trace:
    """What one forward pass did."""

    steps: list[Step] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    uses: Counter[int] = field(default_factory=Counter)
    """How often each token is read, model outputs and hooks included."""
    calls: Counter[nn.Module] = field(default_factory=Counter)
    owners: Counter[int] = field(default_factory=Counter)
    """id of a parameter → number of modules that hold it."""
    foreign: set[int] = field(default_factory=set)
    """ids of parameters read from outside of the layer that holds them."""

    def producer(self, token: int) -> Step | None:
        return next((step for step in self.steps if token in step.outputs), None)

    def consumers(self, token: int) -> list[Step]:
        return [step for step in self.steps if token in step.inputs]

    def may_change(self, module: nn.Module | None, kinds: tuple[type, ...]) -> bool:
        """Whether a layer is of a kind, ran exactly once and shares no weight with anything.

        Args:
            module: layer, or None for no layer.
            kinds: exact types that are accepted.
        """
        if module is None or type(module) not in kinds or self.calls[module] != 1 or is_parametrized(module):
            return False
        held = list(module.parameters(recurse=False))
        return all(self.owners[id(p)] == 1 and id(p) not in self.foreign for p in held)


class _Observer(TorchFunctionMode):
    """Records steps while active; `depth` above zero means that a recorded layer is running."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.trace = Trace()
        self.tokens = WeakIdKeyDictionary()
        self.next_token = 0
        self.depth = 0
        self.open: list[tuple[nn.Module, int, tuple[int, ...], tuple[int, ...]]] = []
        self.parameters = {id(p) for p in model.parameters()}
        for module in model.modules():
            self.trace.owners.update(id(p) for p in module.parameters(recurse=False))
        self.hooked = {m for m in model.modules() if has_hooks(m)}

    def read(self, values: Any) -> tuple[int, ...]:
        """Tokens of all tensors in nested arguments; unknown tensors get one."""
        return tuple(self._token(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor))

    def write(self, values: Any) -> tuple[int, ...]:
        """Fresh tokens: even where an operation wrote in place, its result is another value than before."""
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self.tokens.pop(tensor, None)
        return tuple(self._token(tensor) for tensor in tensors)

    def _token(self, tensor: Tensor) -> int:
        if tensor not in self.tokens:
            self.tokens[tensor] = self.next_token
            self.next_token += 1
        return int(self.tokens[tensor])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.depth:
            return func(*args, **kwargs)
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        inputs = self.read(tensors)
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        has_tensor = any(isinstance(leaf, Tensor) for leaf in tree_leaves(result))
        if not has_tensor and (name == "__get__" or name in _METADATA):
            return result
        self.trace.foreign.update(id(t) for t in tensors if id(t) in self.parameters)
        if name == "dropout" and kwargs.get("training") is False and len(tensors) == 1:
            self.tokens[result] = inputs[0]
            return result
        self.trace.uses.update(inputs)
        constants = tuple(leaf for leaf in leaves if not isinstance(leaf, Tensor))
        step = Step(None, name, inputs, self.write(result), _shape(tensors), _shape(result), constants)
        self.trace.steps.append(step)
        return result

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.depth == 0:
            values = (args, kwargs)
            self.open.append((module, len(self.trace.steps), self.read(values), _shape(values)))
        self.depth += _is_layer(module)

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self.depth -= _is_layer(module)
        if self.depth:
            return
        _, first, inputs, shape = self.open.pop()
        outputs: tuple[int, ...]
        self.trace.calls[module] += 1
        if type(module) in NOOPS and len(inputs) == 1 and isinstance(output, Tensor):
            self.tokens[output] = inputs[0]
            outputs = inputs
        elif _is_layer(module):
            self.trace.uses.update(inputs)
            outputs = self.write(output)
            self.trace.steps.append(Step(module, "", inputs, outputs, shape, _shape(output)))
        else:
            outputs = self.read(output)
            if len(inputs) == 1 and len(outputs) == 1:
                self.trace.spans.append(Span(module, first, len(self.trace.steps), inputs[0], outputs[0]))
        if module in self.hooked:
            self.trace.uses.update(inputs + outputs)


def _shape(values: Any) -> tuple[int, ...]:
    """Shape of the first tensor in nested values; empty where there is none."""
    return next((tuple(leaf.shape) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)), ())


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody listens to a module's inputs or outputs."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_layer(module: nn.Module) -> bool:
    return type(module) in LINEARS + NORMS + NOOPS or is_scale(module)


@torch.no_grad()
def observe(model: nn.Module, example: Any) -> Trace:
    """Run `model(example)` once in its present mode and record the pass.

    The output of `forward_features` counts as read, as the model's own output does: both must stay what they were.

    Args:
        model: network; its hooks are as before afterwards.
        example: its input.
    """
    observer = _Observer(model)
    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(observer.enter, with_kwargs=True))
        handles.append(module.register_forward_hook(observer.leave, with_kwargs=True))
    try:
        with observer, _kept(model, "forward_features", observer):
            output = model(example)
    finally:
        for handle in handles:
            handle.remove()
    observer.trace.uses.update(observer.read(output))
    return observer.trace


@contextmanager
def _kept(model: nn.Module, name: str, observer: _Observer) -> Iterator[None]:
    """Count what the method `name` returns as read, where the model has such a method."""
    method = getattr(model, name, None)
    if method is None or name in vars(model):
        yield
        return

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        observer.trace.uses.update(observer.read(result))
        return result

    vars(model)[name] = watched
    try:
        yield
    finally:
        del vars(model)[name]
