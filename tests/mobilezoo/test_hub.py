"""Checkpoints travel in timm's format: through a folder, and through a stand-in for the hub."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn

import mobilezoo
from mobilezoo import hub
from mobilezoo.artifacts import Checkpoint, save_record
from mobilezoo.errors import CheckpointError
from mobilezoo.files import sha256_of
from mobilezoo.models import load_model_config
from mobilezoo.models.randomize import randomize_norms
from mobilezoo.workflows.load_model import load_model

MODEL, SIDE = "mnasnet_a1_035", 64


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    network = randomize_norms(mobilezoo.create_model(MODEL, num_classes=3), torch.Generator().manual_seed(0))
    return write_checkpoint(path, network, MODEL, 40)


def write_checkpoint(path: Path, network: nn.Module, model: str, resolution: int) -> Path:
    save_file(network.state_dict(), path)
    record = Checkpoint(
        path=path.name,
        sha256=sha256_of(path),
        model=model,
        num_classes=3,
        resolution=(resolution, resolution),
        preprocessing=load_model_config(MODEL).preprocessing().model_copy(update={"crop_pct": 0.9}),
        labels=("a", "b", "c"),
    )
    save_record(path, record)
    return path


def logits(network: nn.Module, side: int = 40) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)))


def test_timm_loads_the_folder_and_pull_gives_the_checkpoint_back(checkpoint: Path, tmp_path: Path) -> None:
    folder = hub.write_folder(checkpoint, tmp_path / "shared")
    expected = logits(mobilezoo.create_model(MODEL, checkpoint=checkpoint, num_classes=3))
    assert torch.equal(logits(timm.create_model(f"local-dir:{folder}", pretrained=True)), expected)
    pyramid = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True)
    assert len(pyramid(torch.randn(1, 3, 64, 64))) == 5
    record = hub.pull(str(folder), tmp_path / "pulled")
    assert (record.model, record.resolution, record.labels, record.preprocessing.crop_pct) == (
        MODEL,
        (40, 40),
        ("a", "b", "c"),
        0.9,
    )
    pulled = mobilezoo.create_model(MODEL, checkpoint=tmp_path / "pulled" / record.path, num_classes=3)
    assert torch.equal(logits(pulled), expected)


def test_what_cannot_be_shared_or_read_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(hub.HubError, match=r"has no config\.json"):
        hub.pull(str(tmp_path / "empty"), tmp_path)
    folder = hub.write_folder(checkpoint, tmp_path / "shared")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architecture": "resnet17"}))
    with pytest.raises(hub.HubError, match="'resnet17', which neither the zoo nor the installed timm has"):
        hub.pull(str(folder), tmp_path)
    (folder / "config.json").write_text(json.dumps({**config, "architecture": "resnet18"}))
    with pytest.raises(CheckpointError, match="does not fit timm:resnet18"):
        hub.pull(str(folder), tmp_path)
    (folder / "config.json").write_text("{}")
    with pytest.raises(hub.HubError, match="not in timm's format"):
        hub.pull(str(folder), tmp_path)
    with pytest.raises(hub.HubError, match="OWNER/NAME"):
        hub.pull("no such name", tmp_path)


def test_a_failed_pull_changes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    folder, out = hub.write_folder(checkpoint, tmp_path / "shared"), tmp_path / "pulled"
    hub.pull(str(folder), out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    config = json.loads((folder / "config.json").read_text())
    other = mobilezoo.create_model(MODEL, num_classes=3)
    save_file(other.state_dict(), folder / "model.safetensors")  # a new upload, whose description is broken
    for broken in odd_configs(config):
        (folder / "config.json").write_text(broken)
        with pytest.raises((hub.HubError, CheckpointError)) as caught:
            hub.pull(str(folder), out)
        assert len(str(caught.value).splitlines()) == 1
        assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_push_replaces_its_own_folder_and_no_other(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.write_folder(checkpoint, hub.write_folder(checkpoint, tmp_path / "shared"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("x")
    monkeypatch.chdir(tmp_path / "photos")
    for place in (tmp_path / "photos", Path(), Path("..")):
        with pytest.raises(hub.HubError, match="holds other files"):
            hub.write_folder(checkpoint, place)
    assert (tmp_path / "photos" / "mine.jpg").read_text() == "x"


def odd_configs(config: dict[str, Any]) -> list[str]:
    """What a damaged or hostile config.json may hold."""
    cfg, texts = config["pretrained_cfg"], ["", "{", "[]", "null", "\u2028", "[" * 100_000, "{}", "9" * 5000]
    odd = [
        {"architecture": None},
        {"architecture": "../x"},
        {"architecture": "hf-hub:me/net"},
        {"num_classes": "3"},
        {"num_classes": -3},
        {"num_classes": 4},
        {"num_classes": 10**12},
        {"pretrained_cfg": 3},
        {"label_names": ["a"]},
        {"label_names": {"a": 0}},
        {"label_names": 7},
        {"model_args": ["x"]},
        {"model_args": {"nonsense": 1}},
        {"model_args": {"global_pool": 10**9}},
        {"architecture": "mobilezoo"},
        {"architecture": "mobilezoo", "model_args": {"config": {"name": "x", "family": "supernet"}}},
        {"architecture": "mobilezoo", "model_args": {"config": {"name": "x", "family": "os"}}},
        {"architecture": "mobilezoo", "model_args": {"config": {"name": "x", "family": "mbconv", "stages": 3}}},
    ]
    fields: dict[str, list[Any]] = {
        "input_size": [None, [3], [3, 40, 0], [3, 10**9, 10**9], [3.5, 40, 40], "x"],
        "mean": [None, [], [float("nan")] * 3, ["a"] * 3, [0.5, 0.5]],
        "std": [[0, 1, 1], [-1.0] * 3, [1e999] * 3],
        "crop_pct": ["1", 0, -1, float("inf"), 1e308],
        "interpolation": [3, None],
    }
    texts += [json.dumps({**config, **change}) for change in odd]
    for key, values in fields.items():
        texts += [json.dumps({**config, "pretrained_cfg": {**cfg, key: value}}) for value in values]
    texts += [
        json.dumps({**config, "pretrained_cfg": {k: v for k, v in cfg.items() if k != key}}) for key in ("mean", "std")
    ]
    return texts


YAML = """
family: mbconv
resolution: 40
stages:
  - {block: ds, width: 8}
  - {block: ir, width: 16, stride: 2, expansion: 3, attention: coord}
