"""Conformance suite of network families: timm's interface, small inputs and half precision."""

import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import timm
import torch
from torch import nn

import mobilezoo
from mobilezoo.errors import ConfigError, InputSizeError
from mobilezoo.layers.foldable import ConvNorm
from mobilezoo.models.base import family_module
from mobilezoo.models.randomize import randomize_norms
from mobilezoo.models.registry import load_model_config
from mobilezoo.models.staged import StagedNet


class FamilyConformance:
    """Subclass it as `class TestMine(FamilyConformance)` and name a network; pytest runs what is inherited."""

    model: ClassVar[str | Path]
    """Zoo name or YAML of the family's smallest network."""
    strides: ClassVar[tuple[int, ...]]
    """Strides of its feature maps, in pixels."""
    smallest: ClassVar[int] = 1
    """Smallest accepted side of an input, in pixels."""
    patches: ClassVar[int | None] = None
    """Number of leading stages that cut maps into patches without padding, dropping an odd row; None: all pad."""
    drop_path: ClassVar[bool] = True
    """Whether the family takes `drop_path_rate`."""
    without_gradient: ClassVar[str] = r"(?!)"
    """Regular expression of the parameters that no logit depends on."""
    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((224, 224), (193, 161))
    """(height, width) of the inputs that features are taken of."""

    def create(self, **kwargs: Any) -> Any:
        return mobilezoo.create_model(self.model, **kwargs)

    def test_features_have_the_declared_strides_and_channels(self) -> None:
        model = self.create(features_only=True).eval()
        assert tuple(model.feature_info.reduction()) == self.strides
        for size in self.sizes:
            with torch.no_grad():
                maps = model(torch.randn(1, 3, *size))
            assert [m.shape[1] for m in maps] == model.feature_info.channels()
            assert [tuple(m.shape[2:]) for m in maps] == self.map_sizes(*size)

    def test_stages_run_without_the_head_end_as_the_features_do(self) -> None:
        model = randomize_norms(self.create(num_classes=0)).eval()
        if not isinstance(model, StagedNet):
            pytest.skip("timm's own network or a sequence of tokens, whose last intermediate is none of the features")
        x, last = torch.randn(1, 3, 96, 64), len(self.strides) - 1
        with torch.no_grad():
            end, kept = model.forward_intermediates(x, indices=[0, last])
            assert [m.shape[1] for m in kept] == [model.feature_info[i]["num_chs"] for i in (0, last)]
            assert torch.equal(kept[1], end)
            assert torch.equal(model.forward_features(x), end)
            normed = model.forward_intermediates(x, indices=[last], norm=True, intermediates_only=True)
            assert torch.equal(normed[0], model.head.norm(end))

    def map_sizes(self, *size: int) -> list[tuple[int, ...]]:
        """Returns the expected sizes of the feature maps of an input of (height, width) pixels."""
        first = self.strides[0]
        found = [tuple((side if self.patches is not None else side + first - 1) // first for side in size)]
        for i in range(1, len(self.strides)):
            spare = 0 if i < (self.patches or 0) else 1
            halved = tuple((side + spare) // 2 for side in found[-1])
            found.append(halved if self.strides[i] > self.strides[i - 1] else found[-1])
        return found

    def test_it_takes_timms_arguments(self) -> None:
        name = str(self.model)
        create = timm.create_model if timm.is_model(name) else mobilezoo.create_model
        model = create(name, num_classes=5, in_chans=1).eval()
        with torch.no_grad():
            assert model(torch.randn(2, 1, 96, 96)).shape == (2, 5)
        pyramid: Any = create(name, features_only=True, out_indices=(0, 2), in_chans=4)
        channels = pyramid.feature_info.channels()
        assert [m.shape[:2] for m in pyramid.eval()(torch.randn(1, 4, 96, 96))] == [(1, width) for width in channels]
        assert len(channels) == 2

    def test_stochastic_depth_acts_in_training_only(self) -> None:
        if not self.drop_path:
            with pytest.raises(ConfigError, match="drop_path_rate is not part of"):
                self.create(drop_path_rate=0.5)
            return
        torch.manual_seed(0)
        model = randomize_norms(self.create(drop_path_rate=0.5, drop_rate=0.0))
        x = torch.randn(2, 3, 96, 96)
        with torch.no_grad():
            model.train()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                    module.eval()
            assert any(not torch.equal(model(x), model(x)) for _ in range(5))
            model.eval()
            assert torch.equal(model(x), model(x))

    def test_heads_can_be_left_out_and_exchanged(self) -> None:
        model = self.create(num_classes=0).eval()
        x = torch.randn(2, 3, 96, 96)
        with torch.no_grad():
            pooled = model(x)
            features = model.forward_features(x)
            assert features.shape[:2] == (2, model.num_features)
            assert torch.equal(model.forward_head(features), pooled)
            model.reset_classifier(7)
            assert model(x).shape == (2, 7)
            assert pooled.shape == (2, model.head_hidden_size)
            assert torch.equal(model.forward_head(features, pre_logits=True), pooled)
        classifiers = model.get_classifier()
        both = classifiers if isinstance(classifiers, tuple | list) else (classifiers,)
        assert all(isinstance(c, nn.Linear) and c.out_features == 7 for c in both)

    def test_pooling_can_be_left_out_with_the_classifier_only(self) -> None:
        model = self.create(num_classes=0, global_pool="").eval()
        if not isinstance(model, StagedNet):
            pytest.skip("pooling of timm's own networks and of tokens has rules of its own")
        x = torch.randn(1, 3, 128, 96)
        with torch.no_grad():
            assert model(x).shape[2:] == model.forward_features(x).shape[2:]
        with pytest.raises(ConfigError, match="num_classes=0"):
            self.create(num_classes=5, global_pool="")

    def test_an_own_state_dict_passes_unchanged(self) -> None:
        model = self.create()
        own = model.state_dict()
        passed = family_module(load_model_config(self.model).family).from_official(own, model)
        assert passed.keys() == own.keys()
        assert all(torch.equal(passed[key], own[key]) for key in own)

    def test_layer_groups_cover_every_parameter_once(self) -> None:
        from timm.models import group_parameters

        model = self.create()
        groups = group_parameters(model, model.group_matcher())
        named = [n for members in groups.values() for n in members]
        assert sorted(named) == sorted(n for n, _ in model.named_parameters())
        assert len(groups) > 3

    def test_checkpointing_changes_no_gradient(self) -> None:
        torch.manual_seed(0)
        rates = {"drop_rate": 0.0, "drop_path_rate": 0.0}
        model: Any = randomize_norms(self.create(num_classes=3, **rates)).train()
        x = torch.randn(2, 3, 96, 96)

        def gradients() -> dict[str, torch.Tensor]:
            model.zero_grad()
            model(x).square().mean().backward()
            return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

        plain = gradients()
        # a norm takes off whatever a bias in front of it adds
        silent = {f"{name}.conv.bias" for name, module in model.named_modules() if isinstance(module, ConvNorm)}
        for name, grad in plain.items():
            assert name in silent or re.search(self.without_gradient, name) or grad.abs().sum() > 0, name
        model.set_grad_checkpointing(True)
        again = gradients()
        largest = max(float(grad.abs().max()) for grad in plain.values())
        for name, grad in plain.items():
            torch.testing.assert_close(again[name], grad, rtol=1e-4, atol=1e-5 * largest)
            assert (again[name] - grad).norm() <= 1e-3 * grad.norm() + 1e-4, name

    def test_small_inputs_are_right_or_refused(self) -> None:
        model, side = randomize_norms(self.create()).eval(), self.smallest - 1
        with torch.no_grad():
            assert torch.isfinite(model(torch.randn(1, 3, self.smallest, self.smallest))).all()
            if side:
                told = f"input of {side}×{side} pixels is too small .*{self.smallest}×"
                with pytest.raises(InputSizeError, match=told):
                    model(torch.randn(1, 3, side, side))
                told = f"{side}×{side + 9} pixels .* at least {self.smallest}×{self.smallest}"
                # GhostNet V2 checks in forward_features, which a features_only network never calls
                networks = [model, self.create(features_only=True)] if isinstance(model, StagedNet) else [model]
                for network in networks:
                    with pytest.raises(InputSizeError, match=told):
                        network(torch.randn(1, 3, side, side + 9))

    def test_half_precision_on_a_cpu_is_close(self) -> None:
        torch.manual_seed(0)
        model = self.create().eval()
        x = torch.randn(1, 3, 96, 96)
        with torch.no_grad():
            full, half = model(x), model.half()(x.half()).float()
        assert (half - full).abs().max() <= 0.05 * full.std() + 1e-3
