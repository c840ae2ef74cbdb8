"""The load-balancing loss of MoH in training."""

import torch

from mobilezoo.layers.head_choice import HeadGates
from mobilezoo.models import create_model, moh


def test_the_balancing_loss_is_the_weighed_mean_over_layers_and_given_once() -> None:
    torch.manual_seed(0)
    model = create_model("moh_transnext_4m", num_classes=5).train()
    assert isinstance(model, moh.Moh)
    x = torch.randn(2, 3, 64, 64)
    model(x)
    values = [m.unbalance for m in model.modules() if isinstance(m, HeadGates) and m.unbalance is not None]
    loss = model.auxiliary_loss()
    assert loss is not None
    torch.testing.assert_close(loss, moh.BALANCE_WEIGHT * torch.stack(values).mean())
    loss.backward()
    choices = [m.choice for m in model.modules() if isinstance(m, HeadGates) and m.choice is not None]
    assert all(c.weight.grad is not None and bool(c.weight.grad.abs().sum() > 0) for c in choices)
    assert model.auxiliary_loss() is None
    model.eval()(x)
    assert model.auxiliary_loss() is None
