"""One evaluation transform: equal to timm's for all that timm knows, in every channel count and shape."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from mobilezoo.data import Augment, DataConfig, eval_loader, open_data, sample_batch, train_loader
from mobilezoo.data.pixels import Pixels
from mobilezoo.data.transforms import eval_transform, train_transform
from mobilezoo.errors import ConfigError
from mobilezoo.preprocessing import Preprocessing

CPU = torch.device("cpu")
RGB = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.3, 0.2, 0.1))


@pytest.fixture(scope="module")
def odd_image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (93, 141, 3), dtype=np.uint8))


def timm_configs() -> list[dict[str, Any]]:
    """Every distinct pretrained_cfg of timm's registry, as far as preprocessing goes."""
    found = {}
    for name in [*timm.list_models(), *timm.list_pretrained()]:
        known = timm.get_pretrained_cfg(name)
        if known is not None:
            data = known.to_dict()
            found[repr(sorted(resolve_data_config(pretrained_cfg=data).items()))] = data
    return list(found.values())


def test_tensors_equal_those_of_timms_own_transform_for_the_whole_registry(odd_image: Image.Image) -> None:
    configs = timm_configs()
    assert {"center", "squash", "border"} <= {config["crop_mode"] for config in configs}
    for config in configs:
        resolved = resolve_data_config(pretrained_cfg=config)
        ours = eval_transform(Preprocessing.from_timm(config), resolved["input_size"][1:])
        assert torch.equal(ours(odd_image), create_transform(**resolved)(odd_image)), resolved


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_other_heights_than_widths_equal_timms_too(mode: str, odd_image: Image.Image) -> None:
    prep = RGB.model_copy(update={"crop_mode": mode})
    theirs = create_transform((3, 48, 80), **prep.to_timm())
    x_chw = eval_transform(prep, (48, 80))(odd_image)
    assert x_chw.shape == (3, 48, 80)
    assert torch.equal(x_chw, theirs(odd_image))


def test_grey_is_the_luma_of_the_colors_and_alpha_is_opaque(odd_image: Image.Image) -> None:
    full = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop_pct=1.0, interpolation="nearest")
    red, green, blue = eval_transform(full, (93, 141))(odd_image)
    grey = eval_transform(full.for_channels(1), (93, 141))(Pixels(channels=1).convert(odd_image))
    assert torch.allclose(grey[0], 0.299 * red + 0.587 * green + 0.114 * blue, atol=0.6 / 255)
    opaque = eval_transform(full.for_channels(4), (93, 141))(Pixels(channels=4).convert(odd_image))
    assert torch.equal(opaque[:3], torch.stack([red, green, blue]))
    assert torch.equal(opaque[3], torch.ones(93, 141))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_loaders_give_as_many_channels_as_the_statistics_have(channels: int) -> None:
    prep = RGB.for_channels(channels)
    config = DataConfig(source="digits", workers=0, batch_size=32, augment=Augment(random_erasing=0.5))
    x, _ = next(train_loader(config, open_data(config, train=True), (24, 32), prep, CPU).epoch(0))
    assert x.shape == (32, channels, 24, 32)
    seen, _ = next(iter(eval_loader(config, open_data(config, train=False), (24, 32), prep, CPU)))
    assert seen.shape == (32, channels, 24, 32)
    assert sample_batch(config, (24, 32), prep, 8).shape == (8, channels, 24, 32)


def test_a_loader_and_a_sample_show_the_same_tensors() -> None:
    config = DataConfig(source="digits", workers=0, batch_size=360)
    x, _ = next(iter(eval_loader(config, open_data(config, train=False), 20, RGB, CPU)))
    assert np.array_equal(sample_batch(config, 20, RGB, 360), x.numpy())


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "original-mstd0.5", "augmix-m5-w4-d2", "3a"])
def test_policies_vary_grey_images(policy: str, odd_image: Image.Image) -> None:
    vary = train_transform(Augment(auto_augment=policy), (24, 32), RGB.for_channels(1))
    grey = odd_image.convert("L")
    assert len({torch.as_tensor(vary(grey)).numpy().tobytes() for _ in range(8)}) > 4
    assert vary(grey).shape == (1, 24, 32)


def test_policies_know_no_transparency() -> None:
    with pytest.raises(ConfigError, match=r"knows no transparency.*set data\.augment\.auto_augment=null"):
        train_transform(Augment(auto_augment="rand-m9"), 32, RGB.for_channels(4))


def test_two_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"1 channel \(grey\), 3 \(RGB\) or 4 \(RGBA\), the network takes 2"):
        sample_batch(DataConfig(source="digits"), 32, RGB.for_channels(2), 8)


def test_sizes_of_multi_scale_training_may_be_oblong() -> None:
    config = DataConfig(
        source="digits", workers=0, batch_size=32, augment=Augment.parse({"sizes": [16, "24x32", [32, 16]]})
    )
    loader = train_loader(config, open_data(config, train=True), 32, RGB, CPU)
    assert {tuple(x.shape[2:]) for x, _ in loader.epoch(0)} == {(16, 16), (24, 32), (32, 16)}


@pytest.mark.parametrize(
    "policy", ["rand-m10-n9-p1", "rand-m10-n9-p1-inc1", "rand-m99-mmax99-inc1", "v0", "augmix-m10"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_of_any_strength_end_no_run(policy: str, channels: int, odd_image: Image.Image) -> None:
    image = odd_image.convert("L" if channels == 1 else "RGB")
    vary = train_transform(Augment(auto_augment=policy), 16, RGB.for_channels(channels))
    for _ in range(40):
        assert vary(image).shape == (channels, 16, 16)


def test_posterize_to_zero_bits_is_black_as_where_the_policy_comes_from(odd_image: Image.Image) -> None:
    vary = train_transform(Augment(auto_augment="rand-m10-inc1"), 16, RGB)
    policy = next(step for step in vary.transforms if hasattr(step, "ops"))  # type: ignore[attr-defined]
    posterize = next(operation for operation in policy.ops if operation.name.startswith("Posterize"))
    posterize.prob = 1.0
    assert posterize(odd_image.convert("RGB")).getextrema() == ((0, 0),) * 3
    posterize.magnitude = 5
    assert set(np.asarray(posterize(odd_image.convert("L"))).ravel() % 64) == {0}
