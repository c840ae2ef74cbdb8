"""What in a graph costs time, size or a delegate: unused and constant parts, operators that do nothing, transposes,
float parts of integer files, and norms and activations beside the operators they could be part of."""

from collections.abc import Callable, Iterable, Sequence

from mobilezoo.doctor_report import Finding
from mobilezoo_export.anatomy import litert_gpu
from mobilezoo_export.anatomy.graph import FLOATS, Graph, Node

SHOWN = 5
"""Names that a finding lists."""
UNARY = (
    *("abs", "cast", "dequantize", "elu", "exp", "gelu", "hardsigmoid", "hardswish", "leakyrelu", "logistic", "neg"),
    *("quantize", "relu", "sigmoid", "silu", "sqrt", "tanh"),
)
"""Operators that compute every element by itself, so that a transpose can move across them."""
SAME_SHAPE = ("reshape", "slice", "stridedslice", "pad", "padv2", "expand", "broadcastto", "tile", "slicebyindex")
"""Operators that change nothing where their output has the shape of their input."""
LATER = ("quantize", "dequantize", "identity", "reshape", "cast", "transpose", "shape")
"""Operators that move or convert, and do not compute."""
LARGEST_CHAIN = 64
MEDIAPIPE = ("Convolution2DTransposeBias", "MaxPoolingWithArgmax2D", "MaxUnpooling2D")
"""Custom operators that LiteRT's XNNPACK and GPU delegates know."""


def find(graph: Graph) -> list[Finding]:
    """All findings of a graph, those that nothing applies to left out.

    Args:
        graph: the main graph of a file.
    """
    looked: tuple[Callable[[Graph], Finding | None], ...] = (
        custom,
        shared_matrices,
        narrow_groups,
        constant_lefts,
        open_shapes,
        unused,
        unused_inputs,
        constant,
        no_ops,
        transpose_pairs,
        transposes,
        float_islands,
        norms,
        activations,
        zeros,
        duplicates,
        deep_tensors,
    )
    return [found for look in looked if (found := look(graph)) is not None]


def _finding(kind: str, text: str, nodes: Iterable[Node | str], remedy: str = "", about: str = "") -> Finding | None:
    """The finding about some nodes, whose number replaces `{n}` and its plural `{s}`; None where there are none.

    `about` follows the text as it is: names of a file may hold braces.
    """
    named = [node if isinstance(node, str) else _label(node) for node in nodes]
    if not named:
        return None
    return Finding(
        kind=kind,
        text=text.format(n=len(named), s="" if len(named) == 1 else "s") + about,
        count=len(named),
        where=tuple(named[:SHOWN]),
        remedy=remedy,
    )


def _label(node: Node) -> str:
    return f"{node.op} {node.name}"


def custom(graph: Graph) -> Finding | None:
    """Operators that only an application that brings them can run."""
    nodes = [_label(node) for node in graph.nodes if node.op in graph.custom_ops]
    nodes += [f"{name} in a graph beside the main one" for name in graph.custom_ops for _ in range(graph.further[name])]
    remedy = "spell them in standard operators"
    if any(name.startswith("Flex") for name in graph.custom_ops):
        remedy = "convert without SELECT_TF_OPS: such operators need TensorFlow's own runtime beside LiteRT"
    kinds, whose = ", ".join(graph.custom_ops), "only an application that brings them runs the file"
    if set(graph.custom_ops) <= set(MEDIAPIPE):
        whose = "MediaPipe's, which LiteRT knows; Core ML, NNAPI and NPUs do not"
    return _finding("custom", "{n} custom operator{s}", nodes, remedy, f" ({kinds}): {whose}")


def shared_matrices(graph: Graph) -> Finding | None:
    """Matrix products that LiteRT's GPU accelerator computes wrongly."""
    text = "{n} matrix product{s} of one matrix with many: LiteRT's GPU accelerator (2.3) computes something else"
    remedy = "as many matrices on both sides: `mobilezoo export` writes products so"
    return _finding("gpu-fault", text, litert_gpu.shared_matrices(graph), remedy)


