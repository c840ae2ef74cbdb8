"""Boxes and masks are read as torchvision does it, and lie in the image where the crop lies."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import batched_nms, box_iou

from mobilezoo.artifacts import Artifact, BoxThresholds, InputSpec
from mobilezoo.data.transforms import eval_pixels
from mobilezoo.dense.reading import boxes_of, dense_answers, mask_of, overlap, placement
from mobilezoo.errors import ConfigError
from mobilezoo.preprocessing import Preprocessing


def answers(places: int, classes: int, seed: int) -> np.ndarray:
    """Crowded random boxes, with random probabilities."""
    rng = np.random.default_rng(seed)
    first, size = rng.random((places, 2)) * 0.5, 0.2 + rng.random((places, 2)) * 0.3
    return np.concatenate((first, first + size, rng.random((places, classes))), 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [0.3, 0.7])
def test_boxes_are_those_of_torchvisions_suppression(seed: int, limit: float) -> None:
    answer = answers(200, 3, seed)
    found = boxes_of(answer, BoxThresholds(score=0.6, overlap=limit))
    given = torch.from_numpy(answer)
    scores, classes = given[:, 4:].max(1)
    above = (scores >= 0.6).nonzero()[:, 0]
    kept = above[batched_nms(given[above, :4], scores[above], classes[above], limit)][:100]
    assert [box.index for box in found] == classes[kept].tolist()
    np.testing.assert_allclose([box.probability for box in found], scores[kept])
    np.testing.assert_allclose([box.sides for box in found], given[kept, :4])
    assert 3 < len(found) < len(above)


def test_the_overlap_is_torchvisions() -> None:
    one = answers(20, 1, 0)[:, :4]
    expected = box_iou(torch.from_numpy(one), torch.from_numpy(one))
    np.testing.assert_allclose([[overlap(a, b) for b in one] for a in one], expected, rtol=1e-5)
    assert overlap(np.zeros(4), np.zeros(4)) == 0


def test_the_class_of_a_pixel_is_the_first_of_the_best() -> None:
    assert mask_of(np.array([[[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]]])).tolist() == [[1, 0]]


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(60, 100), (100, 60), (33, 33), (20, 90)])
@pytest.mark.parametrize("share", [1.0, 0.8, 1.3])
def test_the_crop_lies_where_the_evaluation_transform_takes_it(mode: str, size: tuple[int, int], share: float) -> None:
    prep = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_mode=mode, crop_pct=share)
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    ramps = np.stack((rows * 2, columns * 2, np.full_like(rows, 255)), -1).astype(np.uint8)
    crop = eval_pixels(prep, (32, 32))(Image.fromarray(ramps)).numpy()
    place = placement(size, (32, 32), prep)
    for y, x in ((10, 12), (16, 16), (20, 21)):
        if crop[2, y, x] < 255:
            continue  # padding
        left, top, _, _ = place.of(((x + 0.5) / 32, (y + 0.5) / 32, 1, 1))
        assert abs(crop[0, y, x] / 2 + 0.5 - top) < 1.1
        assert abs(crop[1, y, x] / 2 + 0.5 - left) < 1.1


def test_an_answer_of_another_layout_is_one_line() -> None:
    record = Artifact(
        path="a.onnx",
        sha256="",
        target="onnx",
        precision="fp32",
        model="a",
        input=InputSpec(shape=(1, 3, 8, 8)),
        preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3),
        task="segment",
        output_shape=(8, 8, 2),
        size_bytes=1,
        parity=None,
        tools={},
    )
    assert dense_answers(record, np.zeros((3, 8, 8, 2))).shape == (3, 8, 8, 2)
    with pytest.raises(ConfigError, match="answers with 4×4×2 numbers per image, its record holds 8×8×2"):
        dense_answers(record, np.zeros((1, 4, 4, 2)))
    with pytest.raises(ConfigError, match="not finite"):
        dense_answers(record, np.full((1, 8, 8, 2), np.nan))
    for wrong, message in (
        ({"output_shape": (8, 2)}, r"task segment has an output_shape of \[height, width, classes\]"),
        ({"task": "detect", "output_shape": (5, 4)}, r"output_shape of \[places, 4 \+ classes\]"),
        ({"task": "detect", "output_shape": (5, 6)}, "boxes are set for the task detect"),
        ({"labels": ("a",)}, "2 classes in output_shape and 1 labels"),
        ({"task": "classify"}, "belong to the tasks detect and segment"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            Artifact.parse({**record.model_dump(mode="json"), **wrong}, "a.onnx.json")
        assert "\n" not in str(error.value)
