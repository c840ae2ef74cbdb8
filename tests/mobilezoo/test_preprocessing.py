"""The record of an image's way into a network: timm's data config in, out, and in words."""

import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from mobilezoo.data.transforms import eval_pixels
from mobilezoo.errors import ConfigError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size

RGB = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.3, 0.2, 0.1))


def test_every_field_of_a_data_config_survives() -> None:
    own = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "lanczos", "crop_pct": 1.15}
    read = Preprocessing.from_timm({**own, "input_size": (3, 64, 96), "crop_mode": "squash"})
    assert read.to_timm() == {**own, "crop_mode": "squash"}
    assert Preprocessing.from_timm({**read.to_timm(), "input_size": (3, 64, 96)}) == read


def test_what_a_config_leaves_out_is_what_timm_takes() -> None:
    read = Preprocessing.from_timm({})
    assert read.to_timm() == {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
    }


def test_grey_takes_the_means_over_colors_and_alpha_does_too() -> None:
    grey, alpha = RGB.for_channels(1), RGB.for_channels(4)
    assert grey.mean == pytest.approx((0.4,))
    assert grey.std == pytest.approx((0.2,))
    assert alpha.mean == pytest.approx((0.5, 0.4, 0.3, 0.4))
    assert alpha.std == pytest.approx((0.3, 0.2, 0.1, 0.2))
    assert RGB.for_channels(3) is RGB
    assert Preprocessing.from_timm({"input_size": (1, 28, 28)}).mean == pytest.approx((0.449,))


@pytest.mark.parametrize(
    "wrong",
    [
        {"std": [0.5, 0.5]},
        {"std": [0.5, 0.5, 0.0]},
        {"std": [0.5, 0.5, -1.0]},
        {"mean": []},
        {"interpolation": "cubic"},
        {"crop_mode": "stretch"},
        {"crop_pct": 0.0},
    ],
)
def test_a_config_without_meaning_is_one_line(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        Preprocessing.parse({**RGB.model_dump(), **wrong}, "record")
    assert "\n" not in str(caught.value)


def followed(rule: str, image: Image.Image) -> np.ndarray:
    """The pixels that somebody gets who has only the rule and an image library."""
    width, height = image.size
    if found := re.search(r"short side to (\d+)", rule):
        short = int(found[1])
        ratio = [short * max(height, width) // min(height, width), short]
        size = (ratio[height <= width], ratio[height > width])
    elif found := re.search(r"resize to height (\d+), width (\d+)", rule):
        size = (int(found[1]), int(found[2]))
    else:
        name, h, w = re.search(r"by (min|max)\((\d+) / height, (\d+) / width\)", rule).groups()  # type: ignore[union-attr]
        factor = {"min": min, "max": max}[name](int(h) / height, int(w) / width)
        size = (round(height * factor), round(width * factor))
    kind = Image.Resampling[re.search(r"\((\w+), antialiased\)", rule)[1].upper()]  # type: ignore[index]
    resized = image.resize(size[::-1], kind)
    rows, columns = (int(n) for n in re.search(r"cut (\d+) rows and (\d+) columns", rule).groups())  # type: ignore[union-attr]
    fill = tuple(int(n) for n in rule.rpartition(" with ")[2].split(", "))
    canvas = Image.new("RGB", (max(columns, size[1]), max(rows, size[0])), fill if len(fill) == 3 else fill * 3)
    canvas.paste(resized, ((canvas.width - size[1]) // 2, (canvas.height - size[0]) // 2))
    top, left = round((canvas.height - rows) / 2), round((canvas.width - columns) / 2)
    return np.asarray(canvas.crop((left, top, left + columns, top + rows)))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(64, 64), (48, 64), (64, 41)])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0, 1.15])
def test_the_rule_in_words_gives_the_pixels_of_the_transform(mode: str, size: Size, crop_pct: float) -> None:
    prep = Preprocessing.parse({**RGB.model_dump(), "crop_mode": mode, "crop_pct": crop_pct})
    noise = np.random.default_rng(0)
    for shape in ((93, 141, 3), (150, 71, 3)):
        image = Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8))
        ours = eval_pixels(prep, size)(image)
        assert torch.equal(ours, torch.tensor(followed(prep.rule(size), image)).permute(2, 0, 1))
    assert prep.resized(size) == tuple(math.floor(side / crop_pct) for side in size)
