"""Every mode a file can have means what viewers show; what nobody can read right is refused by name."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from mobilezoo.data import DataConfig, open_data
from mobilezoo.data.cache import SmallCopies
from mobilezoo.data.jpeg import _is_turned
from mobilezoo.data.pixels import Pixels
from mobilezoo.errors import ConfigError, DataError

RED = Image.new("RGB", (6, 4), (200, 30, 90))
WHITE = (255, 255, 255)


def saved(image: Image.Image, form: str, **options: Any) -> io.BytesIO:
    out = io.BytesIO()
    image.save(out, form, **options)
    out.seek(0)
    return out


def grey(values: Any, dtype: Any) -> Image.Image:
    return Image.fromarray(np.array([values], dtype))


def row(image: Image.Image) -> list[int]:
    """The red channel of the first row; all three are equal in a grey image."""
    pixels = np.asarray(image)
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[..., :1]).all()
    return [int(v) for v in pixels[0, :, 0]]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG2000", "PPM"])
def test_16_bit_grey_is_scaled_not_cut(form: str) -> None:
    deep = grey([0, 257 * 10, 8000, 52000, 65535], np.uint16)
    assert row(Pixels().read(saved(deep, form))) == [0, 10, 31, 202, 255]


def test_16_bit_tiffs_count_from_white_where_they_say_so() -> None:
    deep = grey([0, 2570, 65535], np.uint16)
    assert row(Pixels().read(saved(deep, "TIFF", tiffinfo={262: 0}))) == [255, 245, 0]


def test_16_bit_color_keeps_its_high_bytes() -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    line = b"\0" + struct.pack(">3H", 51400, 7710, 23130)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(line)) + chunk(b"IEND", b"")
    assert Pixels().read(io.BytesIO(png)).getpixel((0, 0)) == (200, 30, 90)


def test_floats_are_read_from_0_to_1_and_refused_beyond() -> None:
    assert row(Pixels().read(saved(grey([0, 0.5, 1], np.float32), "TIFF"))) == [0, 128, 255]
    for values in ([0, 100], [-1, 1], [float("nan"), 0]):
        with pytest.raises(ValueError, match=r"only 0\.\.1 is known"):
            Pixels().read(saved(grey(values, np.float32), "TIFF"))


def test_integers_without_a_white_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no white of their own"):
        Pixels().read(saved(grey([0, 5, 100], np.int32), "TIFF"))


@pytest.mark.parametrize(
    ("mode", "form", "near"), [("CMYK", "JPEG", 3), ("CMYK", "TIFF", 0), ("YCbCr", "TIFF", 3), ("P", "GIF", 0)]
)
def test_other_color_spaces_become_the_same_rgb(mode: str, form: str, near: int) -> None:
    options = {"quality": 100} if form == "JPEG" else {}
    image = RED.quantize(4) if mode == "P" else RED.convert(mode)
    found = Pixels().read(saved(image, form, **options)).getpixel((1, 1))
    assert np.abs(np.array(found) - (200, 30, 90)).max() <= near


def test_lab_goes_through_color_management() -> None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(RED, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    assert lab is not None
    found = Pixels().read(saved(lab, "TIFF")).getpixel((0, 0))
    assert np.abs(np.array(found) - (200, 30, 90)).max() <= 4


def test_one_bit_and_grey_become_rgb() -> None:
    assert row(Pixels().read(saved(grey([True, False], bool), "PNG"))) == [255, 0]
    assert row(Pixels().read(saved(grey([7, 200], np.uint8), "PNG"))) == [7, 200]


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (RED.convert("RGBA"), {}),
        (RED.convert("LA"), {}),
        (RED.quantize(4), {"transparency": 0}),
        (RED.quantize(4), {"transparency": b"\0" * 256}),
        (RED, {"transparency": (200, 30, 90)}),
        (grey([2570] * 4, np.uint16), {"transparency": 2570}),
    ],
)
def test_transparent_pixels_show_the_background(image: Image.Image, options: dict[str, Any]) -> None:
    image = image.copy()
    if image.mode in ("RGBA", "LA"):
        image.putalpha(0)
    file = saved(image, "PNG", **options)
    assert Pixels().read(file).getpixel((0, 0)) == WHITE
    assert Pixels(background=(1, 2, 3)).read(file).getpixel((0, 0)) == (1, 2, 3)


def test_half_transparent_pixels_are_mixed_with_the_background() -> None:
    half = RED.convert("RGBA")
    half.putalpha(128)
    assert Pixels(background=(0, 0, 0)).read(saved(half, "PNG")).getpixel((0, 0)) == (100, 15, 45)


def photo(turned: int) -> Image.Image:
    """A gradient whose file says that the camera was turned."""
    y, x = np.mgrid[:40, :60]
    image = Image.fromarray(np.stack([x * 4, y * 6, x + y], -1).astype(np.uint8))
    image.getexif()[0x0112] = turned
    return image


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_photographs_stand_upright(form: str, turned: int) -> None:
    image = photo(turned)
    file = saved(image, form, exif=image.getexif())
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue())))
    assert Pixels().read(file).tobytes() == upright.convert("RGB").tobytes()
    if form == "JPEG":
        assert _is_turned(file.getvalue()) == (turned > 1)
        assert Pixels(exif=False).read(file).size == (60, 40)


def test_damaged_metadata_leaves_the_image_as_it_lies() -> None:
    file = saved(RED, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert Pixels().read(file).size == (6, 4)
    assert not _is_turned(file.getvalue())


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        file = saved(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert Pixels().read(file).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_networks_get_as_many_channels_as_they_take(mode: str) -> None:
    image = grey([8000] * 4, np.uint16) if mode == "I;16" else RED.convert(mode)
    assert [Pixels(channels=c).convert(image).mode for c in (1, 3, 4)] == ["L", "RGB", "RGBA"]


def test_four_channels_keep_the_transparency() -> None:
    half = RED.convert("RGBA")
    half.putalpha(128)
    assert Pixels(channels=4).read(saved(half, "PNG")).getpixel((0, 0)) == (200, 30, 90, 128)


def test_a_format_that_starts_other_programs_is_not_opened(tmp_path: Path) -> None:
    file = saved(RED, "EPS")
    with pytest.raises(OSError, match="cannot identify"):
        Pixels().read(file)


def test_an_unknown_background_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"data\.background='sky' is no color"):
        DataConfig(source="digits", background="sky")


def test_training_and_eval_and_small_copies_read_the_same_pixels(tmp_path: Path) -> None:
    """A deep, a transparent and a turned image, large enough that a small copy is made of them."""
    noise = np.random.default_rng(0).integers(0, 257, (300, 400, 4))
    deep = Image.fromarray((51872 + noise[..., 0]).astype(np.uint16))
    clear = Image.fromarray((noise * [1, 1, 1, 0]).clip(0, 255).astype(np.uint8))
    turned = photo(6).resize((600, 400))
    for split in ("train", "val"):
        for name, image, options in (
            ("deep.png", deep, {}),
            ("clear.png", clear, {}),
            ("turned.jpg", turned, {"exif": photo(6).getexif()}),
        ):
            (tmp_path / split / name[0]).mkdir(parents=True)
            image.save(tmp_path / split / name[0] / name, **options)
    plain = DataConfig(source=f"folder:{tmp_path}")
    fit, held_out = (open_data(plain, train).dataset for train in (True, False))
    cached = open_data(plain.model_copy(update={"cache": str(tmp_path / "cache")}), train=True).dataset
    black = open_data(plain.model_copy(update={"background": "black", "exif": False}), train=True).dataset
    assert [fit[i][0].getpixel((5, 5)) for i in (0, 1)] == [WHITE, (202, 202, 202)]
    assert [black[i][0].getpixel((5, 5)) for i in (0, 1)] == [(0, 0, 0), (202, 202, 202)]
    assert (fit[2][0].size, black[2][0].size) == ((400, 600), (600, 400))
    for i in range(3):
        assert fit[i][0].tobytes() == held_out[i][0].tobytes()
        small, large = cached[i][0], fit[i][0]
        assert min(small.size) == 256
        assert np.abs(np.asarray(small, int) - np.asarray(large.resize(small.size), int)).mean() < 2
    other = SmallCopies(tmp_path / "cache", Pixels(background=(0, 0, 0)))
    clear_copy = other(str(tmp_path / "train" / "c" / "clear.png"))
    assert Pixels().read(Path(clear_copy)).getpixel((9, 9)) == (0, 0, 0)


def test_an_image_of_unclear_pixels_is_named_or_skipped_and_found_by_the_check(tmp_path: Path) -> None:
    from mobilezoo.data.check import check_data

    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        grey([1, 2], np.uint8).save(tmp_path / "train" / name / "1.png")
    grey([0, 70000], np.int32).save(tmp_path / "train" / "b" / "2.tif")
    data = open_data(DataConfig(source=f"folder:{tmp_path}"), train=True)
    with pytest.raises(DataError, match=r"2\.tif.*no white of their own"):
        data.dataset[2]
    report = check_data(str(tmp_path), workers=1)
    assert list(report.broken) == ["train/b/2.tif"]
    assert "no white of their own" in report.broken["train/b/2.tif"]
