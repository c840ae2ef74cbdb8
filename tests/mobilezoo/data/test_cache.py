"""Small copies: made once, whole, by any number of processes; they look like their originals; damage stays damage."""

import errno
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mobilezoo.artifacts import Preprocessing
from mobilezoo.data import DataConfig, open_data, train_loader
from mobilezoo.data.cache import SmallCopies
from mobilezoo.errors import DataError, MobilezooError

PREP = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def photo(path: Path, width: int, height: int, shift: int = 0) -> Path:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x + shift) / 37 + c) * 60 + np.cos(y / (29 + c)) * 60 + 127 for c in range(3)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack(waves, -1).astype("uint8")).save(path, quality=95)
    return path


def folder(root: Path, images: int = 8) -> Path:
    for split in ("train", "validation"):
        for index in range(images):
            photo(root / split / "ab"[index % 2] / f"{index}.jpg", 640, 480, index)
    return root


def fetch(job: tuple[Path, str]) -> str:
    return SmallCopies(job[0])(job[1])


def test_a_copy_has_the_short_side_at_256_and_looks_the_same(tmp_path: Path) -> None:
    original = photo(tmp_path / "large.jpg", 1200, 900)
    copy = Path(SmallCopies(tmp_path / "cache")(str(original)))
    with Image.open(copy) as small, Image.open(original) as large:
        assert small.size == (341, 256)
        wanted = np.asarray(large.resize(small.size, Image.Resampling.BICUBIC)).astype(float)
        assert 10 * np.log10(255**2 / np.mean((np.asarray(small) - wanted) ** 2)) > 40
    assert copy.stat().st_size < original.stat().st_size / 2
    tiny = photo(tmp_path / "tiny.png", 40, 300)
    assert Path(SmallCopies(tmp_path / "cache")(str(tiny))).read_bytes() == tiny.read_bytes()


def test_processes_that_fill_one_cache_together_leave_whole_files_only(tmp_path: Path) -> None:
    originals = [str(photo(tmp_path / f"{i}.jpg", 400, 300, i)) for i in range(6)]
    jobs = [(tmp_path / "cache", path) for path in originals] * 6
    with ProcessPoolExecutor(4) as pool:
        copies = set(pool.map(fetch, jobs))
    assert len(copies) == 6
    for copy in copies:
        with Image.open(copy) as image:
            image.load()
    left = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert {str(p) for p in left} == copies
    assert SmallCopies(tmp_path / "cache").size() == (6, sum(p.stat().st_size for p in left))


def test_a_changed_image_gets_a_new_copy(tmp_path: Path) -> None:
    copies = SmallCopies(tmp_path / "cache")
    first = copies(str(photo(tmp_path / "a.jpg", 400, 300)))
    assert copies(str(tmp_path / "a.jpg")) == first
    photo(tmp_path / "a.jpg", 400, 300, shift=90)
    assert copies(str(tmp_path / "a.jpg")) != first


@pytest.mark.parametrize("decoder", ["pil", "wheels"])
def test_epochs_from_the_cache_are_the_same_with_any_number_of_workers(tmp_path: Path, decoder: str) -> None:
    if decoder == "wheels":
        pytest.importorskip("simplejpeg", reason="needs the extra 'fast'")
        pytest.importorskip("cv2", reason="needs the extra 'fast'")
    root = folder(tmp_path / "data")
    seen = []
    for workers in (2, 0):
        config = DataConfig(
            source=f"folder:{root}",
            cache=str(tmp_path / "cache"),
            decoder=decoder,
            batch_size=4,
            workers=workers,  # type: ignore[arg-type]
        )
        loader = train_loader(config, open_data(config, train=True), 32, PREP, torch.device("cpu"))
        seen.append(list(loader.epoch(0)))
    for (x, y), (x2, y2) in zip(*seen, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert SmallCopies(tmp_path / "cache").size()[0] == 8  # validation reads its originals
    assert open_data(config, train=False).cache is None


def test_damage_a_full_disk_and_other_sources_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "data")
    torn = root / "train" / "a" / "0.jpg"
    torn.write_bytes(torn.read_bytes()[:900])
    config = DataConfig(source=f"folder:{root}", cache=str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"0\.jpg.*on_bad_image=skip"):
        _ = open_data(config, train=True).dataset[0]

    def full(_path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mobilezoo.data.cache._write", full)
    with pytest.raises(MobilezooError, match="No space left on device"):
        _ = open_data(config, train=True).dataset[1]
    with pytest.raises(DataError, match="folder:PATH images only"):
        open_data(DataConfig(source="digits", cache="anywhere"), train=True)
