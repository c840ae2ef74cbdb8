"""What is found in a graph is what is wrong with it, and nothing is found in one that is as it should be."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.errors import ExportError
from mobilezoo_export.anatomy import litert_coreml
from mobilezoo_export.anatomy.describe import anatomy_of, describe
from mobilezoo_export.anatomy.findings import find
from mobilezoo_export.anatomy.graph import Graph, Node, Tensor
from mobilezoo_export.anatomy.rules import judge, partitions
from mobilezoo_export.flat_table import FlatTable

MAP = (1, 8, 8, 4)


def graph_of(*nodes: tuple[str, str, str], dtype: str = "float32", **constants: Tensor) -> Graph:
    """Nodes as (operator, inputs with spaces, output); `x` goes in, the last output comes out."""
    names = {name for _, inputs, out in nodes for name in (*inputs.split(), out)}
    tensors = {name: Tensor(name=name, dtype=dtype, shape=MAP) for name in names} | constants
    made = tuple(
        Node(name=f"#{i}", op=op, inputs=tuple(inputs.split()), outputs=(out,))
        for i, (op, inputs, out) in enumerate(nodes)
    )
    return Graph(inputs=("x",), outputs=(nodes[-1][2],), tensors=tensors, nodes=made)


def stored(dtype: str = "float32", *, scales: int = 0, zero: bool = False, digest: str = "") -> Tensor:
    return Tensor(name="w", dtype=dtype, shape=MAP, stored_bytes=1024, scales=scales, zero=zero, digest=digest)


def kinds(graph: Graph) -> dict[str, int]:
    return {finding.kind: finding.count for finding in find(graph)}


def with_orders(graph: Graph, *orders: tuple[int, ...]) -> Graph:
    """The transposes of a graph with these orders of axes."""
    left = list(orders)
    nodes = [replace(node, permutation=left.pop(0)) if node.kind == "transpose" else node for node in graph.nodes]
    return replace(graph, nodes=tuple(nodes))


def test_a_graph_as_it_should_be_has_no_findings() -> None:
    graph = graph_of(("CONV_2D", "x w", "a"), ("ADD", "a x", "b"), ("SOFTMAX", "b", "y"), w=stored())
    assert kinds(graph) == {}


@pytest.mark.parametrize(
    ("width", "dtype", "found"), [(2, "float32", 1), (6, "float32", 1), (4, "float32", 0), (2, "int8", 0)]
)
def test_float_convolutions_in_narrow_groups_are_named(width: int, dtype: str, found: int) -> None:
    weights = replace(stored(dtype), shape=(24, 1, 1, width))
    graph = graph_of(("CONV_2D", "x w", "y"), w=weights)
    wide = replace(graph.tensors["x"], shape=(1, 8, 8, 24))
    assert kinds(replace(graph, tensors=graph.tensors | {"x": wide})).get("gpu-fault", 0) == found


def test_unused_operators_and_inputs_are_dead() -> None:
    unused = graph_of(
        ("CONV_2D", "x w", "a"), ("EXP", "x", "lost"), ("ABS", "lost", "more"), ("EXP", "a", "y"), w=stored()
    )
    assert kinds(unused) == {"dead": 2}
    with_input = replace(unused, nodes=unused.nodes[:1] + unused.nodes[3:], inputs=("x", "lost"))
    assert kinds(with_input) == {"dead": 1}


def test_what_follows_from_constants_alone_is_constant_but_weights_in_fewer_bits_are_not() -> None:
    graph = graph_of(("ADD", "w v", "a"), ("EXP", "a", "b"), ("MUL", "x b", "y"), w=stored(), v=stored())
    assert kinds(graph) == {"constant": 2}
    decoded = graph_of(("DEQUANTIZE", "w", "a"), ("CONV_2D", "x a", "y"), w=stored("float16"))
    assert kinds(decoded) == {}


def test_operators_without_effect_are_named() -> None:
    graph = graph_of(("Identity", "x", "a"), ("RESHAPE", "a w", "b"), ("EXP", "b", "y"), w=stored("int32"))
    found = next(finding for finding in find(graph) if finding.kind == "identity")
    assert found.count == 2
    assert found.where == ("Identity #0", "RESHAPE #1")
    flat = replace(graph, tensors=graph.tensors | {"b": Tensor(name="b", dtype="float32", shape=(1, 256))})
    assert kinds(flat) == {"identity": 1}


def test_transposes_that_undo_each_other_are_a_pair_also_across_activations() -> None:
    graph = graph_of(("TRANSPOSE", "x", "a"), ("LOGISTIC", "a", "b"), ("TRANSPOSE", "b", "y"))
    assert kinds(with_orders(graph, (0, 3, 1, 2), (0, 2, 3, 1))) == {"transpose": 2, "transpose-pair": 1}
    assert kinds(with_orders(graph, (0, 3, 1, 2), (0, 3, 1, 2))) == {"transpose": 2}
    between = graph_of(("TRANSPOSE", "x", "a"), ("SOFTMAX", "a", "b"), ("TRANSPOSE", "b", "y"))
    assert kinds(with_orders(between, (0, 3, 1, 2), (0, 2, 3, 1))) == {"transpose": 2}


def test_a_transpose_of_axes_of_size_one_copies_nothing() -> None:
    graph = with_orders(graph_of(("TRANSPOSE", "x", "a"), ("EXP", "a", "y")), (1, 0, 2, 3))
    flat = replace(graph, tensors=graph.tensors | {"x": Tensor(name="x", dtype="float32", shape=(1, 1, 8, 8))})
    assert kinds(graph) == {}  # the batch is one
    assert kinds(flat) == {}
    assert kinds(with_orders(graph, (0, 2, 1, 3))) == {"transpose": 1}


def test_float_parts_of_integer_files_are_islands_and_connected_ones_are_one() -> None:
    graph = graph_of(
        ("CONV_2D", "x w", "a"),
        ("CONV_2D", "a w", "b"),
        ("DEQUANTIZE", "b", "f"),
        ("GELU", "f", "g"),
        ("EXP", "g", "h"),
        ("QUANTIZE", "h", "c"),
        ("CONV_2D", "c w", "d"),
        ("DEQUANTIZE", "d", "i"),
        ("SOFTMAX", "i", "j"),
        ("QUANTIZE", "j", "k"),
        ("CONV_2D", "k w", "l"),
        ("CONV_2D", "l w", "y"),
        dtype="int8",
        w=stored("int8", scales=4),
    )
    floats = {name: replace(graph.tensors[name], dtype="float32") for name in "fghij"}
    assert kinds(replace(graph, tensors=graph.tensors | floats)) == {"float-island": 2}
    assert kinds(graph) == {}


def test_norms_and_relus_behind_a_convolution_could_be_part_of_it() -> None:
    graph = graph_of(("CONV_2D", "x w", "a"), ("MUL", "a v", "b"), ("RELU", "b", "y"), w=stored(), v=stored())
    assert kinds(graph) == {"batch-norm": 1, "activation": 1}
    onnx = graph_of(
        ("Conv", "x w", "a"), ("BatchNormalization", "a v", "b"), ("Relu", "b", "y"), w=stored(), v=stored()
    )
    assert kinds(onnx) == {"batch-norm": 1}
    squeeze = graph_of(("CONV_2D", "x w", "a"), ("MUL", "a x", "y"), w=stored())  # excitation, no norm
    assert kinds(squeeze) == {}


def test_weights_of_zeros_and_weights_stored_twice_are_found() -> None:
    graph = graph_of(("CONV_2D", "x w", "a"), ("CONV_2D", "a v", "y"), w=stored(zero=True), v=stored())
    assert kinds(graph) == {"zero-weights": 1}
    twice = graph_of(("CONV_2D", "x w", "a"), ("CONV_2D", "a v", "y"), w=stored(digest="d"), v=stored(digest="d"))
    assert kinds(twice) == {"duplicate": 1}


def test_custom_operators_open_sizes_and_many_axes_are_found() -> None:
    graph = graph_of(("FlexErf", "x", "a"), ("EXP", "a", "y"))
    found = find(replace(graph, custom_ops=("FlexErf",)))
    assert [(one.kind, "SELECT_TF_OPS" in one.remedy) for one in found] == [("custom", True)]
    opened = {"x": Tensor(name="x", dtype="float32", shape=(None, 8, 8, 4))}
    deep = {"a": Tensor(name="a", dtype="float32", shape=(1, 2, 4, 8, 4))}
    assert kinds(replace(graph, tensors=graph.tensors | opened)) == {"open-shape": 1}
    assert kinds(replace(graph, tensors=graph.tensors | deep)) == {"deep": 1}


def test_a_custom_operator_counts_wherever_it_stands_and_whatever_its_name() -> None:
    graph = graph_of(("EXP", "x", "y"))
    inside = replace(graph, custom_ops=("{braces}",), further=Counter({"{braces}": 2, "ADD": 1}))
    (found,) = find(inside)
    assert (found.kind, found.count) == ("custom", 2)
    assert "2 custom operators ({braces})" in found.text


def test_a_field_beyond_the_end_is_no_number() -> None:
    # a table of fields (8 bytes: its size, the object's size, the places of two fields), then the object
    fields = [size.to_bytes(2, "little") for size in (8, 8, 4, 6)]
    data = b"".join(fields) + (8).to_bytes(4, "little") + b"\x01\x02\x03"
    table = FlatTable(data, 8)
    assert (table.byte(0), table.whole(0, 2), table.whole(9)) == (1, 0x0201, 0)
    with pytest.raises(ValueError, match="beyond the end"):
        table.whole(1, 2)


def test_partitions_are_as_large_as_the_order_allows() -> None:
    graph = graph_of(("EXP", "x", "a"), ("GELU", "a", "b"), ("EXP", "x", "c"), ("ADD", "b c", "y"))
    assert partitions(graph, {0, 1, 2, 3}) == [[0, 1, 2, 3]]
    assert partitions(graph, {0, 2, 3}) == [[0, 2], [3]]  # both EXP first, then GELU, then ADD
    assert partitions(graph, {3}) == [[3]]
    assert partitions(graph, set()) == []
    cycle = graph_of(("EXP", "b", "a"), ("EXP", "a", "b"), ("ADD", "x x", "y"))
    assert partitions(cycle, {0, 1, 2}) == [[2]]


def test_rules_count_what_a_delegate_does_not_take() -> None:
    graph = graph_of(
        ("CONV_2D", "x w b", "a"),
        ("RELU", "a", "c"),
        ("GELU", "c", "d"),
        ("CONV_2D", "d w b", "y"),
        w=stored(),
        b=stored(),
    )
    coreml, nnapi = judge(graph, "litert")
    # the last convolution would be alone: the Core ML delegate takes no part of one operator
    assert (coreml.status, coreml.partitions, coreml.outside) == ("partly", 1, {"GELU": 1, "CONV_2D": 1})
    assert nnapi.partitions == 2
    assert nnapi.outside == {"GELU": 1}
    integers = replace(graph, tensors={n: replace(t, dtype="int8") for n, t in graph.tensors.items()})
    assert judge(integers, "litert")[0].status == "none"
    opened = replace(graph, tensors=graph.tensors | {"x": Tensor(name="x", dtype="float32", shape=(None, 8, 8, 4))})
    assert [one.status for one in judge(opened, "litert")] == ["partly", "partly"]
    assert all("count as 1" in " ".join(one.notes) for one in judge(opened, "litert"))
    assert [one.status for one in judge(opened, "onnx")] == ["none", "refused"]
    assert judge(replace(graph, delegates=("XnnpackBackend",)), "executorch")[0].status == "refused"


def test_nnapi_gets_the_three_largest_parts() -> None:
    ops = ["EXP", "EXP", "GELU", "EXP", "GELU", "EXP", "EXP", "GELU", "EXP", "EXP"]
    nnapi = judge(graph_of(*((op, "x" if i == 0 else f"t{i - 1}", f"t{i}") for i, op in enumerate(ops))), "litert")[1]
    assert (nnapi.partitions, nnapi.outside) == (3, {"GELU": 3, "EXP": 1})


def test_weights_in_half_precision_are_read_in_place_and_no_others() -> None:
    nodes = (("DEQUANTIZE", "w", "v"), ("CONV_2D", "x v b", "a"), ("RELU", "a", "y"))
    half = {"w": stored("float16"), "b": stored()}
    coreml, nnapi = judge(graph_of(*nodes, **half), "litert")
    assert coreml.status == nnapi.status == "taken"
    assert any("half precision" in note for note in nnapi.notes)
    coreml, nnapi = judge(graph_of(*nodes, w=stored("int8", scales=1), b=stored()), "litert")
    assert coreml.outside == {"DEQUANTIZE": 1, "CONV_2D": 1, "RELU": 1}  # its weights are no constant then
    assert nnapi.status == "taken"


def one_operator(op: str, inputs: str, constants: dict[str, Tensor], **changes: Any) -> Graph:
    graph = graph_of((op, inputs, "y"), **constants)
    return replace(graph, nodes=(replace(graph.nodes[0], **changes),))


SIZE = Tensor(name="s", dtype="int32", shape=(4,), stored_bytes=16)


@pytest.mark.parametrize(
    ("takes", "op", "inputs", "changes"),
    [
        (True, "CONV_2D", "x w b", {"version": 5}),
        (False, "CONV_2D", "x w b", {"version": 6}),
        (False, "CONV_2D", "x w", {}),
        (False, "FULLY_CONNECTED", "x w b", {"version": 6}),
        (True, "RESHAPE", "x s", {}),
        (False, "RESHAPE", "x l", {}),
        (False, "TRANSPOSE", "x l", {}),
        (True, "PACK", "x x", {"options": {"axis": 0}}),
        (False, "PACK", "x x", {"options": {"axis": 4}}),
        (False, "CONCATENATION", "x x", {"activation": "RELU"}),
        (False, "EXP", "i", {}),
        (True, "ADD", "i i", {}),
        (False, "ADD", "i i", {"activation": "RELU"}),
        (False, "GATHER", "x w", {}),
        (False, "BATCH_MATMUL", "x x", {}),
        (False, "SELECT_V2", "x x x", {}),
        (True, "EMBEDDING_LOOKUP", "s w", {}),
    ],
)
def test_nnapi_asks_for_versions_types_and_constants(
    takes: bool, op: str, inputs: str, changes: dict[str, Any]
) -> None:
    live = {"l": Tensor(name="l", dtype="int32", shape=(4,)), "i": Tensor(name="i", dtype="int32", shape=MAP)}
    graph = one_operator(op, inputs, {"w": stored(), "b": stored(), "s": SIZE, **live}, **changes)
    nnapi = judge(graph, "litert")[1]
    assert nnapi.status == ("taken" if takes else "none")
    assert any("may take nothing" in note for note in nnapi.notes) == ((op, inputs) == ("RESHAPE", "x l"))
    assert any("feature level 6" in note for note in nnapi.notes) == (op == "BATCH_MATMUL")


@pytest.mark.parametrize(
    ("takes", "op", "inputs", "changes"),
    [
        (True, "CONV_2D", "x w b", {}),
        (False, "CONV_2D", "x w b", {"version": 2}),
        (False, "CONV_2D", "x w x", {}),
        (False, "RESHAPE", "x s", {}),
        (False, "FULLY_CONNECTED", "x w b", {}),  # of many rows
        (True, "SOFTMAX", "x", {"options": {"beta": 1.0}}),
        (False, "SOFTMAX", "x", {"options": {"beta": 2.0}}),
        (True, "CONCATENATION", "x x", {"options": {"axis": 3}}),
        (False, "CONCATENATION", "x x", {"options": {"axis": 1}}),
        (True, "MIRROR_PAD", "x s", {"options": {"mode": 0}}),
        (False, "MIRROR_PAD", "x s", {"options": {"mode": 1}}),
        (True, "ADD", "x c", {}),
        (False, "ADD", "x r", {}),
    ],
)
def test_the_core_ml_delegate_asks_for_versions_shapes_and_options(
    takes: bool, op: str, inputs: str, changes: dict[str, Any]
) -> None:
    shapes = {"c": (4,), "r": (8, 1)}
    more = {name: Tensor(name=name, dtype="float32", shape=shape) for name, shape in shapes.items()}
    graph = one_operator(op, inputs, {"w": stored(), "b": stored(), "s": SIZE, **more}, **changes)
    assert litert_coreml.takes(graph, graph.nodes[0]) is takes


@pytest.mark.parametrize(
    ("weights", "computed", "words"),
    [
        ("float32", "float32", "none: float32"),
        ("float16", "float32", "half-precision weights, computed in float32"),
        ("int8", "int8", "int8 weights per channel, int8 activations (static)"),
        ("int8", "int16", "int8 weights per channel, int16 activations (static)"),
        ("int8", "float32", "int8 weights per channel, activations in float32 (weights only, or dynamic range)"),
    ],
)
def test_the_scheme_is_said_in_words(weights: str, computed: str, words: str) -> None:
    graph = graph_of(("CONV_2D", "x w", "y"), dtype=computed, w=stored(weights, scales=4 if weights == "int8" else 0))
    found = anatomy_of(graph, "litert")
    assert found.scheme == words
    assert (found.weights_bytes, found.weight_types) == (1024, {weights: 1024})
    assert Counter(found.activation_types) == {computed: 2}


def test_onnx_files_are_read_with_their_constants_captures_and_scales(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    given = numpy_helper.from_array(np.ones((2, 3), np.float32), "value")
    inner = helper.make_graph(
        [
            helper.make_node("Exp", ["made"], ["inner"]),
            helper.make_node("Deep", ["inner"], ["inside"], domain="theirs"),
        ],
        "inner",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, [2, 3])],
    )
    nodes = [
        helper.make_node("Constant", [], ["held"], value=given),
        helper.make_node("Add", ["x", "held"], ["made"]),
        helper.make_node("If", ["yes"], ["chosen"], then_branch=inner, else_branch=inner),
        helper.make_node("QuantizeLinear", ["chosen", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        helper.make_node("Own", ["x"], ["own"], domain="theirs"),
    ]
    held = [
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.float32(0.5), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y", "own")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("theirs", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="maker"), tmp_path / "a.onnx")
    found = describe(tmp_path / "a.onnx")
    assert found.ops == {
        "Exp": 2,
        "Add": 1,
        "If": 1,
        "QuantizeLinear": 1,
        "DequantizeLinear": 1,
        "theirs:Own": 1,
        "theirs:Deep": 2,
    }
    assert (found.custom_ops, found.further_graphs) == (("theirs:Own", "theirs:Deep"), 2)
    assert found.producer == "maker (opset 18, IR 10)"
    assert [one.kind for one in found.findings] == ["custom"]  # `made` is read by the branches: nothing is dead


def test_scales_in_files_beside_an_onnx_file_are_left_there(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    held = [numpy_helper.from_array(np.float32(0.5), "scale"), numpy_helper.from_array(np.int8(0), "zero")]
    onnx.external_data_helper.set_external_data(held[0], "elsewhere.bin", offset=0, length=4)
    held[0].ClearField("raw_data")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "a.onnx")
    assert "weights lie in files beside this one" in describe(tmp_path / "a.onnx").metadata["note"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tflite", b"\x1c\0\0\0TFL3" + b"\xff" * 64, "is damaged"),
        ("a.tflite", b"no flatbuffer", "TFL3 is missing"),
        ("a.onnx", b"\x08\xff\xff", "is no ONNX file"),
        ("a.onnx", b"", "is no ONNX file"),
    ],
)
def test_damaged_files_are_one_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=words):
        describe(tmp_path / name)
