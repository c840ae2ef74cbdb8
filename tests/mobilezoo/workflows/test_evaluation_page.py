"""`mobilezoo eval --report`: figures that can be counted by hand, bounded pages, nothing of a class name run."""

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mobilezoo.errors import ConfigError
from mobilezoo.evaluation_report import MOST_MISTAKES, TOP_CONFUSIONS, EvaluationReport
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.workflows.evaluate import Scores
from mobilezoo.workflows.evaluation_page import OTHER_ORDER, Watched, evaluation_report
from mobilezoo.workflows.report import _evaluation, write_report
from mobilezoo.workflows.tally import Seen, Tally

PREP = Preprocessing(mean=(0.5, 0.25, 0.5), std=(0.5, 0.25, 0.5))
SCORES = Scores(model="net", data="folder:x", runs_in="PyTorch (cpu)", images=4, top1=50.0, top5=100.0, loss=1.0)
BAD = "<script>alert(1)</script>"


def logits(*probabilities: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def tallied(scores: torch.Tensor, truth: tuple[int, ...], output: Any = "logits", unit: float = 1.0) -> Seen:
    tally = Tally()
    watch = tally.begin(PREP)
    x = torch.zeros(len(truth), 3, 8, 8)
    for row in range(0, len(truth), 2):
        watch(x[row : row + 2], scores[row : row + 2], torch.tensor(truth[row : row + 2]))
    return tally.finish(output, unit)


FOUR = logits((0.7, 0.2, 0.1), (0.1, 0.8, 0.1), (0.9, 0.05, 0.05), (0.2, 0.2, 0.6))
TRUTH = (0, 0, 1, 2)


def test_figures_are_those_counted_by_hand() -> None:
    report = evaluation_report(SCORES, ("a", "b", "c"), tallied(FOUR, TRUTH), None)
    a, b, c = report.classes
    assert (a.recall, a.precision, b.recall, b.precision, c.recall, c.precision) == (50, 50, 0, 0, 100, 100)
    pairs = {(one.truth, one.guess): one.images for one in report.confusions}
    assert report.complete
    assert pairs == {(0, 0): 1, (0, 1): 1, (1, 0): 1, (2, 2): 1}
    # Each image has a bin of its own: 0.3 short, 0.8 and 0.9 too much, 0.4 short.
    assert report.ece == pytest.approx((0.3 + 0.8 + 0.9 + 0.4) / 4)
    assert [(one.position, one.truth, one.guess) for one in report.mistakes] == [(2, 1, 0), (1, 0, 1)]
    assert report.mistakes[0].confidence == pytest.approx(0.9)
    assert report.mistakes[0].truth_confidence == pytest.approx(0.05)


def test_percent_and_logits_are_both_kept_until_it_is_known_which_they_are() -> None:
    shares = FOUR.exp() * 100
    seen = tallied(shares, TRUTH, "percent", 0.01)
    np.testing.assert_allclose(seen.confidence, tallied(FOUR, TRUTH).confidence, rtol=1e-5)
    assert [one.confidence for one in seen.mistakes] == pytest.approx([0.9, 0.8])


def test_a_file_is_compared_with_pytorch_class_by_class_and_only_in_one_order() -> None:
    file, network = tallied(FOUR, TRUTH), tallied(FOUR[[0, 0, 2, 3]], TRUTH)
    report = evaluation_report(SCORES, ("a", "b", "c"), file, network)
    assert report.agreement == 0.75
    assert [(one.agreed, one.pytorch_correct) for one in report.classes] == [(1, 2), (1, 0), (1, 1)]
    moved = evaluation_report(SCORES, ("a", "b", "c"), file, tallied(FOUR, (0, 1, 0, 2)))
    assert moved.agreement is None
    assert moved.note == OTHER_ORDER
    assert moved.classes[0].agreed is None


def test_a_picture_shows_the_pixels_that_were_normalized() -> None:
    tally = Tally()
    pixels = torch.tensor((200.0, 100.0, 50.0)).view(3, 1, 1).expand(3, 40, 20) / 255
    x = (pixels - torch.tensor(PREP.mean).view(3, 1, 1)) / torch.tensor(PREP.std).view(3, 1, 1)
    tally.begin(PREP)(x[None], FOUR[:1], torch.tensor([1]))
    (mistake,) = tally.finish("logits").mistakes
    image = Image.open(io.BytesIO(base64.b64decode(mistake.jpeg)))
    assert image.size == (40, 80)
    np.testing.assert_allclose(np.asarray(image)[20, 20], (200, 100, 50), atol=3)


def test_a_thousand_classes_stay_bounded_and_the_most_confident_mistakes_are_kept() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2000, 1000)
    truth = tuple(range(1000)) * 2
    tally = Tally()
    watch = tally.begin(PREP)
    for row in range(0, 2000, 500):
        watch(torch.zeros(500, 3, 2, 2), scores[row : row + 500], torch.tensor(truth[row : row + 500]))
    seen = tally.finish("logits")
    report = evaluation_report(SCORES, tuple(map(str, range(1000))), seen, None)
    assert not report.complete
    assert len(report.confusions) == TOP_CONFUSIONS
    best = scores.softmax(1).max(1)
    wrong = best.values[best.indices != torch.tensor(truth)].sort(descending=True).values
    assert [one.confidence for one in report.mistakes] == pytest.approx(wrong[:MOST_MISTAKES].tolist())


