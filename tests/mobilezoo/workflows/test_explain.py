"""`mobilezoo explain`: the map lies where the class is, the layer is the last with a map, mistakes are one line."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mobilezoo.errors import ConfigError, MissingToolError, UnknownNameError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.workflows import load_model
from mobilezoo.workflows.explain import _explained, _is_map, _Looking, explain, map_layers, overlay
from mobilezoo.workflows.load_model import LoadedModel

PREP = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0)
BAD = "<script>alert(1)</script>"


class Reds(nn.Module):
    """Class 0 is how much red there is, class 1 how much green."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 4, stride=4, bias=False)
        nn.init.zeros_(self.maps.weight)
        with torch.no_grad():
            self.maps.weight[0, 0], self.maps.weight[1, 1] = 1 / 4, 1 / 4
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2, 2)
        nn.init.eye_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.maps(x)).flatten(1))


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Red in the upper left corner, less green in the lower right one; and a network that knows both."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :16, 0], pixels[20:, 20:, 1] = 255, 255
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    loaded = LoadedModel(Reds().eval(), "reds", (32, 32), 3, PREP, (BAD, "green"), None, False, None)
    monkeypatch.setattr(load_model, "load_model", lambda model, options: loaded)
    monkeypatch.setattr("mobilezoo.workflows.explain.check_network", lambda model, options: None)
    return path


def brightest(jpeg: str) -> tuple[int, int]:
    """Which quarter (row, column) of a picture is brightest."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg))).convert("L"), np.float64)
    side = len(pixels) // 2
    quarters = pixels.reshape(2, side, 2, side).mean(axis=(1, 3))
    return divmod(int(quarters.argmax()), 2)  # type: ignore[return-value]


def test_the_map_is_bright_where_the_class_is(photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    red, fault = explain("reds", [photo, broken], tmp_path / "red.html")
    (green,) = explain("reds", [photo], tmp_path / "green.html", target="green")
    assert red.layer == "maps"
    assert red.target is not None
    assert (red.target.index, brightest(red.heat)) == (0, (0, 0))
    assert green.target is not None
    assert (green.target.index, brightest(green.heat)) == (1, (1, 1))
    assert fault.fault
    page = (tmp_path / "red.html").read_text()
    assert BAD not in page
    assert "alert(1)" in page
    assert "default-src 'none'" in page
    assert explain("reds", [broken], tmp_path / "none.html")[0].fault
    assert not (tmp_path / "none.html").exists()


def test_mistakes_are_one_line(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobilezoo.workflows.explain.require", lambda module, extra: None)
    with pytest.raises(UnknownNameError, match="unknown class 'gren': did you mean green"):
        explain("reds", [photo], tmp_path / "x.html", target="gren")
    with pytest.raises(UnknownNameError, match="layer with a map 'pool'"):
        explain("reds", [photo], tmp_path / "x.html", layer="pool")
    with pytest.raises(ConfigError, match="has no gradients"):
        explain("a.tflite", [photo], tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_a_missing_captum_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=r"mobilezoo\[explain\]"):
        explain("reds", [tmp_path], tmp_path / "x.html")


def test_layers_with_maps_are_found_in_order_and_a_map_is_painted_to_the_size_of_the_image() -> None:
    assert map_layers(Reds().eval(), 3, (32, 32)) == ["maps"]
    heat = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    painted = overlay(np.full((20, 20, 3), 128, np.uint8), heat)
    assert painted.shape == (20, 20, 3)
    assert int(painted[2, 2].sum()) > int(painted[17, 17].sum()) + 200


class Tokens(nn.Module):
    """A map, then a norm of tokens by heads as vision transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 4, 8, stride=8), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.norm(tokens[:, None].repeat(1, 2, 1, 1)).mean((1, 2))


def test_tokens_and_maps_with_channels_last_are_no_maps() -> None:
    assert map_layers(Tokens().eval(), 3, (64, 64)) == ["patches"]
    for shape in ((197, 64), (197, 197), (49, 49), (7, 768), (7, 1), (1, 1)):
        assert not _is_map(shape, (224, 224)), shape
    for shape, size in (((7, 7), (224, 224)), ((8, 8), (299, 299)), ((35, 35), (299, 299)), ((3, 5), (33, 65))):
        assert _is_map(shape, size)


def test_an_image_of_which_fitting_leaves_nothing_is_told_by_a_line(tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    Image.fromarray(np.zeros((1, 300, 3), np.uint8)).save(path)
    prep = PREP.model_copy(update={"crop_mode": "border"})
    loaded = LoadedModel(Reds().eval(), "reds", (32, 32), 3, prep, (), None, False, None)
    assert _explained(_Looking(loaded, "maps", None), path).fault