def narrow_groups(graph: Graph) -> Finding | None:
    """Grouped convolutions that LiteRT's GPU accelerator crashes at."""
    text = (
        "{n} float convolution{s} whose groups are no multiple of 4 channels wide: LiteRT's GPU accelerator (2.3) "
        "crashes or computes something else"
    )
    remedy = "groups of 4, 8, … channels, or convolutions without groups"
    return _finding("gpu-fault", text, litert_gpu.narrow_groups(graph), remedy)


def constant_lefts(graph: Graph) -> Finding | None:
    """Matrix products that LiteRT's GPU accelerator, and XNNPACK in half precision, do not take."""
    text = (
        "{n} matrix product{s} with a constant on the left: LiteRT's GPU accelerator (2.3) takes nothing from there "
        "on, and XNNPACK takes none of the file in half precision"
    )
    remedy = "the constant on the right, or computed: `mobilezoo export` writes products so"
    return _finding("constant-left", text, litert_gpu.constant_lefts(graph), remedy)


def open_shapes(graph: Graph) -> Finding | None:
    """Inputs whose size the file leaves open."""
    opened = [name for name in graph.inputs if name in graph.tensors and None in (graph.tensors[name].shape or ())]
    named = [f"{graph.tensors[name].name} {_shape_text(graph.tensors[name].shape)}" for name in opened]
    remedy = "fix the size: export it without flexible="
    return _finding("open-shape", "{n} input{s} of open size: NPUs and NNAPI take fixed sizes only", named, remedy)


def unused(graph: Graph) -> Finding | None:
    """Operators whose results reach no output."""
    givers = graph.givers()
    pending = [*graph.outputs, *(name for node in graph.nodes if node.effects for name in node.outputs)]
    pending += [name for node in graph.nodes if node.effects for name in node.inputs]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += givers[name].inputs if name in givers else ()
    dead = [node for node in graph.nodes if not node.effects and not seen & set(node.outputs)]
    return _finding(
        "dead", "{n} operator{s} whose results nothing reads", dead, "leave them out of the exported network"
    )


def unused_inputs(graph: Graph) -> Finding | None:
    """Inputs that nothing reads."""
    readers = graph.readers()
    names = [graph.tensors[name].name for name in graph.inputs if name not in readers and name not in graph.outputs]
    return _finding("dead", "{n} input{s} that nothing reads", names, "leave them out of the exported network")


def constant(graph: Graph) -> Finding | None:
    """Operators that compute the same in every run: their inputs are constants. Weights in fewer bits do not count."""
    fixed: set[str] = set()
    found = []
    for node in graph.nodes:
        inputs = [name for name in node.inputs if name]
        known = all(graph.is_constant(name) or name in fixed for name in inputs)
        if node.kind == "shape" and inputs and graph.shape(inputs[0]) is not None:
            known = True
        if not known or node.effects or node.kind.startswith("random"):
            continue
        fixed |= set(node.outputs)
        if node.kind not in ("dequantize", "densify"):
            found.append(node)
    remedy = "fold constants before export: `mobilezoo export` does (pass constants)"
    return _finding(
        "constant", "{n} operator{s} with constant inputs, which compute the same in every run", found, remedy
    )


def no_ops(graph: Graph) -> Finding | None:
    """Operators whose output is their input."""
    readers = graph.readers()
    found = [node for node in graph.nodes if _does_nothing(graph, node) or _reshaped_again(graph, node, readers)]
    remedy = "remove them: `mobilezoo export` does (passes noop and canonical)"
    return _finding("identity", "{n} operator{s} without effect", found, remedy)


def _does_nothing(graph: Graph, node: Node) -> bool:
    live = graph.live(node)
    if len(live) != 1 or len(node.outputs) != 1:
        return False
    before, after = live[0], node.outputs[0]
    same_type = graph.dtype(before) == graph.dtype(after) != ""
    same_shape = graph.shape(before) is not None and graph.shape(before) == graph.shape(after)
    if node.kind == "identity" or (node.kind in ("concat", "concatenation") and len(node.inputs) == 1):
        return True
    if node.kind == "cast":
        return same_type
    if node.kind == "transpose" and node.permutation is not None:
        return node.permutation == tuple(range(len(node.permutation)))
    return node.kind in SAME_SHAPE and same_type and same_shape and not node.activation


