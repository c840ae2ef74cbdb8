"""Damaged files of every kind end in one line of a user's error, or are read; quickly and in little memory.

The default is a sample; `-m slow` tries eight times as many.
"""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mobilezoo import hub
from mobilezoo.artifacts import Artifact, Checkpoint, InputSpec, load_record_of
from mobilezoo.config import config_root, load_record
from mobilezoo.data import DataConfig, open_data
from mobilezoo.data.check import Job, inspect
from mobilezoo.data.classes import place_classes
from mobilezoo.data.shards import ShardSplit
from mobilezoo.errors import DataError
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo.models import create_model, load_model_config
from mobilezoo.models.weights import tensors_of
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.search.networks import load_search_config
from mobilezoo.testing.fuzzing import damages, error_line
from mobilezoo.train.config import TrainConfig
from mobilezoo_latency import Store
from mobilezoo_latency.estimators.kernels import FEATURES
from mobilezoo_latency.estimators.predictor import Predictor, PredictorRecord
from mobilezoo_latency.estimators.table import Table, import_csv, load_table
from mobilezoo_latency.registry import load_device
from mobilezoo_latency.results import import_results

Corpus = dict[str, bytes]
LONGER = 8
"""Times as many rounds with `-m slow`."""
PREP = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
INFO = DeviceInfo(name="host", kind="host", runtime="LiteRT 2.3.0 (XNNPACK)", cpu="a cpu", os="an os")
SEARCH = Path(__file__).parents[1] / "data"


def rounds(each: int) -> Any:
    return pytest.mark.parametrize("count", [each, pytest.param(each * LONGER, marks=pytest.mark.slow)])


def fuzz(corpus: Corpus, path: Path, opened: Callable[[Path], Any], count: int) -> None:
    """Every damaged file is written to `path` and opened; some must be refused, or nothing was tried."""
    lines = set()
    for number, (source, data) in enumerate(damages(corpus, count)):
        path.write_bytes(data)
        lines.add(error_line(lambda: opened(path), f"round {number} of {source}"))
    assert len(lines - {""}) > 1


def shipped(kind: str, *names: str) -> Corpus:
    return {name: (config_root() / kind / f"{name}.yaml").read_bytes() for name in names}


def as_json(*records: Any) -> Corpus:
    return {str(i): record.model_dump_json(indent=1).encode() for i, record in enumerate(records)}


@rounds(40)
def test_recipes(tmp_path: Path, count: int) -> None:
    corpus = shipped("train", "digits", "shvit", "finetune")
    fuzz(corpus, tmp_path / "x.yaml", lambda path: load_record(TrainConfig, path), count)


@rounds(30)
def test_searches(tmp_path: Path, count: int) -> None:
    corpus = shipped("search", "digits", "attention", "mnasnet")
    fuzz(corpus, tmp_path / "x.yaml", lambda path: load_search_config(str(path)), count)


@rounds(40)
def test_devices(tmp_path: Path, count: int) -> None:
    corpus = shipped("devices", "host", "cortex_a53", "android", "ssh", "browser", "mac")
    fuzz(corpus, tmp_path / "x.yaml", lambda path: load_device(path), count)


@rounds(40)
def test_networks(tmp_path: Path, count: int) -> None:
    names = ("mnasnet_small", "shvit_s1", "mobilenext_035", "cas_vit_xs", "mobilemamba_t2", "emo2_1m", "ghostnet_050")
    fuzz(shipped("models", *names), tmp_path / "x.yaml", lambda path: create_model(path), count)


def weights() -> dict[str, Any]:
    tensors = {f"stage.{i}.weight": torch.ones(2, 3, dtype=kind) for i, kind in enumerate((torch.float32, torch.int64))}
    return {"state_dict": {**tensors, "turned": torch.ones(4, 4).t(), "half": torch.ones(3).half()}, "epoch": 3}


