"""Scores of files that others made: softmax inside, open sizes, pixels of any type, several outputs, odd shapes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilezoo.artifacts import InputSpec, Quantization, save_record
from mobilezoo.cli import main as cli
from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.workflows.answers import Answers
from mobilezoo.workflows.model_options import ModelOptions
from mobilezoo.workflows.open_file import parse_preprocess
from mobilezoo.workflows.profile import files_to_time
from mobilezoo_export import load_runner, open_artifact
from mobilezoo_latency.config import ProfileConfig
from mobilezoo_latency.contract import load_artifact

onnx = pytest.importorskip("onnx")
COLORS = {"blue": (20, 30, 220), "green": (30, 200, 40), "red": (210, 40, 30)}
"""In the order of the file's outputs."""
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
LABELS = ("--labels", "blue,green,red")


def colors_file(
    path: Path, *last: str, size: tuple[int | str, int | str] = (16, 16), more: tuple[str, ...] = ()
) -> Path:
    """The means of blue, green and red, then the operators `last`; `more`: outputs `again`, and `sizes` (integers)."""
    from onnx import TensorProto, helper, numpy_helper

    steps = [
        helper.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "order"], ["step0"], axis=1),
        helper.make_node("Identity", ["step0"], ["again"]),
        helper.make_node("Shape", ["step0"], ["sizes"]),
    ]
    inputs: dict[str, list[str]] = {"Reshape": ["column"], "Unsqueeze": ["last"], "Mul": ["hundred"]}
    options: dict[str, dict[str, Any]] = {"LpNormalization": {"p": 1, "axis": 1}}
    for i, name in enumerate(last):
        steps.append(
            helper.make_node(name, [f"step{i}", *inputs.get(name, [])], [f"step{i + 1}"], **options.get(name, {}))
        )
    steps.append(helper.make_node("Identity", [f"step{len(last)}"], ["scores"]))
    given = {
        "scores": (TensorProto.FLOAT, None if "Reshape" in last else ["n", 3]),
        "again": (TensorProto.FLOAT, ["n", 3]),
        "sizes": (TensorProto.INT64, [2]),
    }
    tables = {"axes": [2, 3], "order": [2, 1, 0], "column": [-1, 3, 1, 1]}
    graph = helper.make_graph(
        steps,
        "colors",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, *size])],
        [helper.make_tensor_value_info(name, *given[name]) for name in ("scores", *more)],
        [
            *(numpy_helper.from_array(np.array(value, np.int64), name) for name, value in tables.items()),
            numpy_helper.from_array(np.float32(100), "hundred"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def means_tflite(path: Path, signature: tuple[int, ...]) -> Path:
    """A TFLite file that gives the softmax of the means over rows and columns; -1 leaves a size open."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: list[int], buffer: int = 0, kind: int = schema.TensorType.FLOAT32) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name, shape, buffer, kind
        return made

    def operator(code: int, inputs: list[int], output: int, kind: int, options: Any) -> Any:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, inputs, [output]
        made.builtinOptionsType, made.builtinOptions = kind, options
        return made

    graph, model, axes, softmax = schema.SubGraphT(), schema.ModelT(), schema.BufferT(), schema.SoftmaxOptionsT()
    x, means, scores = tensor("x", [max(1, size) for size in signature]), tensor("means", [1, 3]), tensor("s", [1, 3])
    x.shapeSignature, softmax.beta = list(signature), 1.0
    axes.data = list(np.array([1, 2], np.int32).tobytes())
    graph.tensors = [x, tensor("axes", [2], 1, schema.TensorType.INT32), means, scores]
    graph.operators = [
        operator(0, [0, 1], 2, schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()),
        operator(1, [2], 3, schema.BuiltinOptions.SoftmaxOptions, softmax),
    ]
    graph.inputs, graph.outputs = [0], [3]
    for number in (schema.BuiltinOperator.MEAN, schema.BuiltinOperator.SOFTMAX):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = number
        model.operatorCodes = [*(model.operatorCodes or []), code]
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT(), axes]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


pytestmark = pytest.mark.usefixtures("read_inline")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, color in COLORS.items():
        for split in ("train", "validation"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (24, 24), color).save(folder / "0.png")
    return tmp_path / "photos"


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def probabilities_of(file: Path, capsys: pytest.CaptureFixture[str], image: Path, *words: str) -> list[float]:
    """Of the three classes in order, as `predict` gives them."""
    code, out, err = call(capsys, "predict", file, image, "--json", *words)
    assert code == 0, err
    return [guess["probability"] for guess in sorted(json.loads(out)[0]["best"], key=lambda guess: guess["index"])]


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


RED = np.array([30, 40, 210], np.float32)


@pytest.mark.parametrize("last", [("Softmax",), ("Softmax", "Reshape"), ("Exp", "LpNormalization"), (), ("Reshape",)])
def test_the_loss_is_that_of_the_answers_whether_or_not_they_went_through_a_softmax(
    last: tuple[str, ...], tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file with the softmax inside has the loss of the same file without; [n, K, 1, 1] is [n, K]."""
    file = colors_file(tmp_path / "theirs.onnx", *last)
    asked = ("eval", file, "--data", f"folder:{photos}", "--preprocess", "unit", "-q", *LABELS)
    code, out, err = call(capsys, *asked, "--json")
    assert code == 0, err
    found = json.loads(out)
    truth = [-np.log(softmax(np.array(color[::-1]) / 255)[i]) for i, color in enumerate(COLORS.values())]
    assert found["loss"] == pytest.approx(np.mean(truth), rel=1e-4)
    assert found["top1"] == 100
    assert found["output"] == ("probabilities" if "Softmax" in last or "Exp" in last else "logits")
    assert found["parity"] == "not proven here"


def test_predict_shows_the_files_own_probabilities_and_the_table_says_so(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = photos / "train" / "red" / "0.png"
    file = colors_file(tmp_path / "theirs.onnx", "Softmax")
    assert probabilities_of(file, capsys, image, "--preprocess", "unit") == pytest.approx(softmax(RED / 255), abs=1e-6)
    independent = colors_file(tmp_path / "independent.onnx", "Sigmoid")
    found = probabilities_of(independent, capsys, image, "--preprocess", "unit")
    assert found == pytest.approx(1 / (1 + np.exp(-RED / 255)), abs=1e-6)
    _, out, err = call(capsys, "eval", independent, "--data", f"folder:{photos}", "--preprocess", "unit", "-q", *LABELS)
    assert "top-1 100.00%" in out
    assert "loss none" in out
    assert "output: sigmoid" in out
    assert "not proven here" in out
    _, out, err = call(capsys, "predict", file, image, "--preprocess", "unit")
    assert "output: probabilities; not proven here" in err


def test_a_size_that_a_file_leaves_open_must_be_said_and_one_that_it_fixes_stays(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file adds up the means of a picture of one pixel row, so the size it runs at shows in its answer."""
    image = photos / "train" / "red" / "0.png"
    file = colors_file(tmp_path / "open.onnx", size=("h", "w"), more=("sizes",))
    code, _, err = call(capsys, "predict", file, image, "--preprocess", "unit")
    assert code == 2
    assert "'open.onnx' leaves the height or width of its input open: pass --resolution HEIGHTxWIDTH" in err
    assert len(err.splitlines()) == 1
    for words in (("--resolution", "10x20"), ("--preprocess", "unit,size=10x20")):
        words = words if "--preprocess" in words else (*words, "--preprocess", "unit")
        assert probabilities_of(file, capsys, image, *words) == pytest.approx(softmax(RED / 255), abs=1e-6)
    fixed = colors_file(tmp_path / "fixed.onnx")
    code, _, err = call(capsys, "predict", fixed, image, "--preprocess", "unit,size=32")
    assert (code, "'fixed.onnx' takes images of 16x16 pixels only" in err) == (2, True)
    code, _, err = call(capsys, "predict", file, image, "--preprocess", "unit,size=32", "--resolution", "16")
    assert (code, "differ: say one" in err) == (2, True)


def test_a_tflite_file_with_an_open_size_runs_at_the_size_that_is_said(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ai_edge_litert")
    image = photos / "train" / "red" / "0.png"
    file = means_tflite(tmp_path / "open.tflite", (1, -1, -1, 3))
    code, _, err = call(capsys, "predict", file, image, "--preprocess", "unit")
    assert (code, "leaves the height or width of its input open" in err) == (2, True)
    found = probabilities_of(file, capsys, image, "--preprocess", "unit", "--resolution", "20x30")
    assert found == pytest.approx(softmax(RED[::-1] / 255), abs=1e-5)


@pytest.mark.parametrize("words", [(), ("--ops",), ("--compare",), ("--device", "cortex_a76")])
def test_nothing_is_timed_at_a_size_that_nobody_named(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = colors_file(tmp_path / "open.onnx", size=("h", "w"))
    fixed = colors_file(tmp_path / "fixed.onnx")
    files = (file, fixed) if words == ("--compare",) else (file,)
    code, _, err = call(capsys, "profile", *files, "-q", *words)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "'open.onnx' leaves the height or width of its input open: pass --resolution HEIGHTxWIDTH" in err
    code, _, err = call(capsys, "profile", *[fixed for _ in files], "-q", "--resolution", "32", *words)
    assert (code, "'fixed.onnx' takes images of 16x16 pixels only" in err) == (2, True)
    with pytest.raises(MobilezooError, match=r"'open\.onnx' leaves the height or width of its input open"):
        load_artifact(file)


@pytest.mark.slow
def test_files_of_open_size_are_timed_at_the_size_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOBILEZOO_LATENCY_DB", str(tmp_path / "store.db"))
    theirs = [colors_file(tmp_path / "open.onnx", "Softmax", size=("h", "w"))]
    theirs.append(means_tflite(tmp_path / "open.tflite", (-1, -1, -1, 3)))
    files = files_to_time([str(file) for file in theirs], ProfileConfig(), ModelOptions(resolution=(10, 20)))
    assert [file.name.split(".")[:2] for file in files] == [["open", "10x20"]] * 2
    image = np.full((1, 3, 10, 20), 0.5, np.float32)
    image[:, 2] = 2.0
    for file, order in zip(files, ([2, 1, 0], [0, 1, 2]), strict=True):
        runner = load_runner(file)
        assert runner.inputs[0].open_axes == ()
        assert runner.input.resolution == (10, 20)
        assert runner.run(image)[0] == pytest.approx(softmax(np.array([0.5, 0.5, 2.0])[order]), abs=1e-6)
    code, out, err = call(capsys, "profile", theirs[1], "--resolution", "10x20", "-q", "--json")
    assert code == 0, err
    (report,) = json.loads(out)
    assert (report["artifact"], report["unproven"]) == (files[1].name, "not proven here")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("raw", RED), ("unit", RED / 255), ("inception", RED / 127.5 - 1), ("mean=0.2,std=0.1", (RED / 255 - 0.2) / 0.1)],
)
def test_names_of_preprocess_are_the_numbers_that_a_float_input_gets(
    name: str, expected: np.ndarray, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = colors_file(tmp_path / "theirs.onnx")
    found = probabilities_of(file, capsys, photos / "train" / "red" / "0.png", "--preprocess", name)
    assert found == pytest.approx(softmax(expected), rel=1e-3)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "shift"),
    [("uint8", 1 / 128, 128, 0), ("uint8", 1 / 255, 0, 0), ("int8", 1 / 255, -128, 128), ("int8", 0.0157, 3, 128)],
)
def test_raw_pixels_are_the_bytes_of_a_quantized_input(dtype: str, scale: float, zero_point: int, shift: int) -> None:
    from mobilezoo_export.feeding import as_input
    from mobilezoo_export.records import TensorSpec

    how = Quantization.parse({"dtype": dtype, "scale": scale, "zero_point": zero_point}, "test")
    spec = InputSpec.parse({"shape": (1, 16, 16, 3), "layout": "NHWC", "dtype": dtype, "quantization": None}, "test")
    spec = spec.model_copy(update={"quantization": how})
    prep = parse_preprocess("raw", PLAIN, spec).preprocessing
    pixels = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16).repeat(3, axis=1)
    values = (pixels / 255 - np.float32(prep.mean[0])) / np.float32(prep.std[0])
    fed = as_input(values, spec, [TensorSpec(name="x", shape=spec.shape, dtype=dtype, quantization=how)])
    assert fed.dtype == dtype
    assert np.array_equal(fed.astype(int), pixels.transpose(0, 2, 3, 1).astype(int) - shift)


def test_whole_numbers_without_a_scale_take_raw_pixels_only() -> None:
    spec = InputSpec(shape=(1, 3, 8, 8), dtype="int32")
    assert parse_preprocess("raw", PLAIN, spec).preprocessing.std == pytest.approx((1 / 255,) * 3)
    for name in ("unit", "inception", "imagenet"):
        with pytest.raises(ConfigError, match=f"--preprocess {name}: the input is int32 without a scale"):
            parse_preprocess(name, PLAIN, spec)


def test_what_belongs_to_weights_is_refused_where_a_file_has_none(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = colors_file(tmp_path / "theirs.onnx")
    asked = ("eval", file, "--data", f"folder:{photos}", "--preprocess", "unit", "--num-classes", "5")
    code, _, err = call(capsys, *asked)
    assert (code, "holds its own weights: leave --num-classes out" in err) == (2, True)


def test_half_said_preprocessing_is_none(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = colors_file(tmp_path / "theirs.onnx")
    image = photos / "train" / "red" / "0.png"
    for half in ("crop=0.9", "mean=0.5", "size=16"):
        code, _, err = call(capsys, "predict", file, image, "--preprocess", half)
        assert (code, "does not tell how images become its input" in err) == (2, True)
    assert probabilities_of(file, capsys, image, "--preprocess", "crop=0.9", "--mean", "0", "--std", "1")


def test_preprocess_of_a_network_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("eval", "mnasnet_small", "--data", f"folder:{photos}"), ("predict", "mnasnet_small", photos)):
        code, _, err = call(capsys, *words, "--preprocess", "raw")
        assert code == 2
        assert "--preprocess 'raw' is for exported files without a record, 'mnasnet_small' is a network" in err
        assert len(err.splitlines()) == 1


def test_what_a_record_says_of_its_file_is_not_said_again(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, image = colors_file(tmp_path / "ours.onnx"), photos / "train" / "red" / "0.png"
    save_record(
        file, open_artifact(file).model_copy(update={"foreign": False, "preprocessing": PLAIN, "undeclared": ()})
    )
    for option, value in (("--preprocess", "raw"), ("--mean", "0.5"), ("--std", "0.5"), ("--resolution", "32")):
        for words in (("predict", file, image), ("eval", file, "--data", f"folder:{photos}")):
            code, _, err = call(capsys, *words, option, value)
            assert (code, len(err.splitlines())) == (2, 1)
            assert f"'ours.onnx' has a record, which says how images become its input: leave {option} out" in err
    assert probabilities_of(file, capsys, image) == pytest.approx(softmax(RED / 255), abs=1e-6)


def test_channels_may_be_fed_in_the_other_order(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, image = colors_file(tmp_path / "theirs.onnx"), photos / "train" / "red" / "0.png"
    found = probabilities_of(file, capsys, image, "--preprocess", "mean=0/0/0.5,std=1,channels=bgr")
    assert found == pytest.approx(
        softmax(RED[::-1] / 255 - np.array([0, 0, 0.5])), abs=1e-6
    )  # mean is red, green, blue
    code, _, err = call(capsys, "predict", file, image, "--preprocess", "unit,channels=hsv")
    assert (code, "--preprocess 'channels=hsv' is not understood" in err) == (2, True)


def test_outputs_in_percent_are_found_or_said(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = photos / "train" / "red" / "0.png"
    file = colors_file(tmp_path / "percent.onnx", "Exp", "LpNormalization", "Mul")
    expected = softmax(RED / 255)
    for words in ((), ("--outputs", "percent")):
        assert probabilities_of(file, capsys, image, "--preprocess", "unit", *words) == pytest.approx(
            expected, abs=1e-6
        )
    as_logits = probabilities_of(file, capsys, image, "--preprocess", "unit", "--outputs", "logits")
    assert as_logits == pytest.approx(softmax(100 * expected), abs=1e-5)
    asked = ("eval", file, "--data", f"folder:{photos}", "--preprocess", "unit", "-q", "--json", *LABELS)
    found = json.loads(call(capsys, *asked)[1])
    truth = [-np.log(softmax(np.array(color[::-1]) / 255)[i]) for i, color in enumerate(COLORS.values())]
    assert (found["output"], found["loss"]) == ("percent", pytest.approx(np.mean(truth), rel=1e-4))
    soft = colors_file(tmp_path / "soft.onnx", "Softmax")
    for subject, words, said in (
        (soft, ("--outputs", "percent"), "'soft.onnx' ends in probabilities, as the file shows: leave --outputs out"),
        (file, ("--outputs", "percents"), "--outputs 'percents': choose from logits, probabilities, percent"),
        ("mnasnet_small", ("--outputs", "percent"), "--outputs 'percent' is for exported files without a record"),
    ):
        preprocess = () if subject == "mnasnet_small" else ("--preprocess", "unit")
        code, _, err = call(capsys, "predict", subject, image, *preprocess, *words)
        assert (code, len(err.splitlines()), said in err) == (2, 1, True), err


def test_one_of_several_outputs_is_found_or_both_are_named(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = photos / "train" / "red" / "0.png"
    clear = colors_file(tmp_path / "clear.onnx", more=("sizes",))
    assert probabilities_of(clear, capsys, image, "--preprocess", "unit") == pytest.approx(softmax(RED / 255), abs=1e-6)
    twins = colors_file(tmp_path / "twins.onnx", more=("again",))
    code, _, err = call(capsys, "predict", twins, image, "--preprocess", "unit")
    assert code == 2
    assert "'twins.onnx': more than one output may hold the scores, scores (float32 1×3), again (float32 1×3)" in err


def test_answers_are_probabilities_only_where_all_of_them_could_be() -> None:
    answers = Answers("theirs.pte", None)
    rows = answers.read(np.array([[0.25, 0.75]], np.float32), 1)
    assert answers.output == "probabilities"
    assert np.array_equal(answers.probabilities(rows), rows)
    answers.read(np.array([[1.5, -0.5], [0.5, 0.5]], np.float32), 2)
    assert answers.output == "logits"
    assert answers.probabilities(rows)[0, 0] == pytest.approx(1 / (1 + np.exp(0.5)))


def test_quantized_probabilities_may_be_off_by_half_a_step_each() -> None:
    rows = np.full((1, 100), 1 / 256, np.float32)
    rows[0, 0] = 128 / 256  # the sum is 0.887
    assert Answers("a", None, step=1 / 256).read(rows, 1) is not None
    for step, output in ((1 / 256, "probabilities"), (0.0, "logits")):
        answers = Answers("a", None, step)
        answers.read(rows, 1)
        assert answers.output == output


@pytest.mark.parametrize(
    ("shape", "said"),
    [((2, 7, 7, 3), "with shape 2×7×7×3"), ((2, 1), "one number per image"), ((3, 5), "2 images"), ((2,), "shape 2")],
)
def test_answers_that_are_no_score_per_class_are_refused(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=f"'theirs.onnx'.*{said}"):
        Answers("theirs.onnx", None).read(np.zeros(shape, np.float32), 2)


def test_answers_with_axes_of_size_one_are_flat_and_none_may_be_no_number() -> None:
    values = np.arange(6, dtype=np.float32)
    for shape in ((2, 3), (2, 1, 1, 3), (2, 3, 1, 1)):
        assert np.array_equal(Answers("a", None).read(values.reshape(shape), 2), values.reshape(2, 3))
    values[3] = np.nan
    with pytest.raises(ConfigError, match="not finite"):
        Answers("a", None).read(values.reshape(2, 3), 2)


def test_bytes_at_the_ends_of_onnx_files_have_the_scales_of_the_operators_beside_them(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnx import TensorProto, helper, numpy_helper

    held = {
        "axes": np.array([2, 3], np.int64),
        "in_scale": np.float32(1 / 128),
        "in_zero": np.int8(-1),
        "out_scale": np.float32(1 / 256),
        "out_zero": np.uint8(0),
    }
    steps = [
        helper.make_node("DequantizeLinear", ["x", "in_scale", "in_zero"], ["numbers"]),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["means"], keepdims=0),
        helper.make_node("Softmax", ["means"], ["p"], axis=1),
        helper.make_node("QuantizeLinear", ["p", "out_scale", "out_zero"], ["scores"]),
    ]
    graph = helper.make_graph(
        steps,
        "bytes",
        [helper.make_tensor_value_info("x", TensorProto.INT8, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("scores", TensorProto.UINT8, [1, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )
    file = tmp_path / "bytes.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    image = photos / "train" / "red" / "0.png"
    found = probabilities_of(file, capsys, image, "--preprocess", "inception")
    assert found == pytest.approx(softmax(RED[::-1] / 127.5 - 1), abs=0.01)
    found = probabilities_of(file, capsys, image, "--preprocess", "raw")
    assert found == pytest.approx(softmax((RED[::-1] - 127) / 128), abs=0.01)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--preprocess", "unit", "--checkpoint", "weights.pth"), "holds its own weights: leave --checkpoint out"),
        (("--preprocess", "unit", "--in-chans", "1"), "leave --in-chans out"),
        (
            ("--preprocess", "unit", "--labels", "a,b"),
            "3 outputs and 2 labels: --labels has one name per output, the fi",
        ),
        (("--preprocess", "unit", "--labels", "missing.txt"), "labels file not found: 'missing.txt'"),
        (("--preprocess", "unit", "--csv", "--json"), "choose one"),
    ],
)
def test_what_does_not_fit_a_file_is_one_line(
    words: tuple[str, ...], said: str, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = colors_file(tmp_path / "theirs.onnx")
    code, _, err = call(capsys, "predict", file, photos / "train" / "red" / "0.png", *words)
    assert (code, len(err.splitlines())) == (2, 1)
    assert said in err


def test_a_folder_or_another_file_is_no_network(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = photos / "train" / "red" / "0.png"
    for subject, said in ((photos, "is a folder: name"), (image, "is a file of no kind that is known here")):
        code, _, err = call(capsys, "predict", subject, image)
        assert (code, said in err, len(err.splitlines())) == (2, True, 1)


def test_an_exported_file_is_no_network_to_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = colors_file(tmp_path / "theirs.onnx")
    for words in (("export", file), ("export", file, "--bisect"), ("convert", file, "--model", file)):
        code, _, err = call(capsys, *words)
        assert (code, len(err.splitlines())) == (2, 1)
        assert "theirs.onnx' is an exported file already: eval, predict and profile take it; export takes" in err
    code, _, err = call(capsys, "export", "missing.onnx")
    assert (code, err) == (2, "error: file not found: 'missing.onnx'\n")
    record = open_artifact(file).model_copy(update={"foreign": False, "model": "shvit_s1", "undeclared": ()})
    save_record(file, record)
    _, _, err = call(capsys, "export", file)
    assert "export takes the network it was made of, here 'shvit_s1'" in err
    for words in (("train", "digits", f"model={file}"), ("show", file), ("show", tmp_path)):
        code, _, err = call(capsys, *words)
        assert (code, len(err.splitlines())) == (2, 1)
        assert "and no network's YAML: name a network (see `mobilezoo list`)" in err


@pytest.mark.slow
def test_a_quantized_network_of_others_has_the_loss_of_its_probabilities(shared: Path) -> None:
    from mobilezoo.data.config import DataConfig
    from mobilezoo.workflows.evaluate import evaluate_file

    file = shared / "foreign" / "tflite" / "coral_mobilenet_v2_1.0_224_quant.tflite"
    source = DataConfig(source=f"folder:{shared / 'foreign' / 'images'}", workers=0)
    found = evaluate_file(file, source, classes="imagenet-1k")
    assert (found.output, found.images, found.parity) == ("probabilities", 334, "not proven here")
    assert found.top1 == pytest.approx(89.2, abs=0.7)
    assert found.loss == pytest.approx(0.43, abs=0.02)  # as logits it is 6.11