def _reshaped_again(graph: Graph, node: Node, readers: dict[str, list[Node]]) -> bool:
    """Whether a reshape is read by nothing but another reshape."""
    if node.kind != "reshape" or len(node.outputs) != 1 or node.outputs[0] in graph.outputs:
        return False
    following = readers.get(node.outputs[0], [])
    return len(following) == 1 and following[0].kind == "reshape" and following[0].inputs[0] == node.outputs[0]


def transposes(graph: Graph) -> Finding | None:
    """Transposes that move data at run time."""
    found = [
        node for node in graph.nodes if node.kind == "transpose" and graph.live(node) and not _is_view(graph, node)
    ]
    remedy = "carry one axis order through: `mobilezoo export … --to litert` does (pass layout)"
    return _finding("transpose", "{n} transpose{s}: each copies a whole tensor", found, remedy)


def _is_view(graph: Graph, node: Node) -> bool:
    """Whether a transpose moves axes of size 1 only, which copies nothing that a reshape would not."""
    shape = graph.shape(node.inputs[0])
    if shape is None or node.permutation is None or len(shape) != len(node.permutation):
        return False
    long = [axis for axis in node.permutation if axis < len(shape) and shape[axis] != 1]
    return long == sorted(long)


def transpose_pairs(graph: Graph) -> Finding | None:
    """Transposes that a later one undoes, with nothing between them that depends on the order of axes."""
    readers = graph.readers()
    found = []
    for node in graph.nodes:
        if node.kind != "transpose" or node.permutation is None or len(node.outputs) != 1:
            continue
        later = _next_transpose(graph, node, readers)
        if later is not None and later.permutation is not None:
            both = [node.permutation[axis] for axis in later.permutation if axis < len(node.permutation)]
            if both == list(range(len(node.permutation))):
                found.append(f"{_label(node)} and {later.name}")
    remedy = "cancel them: `mobilezoo export` does (pass layout)"
    return _finding("transpose-pair", "{n} pair{s} of transposes that undo each other", found, remedy)


def _next_transpose(graph: Graph, node: Node, readers: dict[str, list[Node]]) -> Node | None:
    """The transpose that alone reads a node's result, directly or through operators on single elements."""
    for _ in range(LARGEST_CHAIN):
        following = readers.get(node.outputs[0], [])
        if len(following) != 1 or node.outputs[0] in graph.outputs:
            return None
        node = following[0]
        if node.kind == "transpose":
            return node
        if node.kind not in UNARY or len(node.outputs) != 1:
            return None
    return None


def float_islands(graph: Graph) -> Finding | None:
    """Operators of an integer file that compute in floats, as groups that are connected."""
    computing = [node for node in graph.nodes if node.kind not in LATER and graph.live(node)]
    givers = graph.givers()
    floating = [node for node in computing if _in_float(graph, node, givers)]
    if 2 * len(floating) > len(computing) or len(floating) == len(computing):
        return None
    groups = connected(graph, floating)
    named = [f"{', '.join(dict.fromkeys(node.op for node in group))} ({group[0].name})" for group in groups]
    remedy = "quantize them where integer kernels exist; XNNPACK has none for HARD_SWISH and GELU: train with ReLU6"
    return _finding("float-island", "{n} group{s} of operators in floats in an integer file", named, remedy)


def _in_float(graph: Graph, node: Node, givers: dict[str, Node]) -> bool:
    """Whether a node computes in floats; in files that spell quantization out, one that is not between the two."""
    types = {graph.dtype(name) for name in (*graph.live(node), *node.outputs)}
    if not types & set(FLOATS):
        return False
    return not any(_from_dequantize(graph, givers, name) for name in graph.live(node))


def _from_dequantize(graph: Graph, givers: dict[str, Node], name: str) -> bool:
    """Whether a value was dequantized just before, or by operators that integers pass through; ONNX's spelling."""
    for _ in range(LARGEST_CHAIN):
        giver = givers.get(name)
        if giver is None:
            return False
        if giver.kind == "dequantize":
            return giver.op == "DequantizeLinear" and not graph.is_constant(giver.inputs[0])
        if giver.kind not in ("relu", "reshape", "transpose") or not giver.inputs:
            return False
        name = giver.inputs[0]
    return False


