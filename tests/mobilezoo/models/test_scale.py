"""A gigantic network is refused before it is built, a gigantic input before it is computed; real ones are not."""

import re
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from mobilezoo.cli.main import main
from mobilezoo.errors import ConfigError
from mobilezoo.models import create_model, list_models, load_model_config, scale
from mobilezoo.models.bounds import check_numbers
from mobilezoo.models.registry import parse_model_config
from mobilezoo.models.scale import check_activations, within_memory

YAML = """family: mbconv
resolution: 32
stem: 8
head: 32
stages:
  - {{block: ir, depth: {depth}, kernel: 3, stride: 2, expansion: {expansion}, width: {width}}}
  - {{block: ir, depth: 1, kernel: 3, stride: 2, expansion: 6, width: {width}}}
"""


def yaml(folder: Path, depth: Any = 1, expansion: Any = 2, width: Any = 8) -> Path:
    path = folder / "net.yaml"
    path.write_text(YAML.format(depth=depth, expansion=expansion, width=width))
    return path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"width": 10**6}, "stages.0.width = 1000000: expected at most 65,536"),
        ({"width": 1e300}, "expected at most 65,536"),
        ({"depth": 10**5}, "stages.0.depth = 100000: expected at most 65,536"),
        ({"depth": 5000}, "5,001 blocks in all stages: expected at most 1,000"),
        ({"expansion": 1e9}, "stages.0.expansion = 1000000000.0: expected at most 65,536"),
        ({"width": 60_000}, "net: weights would take .*, this machine has .* GB of memory"),
    ],
)
@pytest.mark.parametrize("verb", ["show", "export", "profile", "eval"])
def test_every_verb_refuses_a_gigantic_network_in_a_line(
    verb: str, given: dict[str, Any], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main([verb, str(yaml(tmp_path, **given)), *(["--data", "digits"] if verb == "eval" else [])])
    said = capsys.readouterr().err
    assert (done.value.code, said.count("\n")) == (2, 1)
    assert re.search(expected, said)


def test_train_refuses_it_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["train", "digits", f"model={yaml(tmp_path, width=60_000)}", "--out", str(tmp_path / "run")])
    assert (done.value.code, "weights would take" in capsys.readouterr().err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_what_the_zoo_has_is_within_the_bounds() -> None:
    for name in list_models():
        load_model_config(name)
    check_numbers({"published": {"epochs": 10**9}, "resolution": [8192, 1]}, "x")


def test_weights_are_counted_as_modules_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "physical_bytes", lambda: scale.SHARE * 4_000)
    with within_memory("net"):
        nn.Linear(9, 100)
    with pytest.raises(ConfigError, match="net: weights would take 0 GB"), within_memory("net"):
        nn.Linear(10, 100)
    nn.Linear(10, 100)


def test_what_cannot_be_allocated_at_all_is_the_same_line() -> None:
    with pytest.raises(ConfigError, match="weights would take"), within_memory("net"):
        nn.Linear(1 << 40, 1 << 22)
    with pytest.raises(RuntimeError, match="other"), within_memory("net"):
        raise RuntimeError("other")


def test_a_large_input_is_priced_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_model("mnasnet_small")
    widest = 4096 * 4096 // 4 * 48 * 4  # expansion 3 of 16 channels at half the side is its largest output
    monkeypatch.setattr(scale, "physical_bytes", lambda: scale.SHARE * widest // 2)
    with pytest.raises(ConfigError, match=r"net at 4096 pixels: one layer's output would take \d GB or more"):
        check_activations(network, "net", (3, 4096, 4096))
    check_activations(network, "net", (3, 512, 512))
    monkeypatch.setattr(scale, "physical_bytes", lambda: 1 << 50)
    check_activations(network, "net", (3, 8192, 8192))


def test_numbers_that_no_layers_can_be_made_of_are_one_line() -> None:
    stage = {"block": "ir", "width": 16, "attention": "se", "se_ratio": 1e-4}
    config = parse_model_config({"family": "mbconv", "resolution": 32, "stages": [stage]}, "net", "net.yaml")
    with pytest.raises(ConfigError, match="net: no network can be made of its numbers: float division by zero"):
        create_model(config)
