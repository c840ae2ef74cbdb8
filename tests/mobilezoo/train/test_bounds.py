"""Every numeric key of a recipe has bounds: what lies outside is one line that names the key and the value."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from mobilezoo.config import Record, apply_overrides
from mobilezoo.errors import ConfigError
from mobilezoo.train.config import TrainConfig

LEAST = {"model": "mnasnet_small", "data": {"source": "digits"}}


def numbers_in(annotation: Any) -> int:
    """How many numbers a field takes: one, two as a pair, or none."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)] or [annotation]
    if type(None) in get_args(annotation):
        return numbers_in(kinds[0])
    plain = [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds]
    is_pair = get_origin(annotation) is tuple and len(kinds) == 2 and Ellipsis not in kinds
    return len(kinds) if plain[0] in (int, float) and (is_pair or annotation in (int, float)) else 0


def numeric_keys(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, int]]:
    """(dotted key, how many numbers it takes) of a record and the groups in it."""
    for name, field in cls.model_fields.items():
        groups = [part for part in (field.annotation, *get_args(field.annotation)) if isinstance(part, type)]
        inside = [part for part in groups if issubclass(part, Record)]
        if inside:
            yield from numeric_keys(inside[0], f"{prefix}{name}.")
        elif count := numbers_in(field.annotation):
            yield prefix + name, count


KEYS = list(numeric_keys(TrainConfig))


def parsed(key: str, value: Any, count: int) -> TrainConfig:
    text = f"[{value}, {value}]" if count == 2 else str(value)
    data = apply_overrides(LEAST, ["train.distill.teacher=resnet18"] if ".distill." in key else [])
    return TrainConfig.parse(apply_overrides(data, [f"{key}={text}"]), "recipe.yaml")


def test_the_keys_are_found() -> None:
    names = {key for key, _ in KEYS}
    assert {"train.epochs", "train.ema.decay", "train.distill.weight", "data.augment.mixup", "probe_queries"} <= names
    assert {key for key, count in KEYS if count == 2} == {
        "data.augment.scale",
        "data.augment.ratio",
        "train.optimizer.betas",
        "train.schedule.noise",
    }
    assert len(KEYS) == 41


@pytest.mark.parametrize("value", ["-1", "-0.5", "1e18", "1000000000000000000", "1e300", ".nan", ".inf", "abc", "{}"])
@pytest.mark.parametrize(("key", "count"), KEYS)
def test_what_no_run_can_use_is_one_line(key: str, count: int, value: str) -> None:
    with pytest.raises(ConfigError) as told:
        parsed(key, value, count)
    line = str(told.value)
    assert "\n" not in line
    assert key in line
    assert "expected " in line or "not a finite number" in line


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epochs=3", "unknown key 'epochs': did you mean train.epochs?"),
        ("train.epoch=3", "unknown key 'train.epoch': did you mean train.epochs"),
        ("lr=3", "did you mean train.optimizer.lr?"),
        ("train.lr=3", "did you mean train.optimizer.lr?"),
        ("train.mixup=3", "did you mean data.augment.mixup?"),
        ("data.augment.sizes=[160", "override 'data.augment.sizes=[160': not valid YAML"),
        ("data.augment.sizes=160", "data.augment.sizes = 160: expected a valid array"),
        ("data.augment.scale=[0.9, 0.1]", "expected scale with the smaller number first, got [0.9, 0.1]"),
        ("data.augment.auto_augment=rand-m9-n99", "expected one of timm's policies, such as rand-m9-mstd0.5-inc1"),
        ("data.augment.auto_augment=rand-mstdinf", "expected one of timm's policies"),
        ("data.augment.interpolation=bicubicc", "'bilinear', 'bicubic'"),
        ("model_args.in_chans=2", "recipe.yaml: expected model_args.in_chans of 1 (grey), 3 (RGB) or 4 (RGBA), got 2"),
        ("model_args.drop_rate=2", "expected model_args.drop_rate of at least 0 and below 1, got 2"),
        ("model_args.drop_path_rate=abc", "model_args.drop_path_rate of at least 0 and below 1, got 'abc'"),
        ("model_args.num_classes=5", "expected model_args without num_classes: the data has the classes"),
        ("model_args.features_only=true", "expected model_args without features_only: a classifier is trained"),
        ("train.epochs=1", "for a short run add train.schedule.warmup_epochs=0"),
    ],
)
def test_a_mistyped_key_or_value_is_told_with_what_was_meant(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as told:
        TrainConfig.parse(apply_overrides(LEAST, [override]), "recipe.yaml")
    assert expected in str(told.value)
    assert "\n" not in str(told.value)
