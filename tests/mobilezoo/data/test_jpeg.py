"""The fast JPEG path shows what PIL shows, in timm's crops, and treats damaged files as configured."""

import io
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation

from mobilezoo.artifacts import Preprocessing
from mobilezoo.data import Augment, DataConfig, open_data, train_loader
from mobilezoo.data.jpeg import Decoder, make_decoder, random_crop
from mobilezoo.data.region import unavailable
from mobilezoo.errors import ConfigError, DataError, MobilezooError

PREP = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
LEAST_DB = {"RegionDecoder": 50.0, "WheelsDecoder": 33.0}
"""On photographs; OpenCV's filters do not widen when they shrink."""


@pytest.fixture(params=["region", "wheels"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    name: str = request.param
    if name == "region" and (why := unavailable()):
        pytest.skip(why)
    if name == "wheels":
        pytest.importorskip("simplejpeg", reason="needs the extra 'fast'")
        pytest.importorskip("cv2", reason="needs the extra 'fast'")
    return make_decoder(name)


def photographs(shared: Path, count: int) -> list[bytes]:
    with tarfile.open(shared / "images" / "clothing.tar") as tar:
        members = (m for m in tar if m.name.endswith(".jpg"))
        found = [tar.extractfile(next(members)) for _ in range(count)]
        return [handle.read() for handle in found if handle is not None]


def jpeg(width: int, height: int, mode: str = "RGB") -> bytes:
    """A smooth pattern, so that neighbouring pixels are alike as in photographs."""
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(x / 17 + c) * 60 + np.cos(y / (11 + c)) * 60 + 127
        for c in range(len(Image.new(mode, (1, 1)).getbands()))
    ]
    out = io.BytesIO()
    Image.fromarray(np.stack(waves, -1).astype("uint8").squeeze(), mode).save(out, "JPEG", quality=95)
    return out.getvalue()


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


def by_pil(data: bytes, crop: tuple[int, int, int, int], size: int, bicubic: bool) -> np.ndarray:
    top, left, height, width = crop
    image = Image.open(io.BytesIO(data)).convert("RGB").crop((left, top, left + width, top + height))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR))


@pytest.mark.parametrize("bicubic", [False, True])
def test_crops_of_photographs_look_as_pil_makes_them(decoder: Decoder, shared: Path, bicubic: bool) -> None:
    random.seed(0)
    errors = []
    for data in photographs(shared, 40):
        crop = random_crop(decoder.size(data), (0.08, 1.0), (0.75, 1.33))
        out = np.zeros((128, 128, 3), np.uint8)
        decoder.decode(data, crop, False, bicubic, out)
        errors.append(np.mean((by_pil(data, crop, 128, bicubic).astype(float) - out) ** 2))
    assert 10 * np.log10(255**2 / np.mean(errors)) > LEAST_DB[type(decoder).__name__]


@pytest.mark.parametrize("crop", [(0, 0, 1, 1), (0, 0, 300, 401), (299, 400, 1, 1), (7, 390, 290, 11), (3, 5, 40, 40)])
def test_odd_crops_stay_inside_the_image_and_flip(decoder: Decoder, crop: tuple[int, int, int, int]) -> None:
    data = jpeg(401, 300)
    plain, flipped = np.zeros((2, 33, 33, 3), np.uint8)
    decoder.decode(data, crop, False, False, plain)
    decoder.decode(data, crop, True, False, flipped)
    assert np.array_equal(plain, flipped[:, ::-1])
    assert psnr_db(plain, by_pil(data, crop, 33, False)) > LEAST_DB[type(decoder).__name__] - 15


def test_grey_files_become_rgb_and_damaged_ones_are_errors(decoder: Decoder) -> None:
    out = np.zeros((24, 24, 3), np.uint8)
    grey = jpeg(60, 50, "L")
    decoder.decode(grey, (0, 0, 50, 60), False, False, out)
    assert np.array_equal(out[..., 0], out[..., 2])
    for broken in (b"", b"\xff\xd8", grey[:100], b"no jpeg at all"):
        with pytest.raises(DataError):
            decoder.size(broken), decoder.decode(broken, (0, 0, 50, 60), False, False, out)


def test_crops_are_timms_own() -> None:
    random.seed(3)
    ours = [random_crop((640, 480), (0.08, 1.0), (0.75, 1.33)) for _ in range(50)]
    random.seed(3)
    image = Image.new("RGB", (640, 480))
    timms = [RandomResizedCropAndInterpolation.get_params(image, (0.08, 1.0), (0.75, 1.33)) for _ in range(50)]
    assert ours == timms