def test_figures_of_a_file_that_changed_since_are_marked(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(b"one")
    report = evaluation_report(
        SCORES.model_copy(update={"model": str(file)}), ("a", "b", "c"), tallied(FOUR, TRUTH), None
    )
    (tmp_path / "net.evaluation.json").write_text(report.model_dump_json())
    assert _evaluation(tmp_path / "net.evaluation.json").note == ""
    file.write_bytes(b"two")
    assert "net.onnx has changed since" in _evaluation(tmp_path / "net.evaluation.json").note


@pytest.mark.parametrize("model", ["{}/pipe.onnx", "{}", "/dev/zero", "x" * 5000 + ".onnx", "nul\0.onnx"])
def test_what_a_record_names_is_only_read_if_it_is_a_network(model: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    named = {"model": model.format(tmp_path), "sha256": "0" * 64}
    report = evaluation_report(SCORES, ("a", "b", "c"), tallied(FOUR, TRUTH), None).model_copy(update=named)
    (tmp_path / "net.evaluation.json").write_text(report.model_dump_json())
    assert _evaluation(tmp_path / "net.evaluation.json").note == ""


def test_the_page_escapes_names_and_the_record_beside_it_is_reported(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "int8.html", of_file=False)
    assert watched.network is not None
    watched.network.names = (BAD, "b", "c")
    watched.network.begin(PREP)(torch.zeros(4, 3, 8, 8), FOUR, torch.tensor(TRUTH))
    watched.write(SCORES)
    for path in (tmp_path / "int8.html", write_report([tmp_path], tmp_path / "all.html")):
        page = path.read_text()
        assert BAD not in page
        assert "alert(1)" in page
        assert "data:image/jpeg;base64," in page
        assert "evaluation-1-matrix" in page
        assert '"text":[[1,"",""],["","",""],["","",1]]' in page
        assert '"text":[["",1,""],[1,"",""],["","",""]]' in page
    record = json.loads((tmp_path / "int8.evaluation.json").read_text())
    record["mistakes"][0]["jpeg"] = '"><script>'
    with pytest.raises(ConfigError, match="jpeg"):
        EvaluationReport.parse(record)
    record["mistakes"] = []
    record["confusions"][0]["truth"] = 7
    with pytest.raises(ConfigError, match="classes listed"):
        EvaluationReport.parse(record)
