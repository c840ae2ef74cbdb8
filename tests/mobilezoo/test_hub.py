"""Checkpoints travel in timm's format: through a folder, and through a stand-in for the hub."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import mobilezoo
from mobilezoo import hub
from mobilezoo.artifacts import Checkpoint, save_record, sha256_of
from mobilezoo.errors import CheckpointError
from mobilezoo.models import load_model_config
from mobilezoo.models.randomize import randomize_norms

MODEL = "mnasnet_a1_035"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    network = randomize_norms(mobilezoo.create_model(MODEL, num_classes=3), torch.Generator().manual_seed(0))
    save_file(network.state_dict(), path)
    record = Checkpoint(
        path=path.name,
        sha256=sha256_of(path),
        model=MODEL,
        num_classes=3,
        resolution=40,
        preprocessing=load_model_config(MODEL).preprocessing().model_copy(update={"crop_pct": 0.9}),
        labels=("a", "b", "c"),
    )
    save_record(path, record)
    return path


def logits(network: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1)))


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
    (folder / "config.json").write_text(json.dumps({**config, "architecture": "resnet18"}))
    with pytest.raises(hub.HubError, match="'resnet18', which is no network of the zoo"):
        hub.pull(str(folder), tmp_path)
    (folder / "config.json").write_text("{}")
    with pytest.raises(hub.HubError, match="not in timm's format"):
        hub.pull(str(folder), tmp_path)
    with pytest.raises(hub.HubError, match="OWNER/NAME"):
        hub.pull("no such name", tmp_path)
    record = json.loads((tmp_path / "best.safetensors.json").read_text())
    (tmp_path / "best.safetensors.json").write_text(json.dumps({**record, "model": "mine.yaml"}))
    with pytest.raises(CheckpointError, match="YAML of your own"):
        hub.write_folder(checkpoint, tmp_path / "other")


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
        command = [sys.executable, "-m", "mobilezoo.cli", *args]
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
