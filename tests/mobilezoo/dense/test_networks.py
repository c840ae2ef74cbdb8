"""Detectors and segmenters on backbones of several strides: layouts, places, and that they learn what they see."""

import pytest
import torch

import mobilezoo  # noqa: F401  (registers the zoo with timm)
from mobilezoo.artifacts import BoxThresholds
from mobilezoo.dense.losses import assign, detection_loss
from mobilezoo.dense.networks import Detector, Segmenter
from mobilezoo.dense.reading import boxes_of
from mobilezoo.errors import ConfigError


@pytest.mark.parametrize(("backbone", "stride"), [("mnasnet_small", 8), pytest.param("shvit_s1", 16)])
def test_the_places_of_a_detector_are_the_centers_of_its_map(backbone: str, stride: int) -> None:
    network = Detector(backbone, 3, (64, 128), channels=8).eval()
    with torch.no_grad():
        answer = network(torch.zeros(2, 3, 64, 128))
    assert answer.shape == (2, 64 * 128 // stride**2, 7)
    assert answer.min() >= 0
    assert answer.max() <= 1
    assert network.places[0].tolist() == pytest.approx([stride / 2 / 128, stride / 2 / 64])
    assert network.stride == (stride / 128, stride / 64)


def test_a_segmenter_has_the_class_of_every_pixel() -> None:
    network = Segmenter("mnasnet_small", 5, channels=8).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 64, 96, 5)


def test_a_backbone_without_feature_maps_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"backbone 'no_such' gives no feature maps: .*--task dense") as error:
        Segmenter("no_such", 2)
    assert "\n" not in str(error.value)
    network = Segmenter("mnasnet_small", 2, channels=8).eval()
    last = network.features.backbone.forward
    monkeypatch.setattr(network.features.backbone, "forward", lambda x: [one.permute(0, 2, 3, 1) for one in last(x)])
    with pytest.raises(ConfigError, match=r"maps are not \[B, C, h, w\]"):
        network(torch.zeros(1, 3, 64, 64))


def test_a_place_answers_for_the_smallest_box_around_it_whose_center_is_near() -> None:
    places = torch.tensor([[0.1, 0.1], [0.3, 0.3], [0.5, 0.5], [0.7, 0.7]])
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.25, 0.6, 0.6]])
    assert assign(places, (0.2, 0.2), boxes).tolist() == [-1, 1, 1, 0]
    assert assign(places, (0.2, 0.2), boxes[:0]).tolist() == [-1] * 4


def test_the_loss_of_a_right_answer_is_less_than_that_of_any_wrong_one() -> None:
    truth = [(torch.tensor([[0.2, 0.2, 0.6, 0.7]]), torch.tensor([1]))]
    assigned = torch.tensor([[0, -1]])
    boxes = torch.tensor([[[0.2, 0.2, 0.6, 0.7], [0.0, 0.0, 0.1, 0.1]]])
    logits = torch.tensor([[[-9.0, 9.0], [-9.0, -9.0]]])
    right = detection_loss(boxes, logits, assigned, truth)
    assert right < 1e-3
    assert detection_loss(boxes + 0.1, logits, assigned, truth) > 0.5
    assert detection_loss(boxes, logits.flip(-1), assigned, truth) > 1
    assert detection_loss(boxes, -logits, assigned, truth) > 1


@pytest.mark.slow
def test_a_detector_learns_one_scene_by_heart() -> None:
    torch.manual_seed(0)
    network = Detector("mnasnet_small", 2, 64, channels=16)
    x = torch.rand(2, 3, 64, 64) * 0.1
    truths = [
        (torch.tensor([[0.1, 0.1, 0.5, 0.6]]), torch.tensor([0])),
        (torch.tensor([[0.4, 0.3, 0.9, 0.9]]), torch.tensor([1])),
    ]
    for row, (boxes, _) in enumerate(truths):
        left, top, right, bottom = (boxes[0] * 64).long().tolist()
        x[row, row, top:bottom, left:right] = 1
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    assigned = torch.stack([assign(network.places, network.stride, boxes) for boxes, _ in truths])
    for _ in range(40):
        optimizer.zero_grad()
        detection_loss(*network.raw(x), assigned, truths).backward()
        optimizer.step()
    with torch.no_grad():
        answers = network(x).numpy()  # norms of the batch: 40 steps are too few for running ones
    for answer, (boxes, classes) in zip(answers, truths, strict=True):
        (found,) = boxes_of(answer, BoxThresholds(score=0.4))
        assert found.index == classes[0]
        assert torch.tensor(found.sides).sub(boxes[0]).abs().max() < 0.1
