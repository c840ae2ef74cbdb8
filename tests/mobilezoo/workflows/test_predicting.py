"""Files that others made are scored and asked for single images; prediction and evaluation see the same pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilezoo.artifacts import InputSpec
from mobilezoo.cli import main as cli
from mobilezoo.errors import ConfigError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.workflows.open_file import parse_preprocess

onnx = pytest.importorskip("onnx")
COLORS = {"blue": (20, 30, 220), "green": (30, 200, 40), "red": (210, 40, 30)}
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """The means of blue, green and red, in that order: a network that knows colors, made by somebody else."""
    from onnx import TensorProto, helper, numpy_helper

    values = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])
    out = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "axes")
    order = numpy_helper.from_array(np.array([2, 1, 0], np.int64), "order")
    steps = [
        helper.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "order"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(steps, "colors", [values], [out], [axes, order])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "colors.onnx"
    )
    return tmp_path / "colors.onnx"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, color in COLORS.items():
        for i in range(4):
            pixels = np.clip(np.array(color) + rng.normal(0, 15, (20, 24, 3)), 0, 255).astype(np.uint8)
            folder = tmp_path / "photos" / "validation" / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            (tmp_path / "photos" / "train" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "photos" / "train" / name / f"{i}.png")
    return tmp_path / "photos"


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_a_file_without_a_record_is_scored_once_it_is_said_how(
    theirs: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "eval", str(theirs), "--data", f"folder:{photos}", "-q")
    assert code == 2
    assert "does not tell how images become its input" in err
    asked = ("eval", str(theirs), "--data", f"folder:{photos}", "--preprocess", "inception,crop=0.9", "-q", "--json")
    code, out, _ = call(capsys, *asked)
    assert code == 0
    assert json.loads(out)["top1"] == 100.0


def test_prediction_agrees_with_the_names_and_gives_all_formats(
    theirs: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("predict", str(theirs), str(photos / "validation"), "--preprocess", "raw", "--labels", "blue,green,red")
    code, out, _ = call(capsys, *words, "--json")
    assert code == 0
    found = json.loads(out)
    assert len(found) == 12
    for image in found:
        assert image["best"][0]["label"] == Path(image["image"]).parent.name
        assert sum(guess["probability"] for guess in image["best"]) == pytest.approx(1, abs=1e-5)
    _, out, _ = call(capsys, *words, "--csv", "--top", "1")
    assert [line.split(",")[3] for line in out.splitlines()[1:]] == [g["best"][0]["label"] for g in found]
    _, out, _ = call(capsys, *words)
    assert "blue" in out


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_answered(
    theirs: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = photos / "broken.png"
    broken.write_bytes(b"no image")
    good = str(photos / "validation" / "red" / "0.png")
    code, out, _ = call(capsys, "predict", str(theirs), good, str(broken), "--preprocess", "raw", "--json")
    assert code == 2
    first, second = json.loads(out)
    assert first["best"][0]["index"] == 2
    assert (second["image"], second["best"]) == (str(broken), [])
    assert "cannot identify" in second["fault"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("missing.onnx", "x.png"), "not found"),
        (("shvit_s1", "IMAGE"), "random weights"),
        (("FILE", "missing.png", "--preprocess", "raw"), "image not found"),
        (("FILE", "EMPTY", "--preprocess", "raw"), "holds no images"),
        (("FILE", "IMAGE", "--preprocess", "sepia"), "'sepia' is not understood"),
        (("FILE", "IMAGE", "--preprocess", "raw", "--labels", "a,b"), "3 outputs and 2 labels"),
    ],
)
def test_a_mistake_is_one_line(
    theirs: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    image = str(photos / "validation" / "red" / "0.png")
    places = {"FILE": str(theirs), "IMAGE": image, "EMPTY": str(tmp_path / "empty")}
    code, _, err = call(capsys, "predict", *(places.get(word, word) for word in words))
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_preprocess_is_read_key_by_key_and_checked() -> None:
    spec = InputSpec(shape=(1, 3, 8, 8))

    def parsed(text: str) -> Preprocessing:
        return parse_preprocess(text, PLAIN, spec).preprocessing

    found = parsed("imagenet,crop=0.9,interpolation=bilinear")
    assert found.mean == (0.485, 0.456, 0.406)
    assert (found.crop_pct, found.interpolation) == (0.9, "bilinear")
    assert parsed("mean=0.5,std=0.25").std == (0.25,) * 3
    assert parsed("mean=0.1/0.2/0.3,std=1").mean == (0.1, 0.2, 0.3)
    assert parse_preprocess("unit,size=10x20", PLAIN, spec).size == (10, 20)
    wrong = ("mean=", "mean=x", "std=0", "crop=9", "interpolation=magic", "mean=1/2,std=1/1/1", "what=1", "size=0", ",")
    for text in wrong:
        with pytest.raises(ConfigError, match="--preprocess"):
            parsed(text)
