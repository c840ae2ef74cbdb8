"""Sizes are written in three ways and kept in one."""

from typing import Any

import pytest

from mobilezoo.cli.main import main
from mobilezoo.cli.model_options import resolution_override
from mobilezoo.config import Record
from mobilezoo.errors import ConfigError
from mobilezoo.resolution import Resolution, parse_resolution, written
from mobilezoo.train.config import TrainConfig


class Sized(Record):
    resolution: Resolution


@pytest.mark.parametrize("value", ["192x256", "192X256", " 192 × 256 ", [192, 256], (192, 256)])
def test_height_comes_first_however_it_is_written(value: Any) -> None:
    assert Sized(resolution=value).resolution == (192, 256)
    assert Sized.parse({"resolution": value}).resolution == (192, 256)


@pytest.mark.parametrize("value", [224, "224", [224]])
def test_one_number_is_a_square(value: Any) -> None:
    record = Sized.parse({"resolution": value})
    assert record.resolution == (224, 224)
    assert Sized.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    "value",
    [0, -1, True, 1.5, "", "x", "192x", "1x2x3", "1e3", "99999999x4", 10**9, [1, 2, 3], [], ["192", 3], {}, None],
)
def test_anything_else_is_one_line(value: Any) -> None:
    with pytest.raises(ConfigError, match="expected a side or height x width") as caught:
        Sized.parse({"resolution": value}, "mine.yaml")
    assert "\n" not in str(caught.value)


def test_an_option_is_read_like_a_record() -> None:
    assert parse_resolution("192x256") == (192, 256)
    with pytest.raises(ConfigError, match=r"--resolution '192:256': expected .* 192x256"):
        parse_resolution("192:256")


def test_tables_show_what_a_user_would_write() -> None:
    assert (written((224, 224)), written((192, 256))) == (224, "192x256")


@pytest.mark.parametrize("channels", [2, 0, 5, "3", True, None, 1.5])
def test_training_takes_as_many_channels_as_images_have(channels: Any) -> None:
    data = {"model": "mnasnet_small", "data": {"source": "digits"}, "model_args": {"in_chans": channels}}
    with pytest.raises(ConfigError, match=r"in_chans of 1 \(grey\), 3 \(RGB\) or 4 \(RGBA\), got"):
        TrainConfig.parse(data)


def test_train_takes_it_as_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["train", "digits", "--resolution", "24x32", "--keys", "--json"])
    assert not done.value.code
    assert "[24, 32]" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--resolution 'big': expected"):
        resolution_override("big")
