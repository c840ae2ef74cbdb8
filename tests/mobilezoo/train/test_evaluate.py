"""Scores of anything that maps images to logits."""

import pytest
import torch

from mobilezoo.errors import MobilezooError
from mobilezoo.train.evaluate import evaluate


def test_ranks_and_loss_are_those_of_the_logits() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    scores = evaluate(lambda x: logits, [(torch.zeros(2, 3, 4, 4), torch.tensor([0, 2]))])
    assert (scores.images, scores.top1, scores.top5) == (2, 50.0, 100.0)
    expected = -torch.log_softmax(logits, 1)[[0, 1], [0, 2]].mean()
    assert scores.loss == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_not_finite_are_one_line(value: float) -> None:
    batches = [(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]))] * 2
    answers = iter([torch.zeros(2, 3), torch.tensor([[0.0, value, 0.0], [0.0, 0.0, 0.0]])])
    with pytest.raises(MobilezooError, match=r"not finite .* from image 3 on") as told:
        evaluate(lambda x: next(answers), batches)
    assert "\n" not in str(told.value)