head: 32
activation: silu
"""


QUICK = ("mine.yaml", "mnasnet_small", "timm:test_vit")
LARGER = ("ghostnet_050", "shvit_s1", "emo2_1m", "timm:mobilenetv3_small_050.lamb_in1k")


@pytest.mark.parametrize("model", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER)])
def test_every_network_answers_the_same_in_timm_and_after_a_pull(tmp_path: Path, model: str) -> None:
    (tmp_path / "best.yaml").write_text(YAML)
    named = str(tmp_path / "best.yaml") if model == "mine.yaml" else model
    config = load_model_config(named).built_for((SIDE, SIDE))
    network = randomize_norms(mobilezoo.create_model(config, num_classes=3), torch.Generator().manual_seed(0))
    weights = tmp_path / "best.safetensors"
    write_checkpoint(weights, network, model, SIDE)
    folder = hub.write_folder(weights, tmp_path / "shared")
    expected = logits(network, SIDE)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
    torch.testing.assert_close(logits(loaded, SIDE), expected)
    assert loaded.pretrained_cfg["input_size"] == (3, SIDE, SIDE)
    record = hub.pull(str(folder), tmp_path / "pulled")
    loaded = load_model(str(tmp_path / "pulled" / record.path))
    torch.testing.assert_close(logits(loaded.network, SIDE), expected)
    assert (loaded.labels, loaded.resolution, loaded.preprocessing.crop_pct) == (("a", "b", "c"), (SIDE, SIDE), 0.9)
    assert record.model == ("shared.yaml" if model == "mine.yaml" else model.partition(".")[0])


def test_timms_own_network_of_a_zoo_name_is_not_taken_for_the_zoos(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = randomize_norms(timm.create_model("mnasnet_small", num_classes=3))
    save_for_hf(theirs, str(tmp_path / "theirs"), safe_serialization=True)
    record = hub.pull(str(tmp_path / "theirs"), tmp_path / "pulled")
    assert record.model == "timm:mnasnet_small"
    loaded = load_model(str(tmp_path / "pulled" / record.path))
    torch.testing.assert_close(logits(loaded.network), logits(theirs))


class Hub(BaseHTTPRequestHandler):
    """Enough of the hub's interface for one repository: create, preupload, commit, download."""

    files: dict[str, bytes] = {}

    def log_message(self, format: str, *args: object) -> None:
        return

    def answer(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        address = f"http://{self.headers['Host']}/me/net"
        if self.path == "/api/repos/create":
            assert self.headers["Authorization"] == "Bearer secret"
            self.answer({"url": address, "id": "me/net", "name": "me/net"})
        elif self.path.endswith("/preupload/main"):
            wanted = json.loads(body)["files"]
            self.answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted]}
            )
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{address}/commit/{'0' * 40}", "commitOid": "0" * 40, "success": True})
        else:
            self.answer({"errors": [], "warnings": []})

    def send_file(self, body: bool) -> None:
        name = self.path.rpartition("/resolve/main/")[2]
        if name not in self.files:
            self.answer({"error": "not found"}, 404)
            return
        self.send_response(200)
        for key, value in {
            "X-Repo-Commit": "0" * 40,
            "ETag": f'"{name}"',
            "Content-Length": len(self.files[name]),
        }.items():
            self.send_header(key, str(value))
        self.end_headers()
        if body:
            self.wfile.write(self.files[name])

    def do_HEAD(self) -> None:
        self.send_file(body=False)

    def do_GET(self) -> None:
        self.send_file(body=True) if "/resolve/" in self.path else self.answer({"id": "me/net", "sha": "0" * 40})


@pytest.mark.slow
def test_push_and_pull_through_a_stand_in_hub(checkpoint: Path, tmp_path: Path) -> None:
    Hub.files.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_TOKEN": "secret",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mobilezoo", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **settings})

    pushed = run("push", str(checkpoint), "me/net")
    assert pushed.returncode == 0, pushed.stderr
    assert sorted(Hub.files) == ["README.md", "config.json", "model.safetensors"]
    pulled = run("pull", "me/net", "--out", str(tmp_path / "pulled"))
    assert pulled.returncode == 0, pulled.stderr
    again = mobilezoo.create_model(MODEL, checkpoint=tmp_path / "pulled" / "net.safetensors", num_classes=3)
    assert torch.equal(logits(again), logits(mobilezoo.create_model(MODEL, checkpoint=checkpoint, num_classes=3)))
    del Hub.files["config.json"]
    missing = run("pull", "me/other")
    server.shutdown()
    assert missing.returncode == 2
    assert missing.stderr.strip().splitlines()[-1].startswith("error: cannot pull 'me/other': the hub answered 404")