def packed(pickled: bytes, storages: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in {"x/data.pkl": pickled, "x/byteorder": b"little", **storages}.items():
            file.writestr(name, data)
    return out.getvalue()


def finite(path: Path) -> int:
    """Touch every number, as loading does."""
    return sum(int(t.isfinite().sum()) for t in tensors_of(path).values() if not t.is_meta and t.dtype.itemsize > 1)


@rounds(150)
def test_pickles_in_archives(tmp_path: Path, count: int) -> None:
    torch.save(weights(), tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as file:
        entries = {name: file.read(name) for name in file.namelist()}
    pickled = {name: data for name, data in entries.items() if name.endswith("/data.pkl")}
    rest = {name.replace("archive", "x"): data for name, data in entries.items() if "/data/" in name}

    def opened(path: Path) -> None:
        inside = tmp_path / "packed.pth"
        inside.write_bytes(packed(path.read_bytes(), rest))
        finite(inside)

    fuzz(pickled, tmp_path / "x.pkl", opened, count)


@rounds(150)
@pytest.mark.parametrize("layout", ["archive", "row", "safetensors"])
def test_files_of_tensors(tmp_path: Path, count: int, layout: str) -> None:
    path = tmp_path / ("x.safetensors" if layout == "safetensors" else "x.pth")
    if layout == "safetensors":
        save_file({key: value.contiguous() for key, value in weights()["state_dict"].items()}, path)
    else:
        torch.save(weights(), path, _use_new_zipfile_serialization=layout == "archive")
    fuzz({layout: path.read_bytes()}, path, finite, count)


@rounds(60)
def test_records_beside_files(tmp_path: Path, count: int) -> None:
    sha = {"path": "x", "sha256": "a" * 64, "preprocessing": PREP, "model": "shvit_s1"}
    checkpoint = Checkpoint(num_classes=3, resolution=48, labels=("a", "b"), data={"source": "digits"}, **sha)
    artifact = Artifact(
        target="onnx",
        precision="fp32",
        input=InputSpec(shape=(1, 3, 8, 8)),
        size_bytes=3,
        parity=None,
        tools={"onnx": "1"},
        **sha,
    )
    (tmp_path / "x").write_bytes(b"file")
    for record in (checkpoint, artifact):
        fuzz(
            as_json(record),
            tmp_path / "x.json",
            lambda _: load_record_of(type(record), tmp_path / "x"),  # noqa: B023 - called at once
            count,
        )


def report() -> LatencyReport:
    return LatencyReport(
        artifact_sha256="a" * 64,
        artifact="a.tflite",
        target="litert",
        precision="fp32",
        model="a",
        device=INFO,
        protocol=Protocol(),
        samples_ms=(1.0, 2.0, 3.0),
        load_ms=1.0,
        first_run_ms=1.0,
        sentinel_before_ms=1.0,
        sentinel_after_ms=1.0,
        measured_at="2024-01-01T00:00:00+00:00",
    )


@rounds(40)
def test_results_of_others(tmp_path: Path, count: int) -> None:
    line, store = report().model_dump_json().encode(), Store(tmp_path / "latency.db")
    corpus = {"one": line + b"\n", "two": line + b"\n\n" + line + b"\r\n"}
    fuzz(corpus, tmp_path / "x.jsonl", lambda path: import_results(store, path), count)


def predictor() -> PredictorRecord:
    width = len(FEATURES)
    return PredictorRecord(
        device=INFO,
        inputs=((1.0,) * width, (2.0,) * width, (3.0,) * width),
        latencies_ms=(1.0, 2.0, 3.0),
        rates=(0.5,) * (width + 1),
        length_scale=1.0,
        signal=0.1,
        noise=0.1,
        widening=1.0,
        error_percent=5.0,
    )


@rounds(60)
def test_tables_and_predictors(tmp_path: Path, count: int) -> None:
    fitted = {"scale": 1.1, "error_percent": 3.0, "low_ratio": 0.9, "high_ratio": 1.1, "networks": 4}
    table = Table(device=INFO, source="measured", blocks_ms={"a": 1.0, "b": 2.0}, **fitted)
    fuzz(as_json(table), tmp_path / "t.json", lambda path: load_table(path).compose(["a", "b"]), count)
    alone = predictor()
    carried = alone.model_copy(update={"rates": (), "source": alone})
    fuzz(as_json(alone, carried), tmp_path / "p.json", lambda path: Predictor.load(path).predict_kernels([]), count)
    csv = b'key,mean_ms\nfirst,1.5\n"second, wide",2\nthird,0.25\n'
    fuzz({"csv": csv}, tmp_path / "t.csv", lambda path: import_csv(path, INFO), count)


@rounds(60)
def test_lists_of_classes(tmp_path: Path, count: int) -> None:
    data = ("cat", "dog", "owl")
    corpora = {
        "x.json": {
            "list": b'["cat",\n"dog",\n"owl"]',
            "names": b'{"cat": 0,\n"dog": 2,\n"owl": 1}',
            "outputs": b'{"0": "owl"}',
        },
        "x.txt": {"lines": b"cat\ndog\n\nowl\n"},
    }
    for name, corpus in corpora.items():
        fuzz(corpus, tmp_path / name, lambda path: place_classes(data, 4, given=str(path)), count)


@rounds(8)
def test_shared_folders(tmp_path: Path, count: int) -> None:
    network = create_model("mnasnet_a1_035", num_classes=3)
    folder = tmp_path / "shared"
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    config = load_model_config("mnasnet_a1_035")
    data = {"architecture": "mobilezoo", "num_classes": 3, "model_args": {"config": {"name": "mine", **config.plain()}}}
    text = json.dumps({**data, "pretrained_cfg": {"input_size": [3, 64, 64], **PREP.to_timm()}}, indent=1)
    fuzz({"config": text.encode()}, folder / "config.json", lambda _: hub.pull(str(folder), tmp_path / "out"), count)


def pictures() -> Corpus:
    image, found = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)), {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        out = io.BytesIO()
        image.save(out, kind)
        found[kind] = out.getvalue()
    return found


@rounds(300)
def test_pictures(tmp_path: Path, count: int) -> None:
    def opened(path: Path) -> None:
        entry = inspect(Job(str(path), path.stat().st_size, 0))
        if entry.fault:
            raise DataError(entry.fault)

    fuzz(pictures(), tmp_path / "x.img", opened, count)


def tarred(files: Corpus) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@rounds(60)
def test_archives_of_pictures(tmp_path: Path, count: int) -> None:
    found = pictures()
    split = tarred({f"class_{i}/{kind}.{kind.lower()}": data for i in range(2) for kind, data in found.items()})
    config = DataConfig(source=f"tar:{tmp_path}", workers=0, on_bad_image="skip")

    def opened(_: Path) -> None:
        data = open_data(config, train=True).dataset
        _items = [data[i] for i in range(len(data))]

    fuzz({"split": split}, tmp_path / "train.tar", opened, count)
    shard = tarred({f"{i}.{end}": data for i in range(3) for end, data in (("png", found["PNG"]), ("cls", b"1"))})
    fuzz({"shard": shard}, tmp_path / "x.tar", lambda path: ShardSplit([path]).scan(("a", "b")), count)
