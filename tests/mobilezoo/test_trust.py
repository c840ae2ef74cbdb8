"""A shared network's config imports no code of its author's choice, unless the user allows it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import mobilezoo
from mobilezoo import hub
from mobilezoo.cli.main import main
from mobilezoo.errors import ConfigError
from mobilezoo.trust import allow_commands, require_no_places

STAGES: list[dict[str, Any]] = [
    {"block": "ds", "depth": 1, "width": 8, "stride": 2, "kernel": 3, "attention": "foreign_code:layer"},
]
LAYER = "import torch\nLOADED = True\n\n\ndef layer(channels):\n    return torch.nn.Identity()\n"


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in timm's format whose network has an attention layer by its place."""
    (tmp_path / "foreign_code.py").write_text(LAYER)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "shared"
    folder.mkdir()
    model = {"name": "theirs", "family": "mbconv", "resolution": 32, "stem": 8, "head": 16, "stages": STAGES}
    cfg = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 2}
    data = {"architecture": "mobilezoo", "num_classes": 2, "model_args": {"config": model}, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(data))
    plain = {**model, "stages": [{**STAGES[0], "attention": "none"}]}
    network = timm.create_model("mobilezoo", config=plain, num_classes=2)
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def test_a_pulled_config_that_names_code_is_refused_before_it_is_imported(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["pull", str(shared), "--out", str(tmp_path / "out")])
    assert done.value.code == 2
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1
    assert "stages.attention = 'foreign_code:layer' imports code: pass --allow-commands" in line
    assert "foreign_code" not in sys.modules
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="imports code"):
        timm.create_model(f"local-dir:{shared}")
    assert "foreign_code" not in sys.modules


def test_it_is_pulled_where_the_user_allows_it(shared: Path, tmp_path: Path) -> None:
    allow_commands()
    try:
        record = hub.pull(str(shared), tmp_path / "out")
    finally:
        allow_commands(False)
        sys.modules.pop("foreign_code", None)
    network = mobilezoo.create_model(tmp_path / "out" / record.model, num_classes=2)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_places_are_found_at_any_depth() -> None:
    require_no_places({"a": ["C:\\x", "folder:/data", 3, None, {"b": "name"}]}, "config")
    with pytest.raises(ConfigError, match=r"config\.a\.b = 'os:system' imports code"):
        require_no_places({"a": [1, {"b": ("x", "os:system")}]}, "config")