def connected(graph: Graph, nodes: Sequence[Node]) -> list[list[Node]]:
    """Groups of nodes that pass values to each other.

    Args:
        graph: the main graph of a file.
        nodes: some of its operators, in order.
    """
    group_of: dict[str, list[Node]] = {}
    groups: list[list[Node]] = []
    for node in nodes:
        near = [group_of[name] for name in graph.live(node) if name in group_of]
        joined = near[0] if near else []
        for other in near[1:]:
            if other is not joined:
                joined += other
                group_of |= {out: joined for member in other for out in member.outputs}
                groups = [group for group in groups if group is not other]
        if not near:
            groups.append(joined)
        joined.append(node)
        group_of |= dict.fromkeys(node.outputs, joined)
    return groups


def norms(graph: Graph) -> Finding | None:
    """Batch norms, or products and sums with constants, behind a convolution that could hold them."""
    readers, found = graph.readers(), []
    for node in graph.nodes:
        if node.kind not in ("conv", "matmul") or node.activation or len(node.outputs) != 1:
            continue
        following = readers.get(node.outputs[0], [])
        if len(following) != 1 or node.outputs[0] in graph.outputs or len(graph.live(node)) != 1:
            continue
        after = following[0]
        if after.kind == "batchnorm" or (
            after.kind == "mul" and len(graph.live(after)) == 1 and len(after.inputs) == 2
        ):
            found.append(after)
    remedy = "fold them into the weights: `mobilezoo export` does (pass batchnorm)"
    return _finding("batch-norm", "{n} norm{s} behind a convolution that could hold it", found, remedy)


def activations(graph: Graph) -> Finding | None:
    """ReLUs behind an operator that could clip its own output; LiteRT's operators hold an activation."""
    readers, found = graph.readers(), []
    holders = ("conv", "matmul", "add", "mul", "averagepool2d", "maxpool2d")
    if not any(node.op.isupper() for node in graph.nodes):
        return None  # the runtimes of the other formats fuse them when they load a file
    for node in graph.nodes:
        if node.kind not in holders or node.activation or len(node.outputs) != 1 or node.outputs[0] in graph.outputs:
            continue
        following = readers.get(node.outputs[0], [])
        if len(following) == 1 and following[0].op in ("RELU", "RELU6", "RELU_N1_TO_1"):
            found.append(following[0])
    remedy = "convert again with a recent converter, which fuses them"
    return _finding("activation", "{n} ReLU{s} behind an operator that could hold it", found, remedy)


def zeros(graph: Graph) -> Finding | None:
    """Convolutions and products whose weights are all zero: a branch that computes nothing."""
    found = []
    for node in graph.nodes:
        weights = [graph.tensors[name] for name in node.inputs[1:2] if name in graph.tensors]
        if node.kind in ("conv", "matmul", "mul") and any(one.zero and one.scales <= 1 for one in weights):
            found.append(node)
    remedy = "export trained weights: a norm that is still zero lets its branch vanish, and latency lies"
    return _finding("zero-weights", "{n} operator{s} with weights that are all zero", found, remedy)


def duplicates(graph: Graph) -> Finding | None:
    """Equal tensors that are stored more than once."""
    seen: set[str] = set()
    found, wasted = [], 0
    for tensor in graph.tensors.values():
        if tensor.digest and tensor.digest in seen:
            found.append(tensor.name)
            wasted += tensor.stored_bytes or 0
        seen.add(tensor.digest)
    text = f"{{n}} stored tensor{{s}} equal to another one: {wasted / 1e3:.0f} kB twice"
    return _finding("duplicate", text, found, "convert again: converters store equal tensors once")


def deep_tensors(graph: Graph) -> Finding | None:
    """Operators on tensors of more than four dimensions."""
    found = [
        node
        for node in graph.nodes
        if any(len(graph.tensors[name].shape or ()) > 4 for name in node.outputs if name in graph.tensors)
    ]
    remedy = "fold batch or window axes together: `mobilezoo export … --to litert` does for windows (pass splits)"
    return _finding(
        "deep", "{n} operator{s} with results of more than 4 dimensions: GPU delegates and NNAPI take 4", found, remedy
    )


def _shape_text(shape: tuple[int | None, ...] | None) -> str:
    return "×".join("?" if size is None else str(size) for size in shape or ())
