"""Tars, WebDataset shards, parquet: the same digits from every source, in order, resumable, damaged ones counted."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mobilezoo.artifacts import Preprocessing
from mobilezoo.data import Augment, DataConfig, eval_loader, open_data, train_loader
from mobilezoo.data.shards import ShardSplit
from mobilezoo.errors import DataError
from mobilezoo.train.trainer import seed_all

PREP = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CPU = torch.device("cpu")
EACH = 12


def digits() -> list[tuple[str, int, bytes]]:
    """(name, class, PNG) of a few scans of 0, 1 and 2."""
    from sklearn.datasets import load_digits

    found = []
    source = load_digits()
    for label in range(3):
        for index, pixels in enumerate(source.images[source.target == label][:EACH]):
            out = io.BytesIO()
            Image.fromarray((pixels * 15).astype("uint8")).convert("RGB").save(out, "PNG")
            found.append((f"{label}_{index:02d}", label, out.getvalue()))
    return found


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def one_tar(root: Path) -> DataConfig:
    """train.tar and validation.tar, class folders inside."""
    for split in ("train", "validation"):
        with tarfile.open(root / f"{split}.tar", "w") as tar:
            for name, label, png in digits():
                add(tar, f"class_{label}/{name}.png", png)
    return DataConfig(source=f"tar:{root}", batch_size=6, workers=2)


def class_tars(root: Path) -> DataConfig:
    """train/class_0.tar …: as ImageNet's training images come."""
    for split in ("train", "val"):
        (root / split).mkdir()
        for label in range(3):
            with tarfile.open(root / split / f"class_{label}.tar", "w") as tar:
                for name, _, png in (item for item in digits() if item[1] == label):
                    add(tar, f"{name}.png", png)
    return DataConfig(source=f"tar:{root}", batch_size=6, workers=0)


def shards(root: Path) -> DataConfig:
    """WebDataset: sample.png beside sample.cls."""
    pytest.importorskip("webdataset", reason="needs the extra 'data'")
    for number in range(2):
        with tarfile.open(root / f"train-{number:04d}.tar", "w") as tar:
            for name, label, png in digits()[number::2]:
                add(tar, f"{name}.png", png)
                add(tar, f"{name}.cls", str(label).encode())
    split = "train-{0000..0001}.tar|" + str(3 * EACH)
    return DataConfig(
        source="wds/", root=str(root), train_split=split, val_split=split, num_classes=3, batch_size=6, workers=0
    )


def parquet(root: Path) -> DataConfig:
    """A folder of parquet files with PNG bytes, as Hugging Face datasets keep them."""
    datasets = pytest.importorskip("datasets", reason="needs the extra 'data'")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["zero", "one", "two"])}
    )
    rows = {
        "image": [{"bytes": png, "path": name} for name, _, png in digits()],
        "label": [label for _, label, _ in digits()],
    }
    for split in ("train", "validation"):
        datasets.Dataset.from_dict(rows, features=features).to_parquet(root / f"{split}-00000-of-00001.parquet")
    return DataConfig(source=f"hfds/{root}", root=f"{root}_cache", batch_size=6, workers=0)


SOURCES: list[Callable[[Path], DataConfig]] = [one_tar, class_tars, shards, parquet]


@pytest.mark.parametrize("make", SOURCES)
def test_every_source_shows_every_image_with_its_class(tmp_path: Path, make: Callable[[Path], DataConfig]) -> None:
    config = make(tmp_path)
    data = open_data(config, train=False)
    assert len(data.labels) == 3
    loader = eval_loader(config, data, 16, PREP, CPU)
    classes = torch.cat([y for _, y in loader])
    assert torch.bincount(classes).tolist() == [EACH] * 3
    if make is parquet:
        assert data.labels == ("zero", "one", "two")
    elif make is not shards:
        assert data.labels == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize("make", SOURCES)
def test_an_epoch_of_every_source_goes_on_from_any_batch(tmp_path: Path, make: Callable[[Path], DataConfig]) -> None:
    config = make(tmp_path).model_copy(update={"augment": Augment(auto_augment="rand-m5-mstd0.5")})

    def epoch(number: int, start: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
        loader = train_loader(config, open_data(config, train=True), 16, PREP, CPU)
        found = []
        batches = loader.epoch(number, start)
        for position in range(start, len(loader)):
            seed_all(0, position)  # as the trainer does before every update
            found.append(next(batches))
        return found

    whole, rest, other = epoch(1), epoch(1, start=3), epoch(2)
    assert len(whole) == 6
    for (x, y), (x2, y2) in zip(whole[3:], rest, strict=True):
        assert torch.equal(y, y2)
        assert torch.equal(x, x2)
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(whole, other, strict=True))


@pytest.mark.parametrize("choice", ["stop", "skip"])
def test_a_damaged_image_inside_a_tar_stops_or_is_counted(tmp_path: Path, choice: Any) -> None:
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for name, label, png in digits():
            add(tar, f"class_{label}/{name}.png", png[:40] if name == "1_03" else png)
    config = DataConfig(source=f"tar:{tmp_path}", workers=0, on_bad_image=choice)
    data = open_data(config, train=True)
    if choice == "stop":
        with pytest.raises(DataError, match=r"1_03\.png.*on_bad_image=skip"):
            _ = [data.dataset[i] for i in range(len(data.dataset))]
    else:
        assert len([data.dataset[i] for i in range(len(data.dataset))]) == 3 * EACH
        assert int(data.bad_images) == 1


def test_a_tar_that_is_none_or_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither train\.tar nor a folder train"):
        open_data(DataConfig(source=f"tar:{tmp_path}"), train=True)
    (tmp_path / "train.tar").write_bytes(json.dumps({"no": "tar"}).encode() * 300)
    with pytest.raises(DataError, match="cannot be read as tar"):
        open_data(DataConfig(source=f"tar:{tmp_path}"), train=True)


def test_a_source_of_ones_own_is_named_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_sources.py").write_text(
        "from mobilezoo.data.sources import open_digits\n"
        "def halves(config, train):\n"
        "    data = open_digits(config, train)\n"
        "    data.dataset.indices = data.dataset.indices[::2]\n"
        "    return data\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = DataConfig(source="own_sources:halves")
    assert len(open_data(config, train=False).dataset) == 180
    with pytest.raises(DataError, match="dataset folder not found: 'own_sources'"):
        open_data(DataConfig(source="folder:own_sources"), train=True)


def test_a_file_of_holes_is_no_image_and_takes_no_memory(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, label, png in digits():
            add(tar, f"class_{label}/{name}.png", png)
        info = tarfile.TarInfo("class_0/holes.png")
        info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**13), "GNU.sparse.name": info.name}
        tar.addfile(info)
    assert len(open_data(DataConfig(source=f"tar:{tmp_path}", workers=0), train=True).dataset) == 3 * EACH


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"label": NaN}', b"[]", b'{"label": "x"}', b"\xff", b"{}"])
def test_a_shards_label_that_is_none_is_one_line(tmp_path: Path, content: bytes) -> None:
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        add(tar, "a.png", digits()[0][2])
        add(tar, "a.json", content)
    with pytest.raises(DataError, match="holds no class number") as caught:
        ShardSplit([tmp_path / "train-0.tar"], "label")
    assert str(caught.value).isprintable()
    with tarfile.open(tmp_path / "train-1.tar", "w") as tar:
        add(tar, "a.png", digits()[0][2])
        add(tar, "a.cls", bytes(2_000_000))
    with pytest.raises(DataError, match="2,000,000 bytes"):
        ShardSplit([tmp_path / "train-1.tar"])