def folder(root: Path) -> Path:
    for split in ("train", "validation"):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for index in range(4):
                (root / split / label / f"{index}.jpg").write_bytes(jpeg(90 + index, 80))
    (root / "train" / "a" / "0.jpg").write_bytes(jpeg(64, 64, "CMYK"))
    Image.new("RGB", (50, 50), (10, 20, 30)).save(root / "train" / "a" / "1.jpg", "PNG")
    return root


@pytest.mark.parametrize("policy", [None, "rand-m5-mstd0.5"])
def test_batches_repeat_whatever_the_number_of_workers(tmp_path: Path, policy: str | None) -> None:
    if why := unavailable():
        pytest.skip(why)
    augment = Augment(auto_augment=policy, color_jitter=0.0, sizes=(32, 48))
    seen = []
    for workers in (0, 2):
        config = DataConfig(
            source=f"folder:{folder(tmp_path / str(workers))}",
            decoder="region",
            batch_size=4,
            workers=workers,
            augment=augment,
        )
        data = open_data(config, train=True)
        seen.append(list(train_loader(config, data, 32, PREP, torch.device("cpu")).epoch(1)))
    for (x, y), (x2, y2) in zip(*seen, strict=True):
        assert x.shape[1] == 3
        assert x.dtype == torch.float32
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_damaged_files_stop_or_are_counted(tmp_path: Path) -> None:
    if why := unavailable():
        pytest.skip(why)
    root = folder(tmp_path)
    torn = root / "train" / "b" / "2.jpg"
    torn.write_bytes(torn.read_bytes()[:300])
    for choice in ("stop", "skip"):
        config = DataConfig(source=f"folder:{root}", decoder="region", batch_size=8, workers=0, on_bad_image=choice)
        data = open_data(config, train=True)
        batches = train_loader(config, data, 32, PREP, torch.device("cpu")).epoch(0)
        if choice == "stop":
            with pytest.raises(DataError, match=r"2\.jpg.*on_bad_image=skip"):
                next(batches)
        else:
            assert len(next(batches)[0]) == 8
            assert int(data.bad_images) == 1


def test_other_sources_and_filters_are_told(tmp_path: Path) -> None:
    config = DataConfig(source="digits", decoder="region", workers=0)
    with pytest.raises(MobilezooError, match="folder:PATH"):
        train_loader(config, open_data(config, train=True), 32, PREP, torch.device("cpu"))
    if unavailable():
        return
    config = DataConfig(
        source=f"folder:{folder(tmp_path)}", decoder="region", batch_size=4, augment=Augment(interpolation="lanczos")
    )
    with pytest.raises(ConfigError, match="bilinear, bicubic, random"):
        train_loader(config, open_data(config, train=True), 32, PREP, torch.device("cpu"))


@pytest.mark.parametrize("name", ["pil", "region", "wheels"])
def test_turned_cmyk_grey_deep_and_transparent_files_mean_the_same_to_every_decoder(tmp_path: Path, name: str) -> None:
    """Left half dark, right half bright; the turned file holds it upside down and says so."""
    if name == "region" and (why := unavailable()):
        pytest.skip(why)
    if name == "wheels":
        pytest.importorskip("simplejpeg", reason="needs the extra 'fast'")
        pytest.importorskip("cv2", reason="needs the extra 'fast'")
    halves = np.repeat(np.array([[40] * 32 + [200] * 32], np.uint8), 64, axis=0)
    upright = Image.fromarray(halves).convert("RGB")
    half_turned = Image.Exif()
    half_turned[0x0112] = 3
    clear = upright.convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(halves == 200, 0, 255).astype(np.uint8)))
    files: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "turned.jpg": (upright.transpose(Image.Transpose.ROTATE_180), {"exif": half_turned, "quality": 95}),
        "cmyk.jpg": (upright.convert("CMYK"), {"quality": 95}),
        "grey.jpg": (upright.convert("L"), {"quality": 95}),
        "deep.png": (Image.fromarray(halves.astype(np.uint16) * 257), {}),
        "clear.png": (clear, {}),
    }
    for file, (image, options) in files.items():
        (tmp_path / "train" / file[0]).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "train" / file[0] / file, **options)
    augment = Augment(scale=(1, 1), ratio=(1, 1), hflip=0, color_jitter=0, interpolation="bilinear")
    config = DataConfig(source=f"folder:{tmp_path}", batch_size=5, workers=0, decoder=name, augment=augment)  # type: ignore[arg-type]
    data = open_data(config, train=True)
    ((x, _),) = train_loader(config, data, 32, PREP, torch.device("cpu")).epoch(0)
    left, right = x[..., :12].mean((1, 2, 3)), x[..., 20:].mean((1, 2, 3))
    assert left.sub(40).abs().max() < 4
    assert sorted(right.round().int().tolist())[-1] == 255  # the transparent half shows white
    assert right.sort().values[:4].sub(200).abs().max() < 4
