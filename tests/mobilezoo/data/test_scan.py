"""The rule of classes and images on trees where it matters, with the answers written out."""

import io
import os
import tarfile
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from mobilezoo.cli.main import main
from mobilezoo.data import DataConfig, open_data
from mobilezoo.data.check import check_data
from mobilezoo.data.names import order
from mobilezoo.data.scan import LOOPS, OUTSIDE, SPECIAL, arrange, scan_folder, walk
from mobilezoo.errors import ConfigError, DataError
from mobilezoo.trust import allow_commands


def image(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (3, 3), shade).save(path)
    return path


def entries(*names: str) -> list[tuple[str, str]]:
    return [(name, "file") for name in names]


def test_names_are_ordered_by_number_then_case_then_exactly() -> None:
    names = ["b", "B", "a", "A", "10", "9", "09", "x2", "x10", "X2", "²"]
    expected = ["09", "9", "10", "A", "a", "B", "b", "X2", "x2", "x10", "²"]
    backwards = names[::-1]
    assert sorted(names, key=order) == sorted(backwards, key=order) == expected
    # timm's own order, where that is an order: files of another run keep their places.
    from timm.utils.misc import natural_key

    plain = ["n01440764", "n01443537", "img_2.png", "img_10.png", "a/1.png", "b/0.png"]
    assert sorted(plain, key=order) == sorted(plain, key=natural_key)


def test_the_class_is_the_first_folder_however_deep_an_image_lies() -> None:
    scan = arrange("train", entries("red/2023/1.png", "red/2.png", "blue/2023/1.png", "blue/2024/x/1.png"))
    assert scan.classes == ("blue", "red")
    assert [target for _, target in scan.samples] == [0, 0, 1, 1]


def test_hidden_names_are_nothing_and_foreign_files_are_counted_by_kind() -> None:
    scan = arrange(
        "train",
        entries(
            "a/1.PNG", "a/2.jpeg", "b/3.TIF", "b/._3.TIF", "__MACOSX/a/1.png", ".git/x.png", "a/@eaDir/1.png",
            "a/Thumbs.db", "b/4.heic", "b/5.HEIC", "b/readme", "stray.png", "a/.thumbs/9.png",
        ),
    )  # fmt: skip
    assert scan.classes == ("a", "b")
    assert [name for name, _ in scan.samples] == ["a/1.PNG", "a/2.jpeg", "b/3.TIF"]
    assert scan.left_out == {".heic": 2, OUTSIDE: 1, "without extension": 1}
    assert scan.faults == ()


def test_one_name_in_two_unicode_forms_is_one_class() -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    scan = arrange("train", entries(f"{composed}/1.png", f"{apart}/2.png", "b/1.png"))
    assert scan.classes == ("b", composed)
    assert [target for _, target in scan.samples] == [0, 1, 1]
    val = arrange("val", entries(f"{apart}/1.png"), scan.classes)
    assert [target for _, target in val.checked().samples] == [1]


@pytest.mark.parametrize(
    ("names", "classes", "match"),
    [
        (("a/1.png", "b/1.heic"), None, r"class folder 'b' of 'here' holds no images \(1 .heic in it\)"),
        (("a/1.png", "a/2/1.png"), None, "holds 1 class folder"),
        (("a/1.png", "c/1.png"), ("a", "b"), "class 'c' of 'here' is none of the 2 classes of the training split"),
        (("1.png",), None, "holds 0 class folder"),
        (("tab\t/1.png", "b/1.png"), None, r"'tab\\t' has a control character"),
        ((os.fsdecode(b"caf\xe9/1.png"), "b/1.png"), None, "is not valid UTF-8"),
        (("b/1.txt",), ("a", "b"), "holds no images"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(
    names: tuple[str, ...], classes: tuple[str, ...] | None, match: str
) -> None:
    with pytest.raises(DataError, match=match):
        arrange("here", entries(*names), classes).checked()


def test_links_are_followed_and_rings_of_links_end(tmp_path: Path) -> None:
    real = image(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "split" / "a").mkdir(parents=True)
    (tmp_path / "split" / "b").symlink_to(real.parent)
    (tmp_path / "split" / "a" / "one.png").symlink_to(real)
    (tmp_path / "split" / "a" / "up").symlink_to(tmp_path / "split")
    (tmp_path / "split" / "a" / "self.png").symlink_to("self.png")
    (tmp_path / "split" / "a" / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "split" / "a" / "pipe.png")
    scan = scan_folder(tmp_path / "split").checked()
    assert [name for name, _ in scan.samples] == ["a/gone.png", "a/one.png", "a/self.png", "b/1.png"]
    assert scan.left_out == {LOOPS: 1, SPECIAL: 1}
    data = open_data(DataConfig(source=f"folder:{tmp_path}", train_split="split"), train=True)
    with pytest.raises(DataError, match=r"unreadable image .*gone\.png"):
        data.dataset[0]
    assert set(check_data(str(tmp_path), 1, train_split="split").broken) == {"split/a/gone.png", "split/a/self.png"}


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads every folder, so the refusal is played."""
    image(tmp_path / "a" / "1.png")
    whole = os.scandir
    monkeypatch.setattr("os.scandir", lambda path: whole(path) if Path(path) == tmp_path else refuse())

    def refuse() -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(DataError, match=r"folder .*a' cannot be read \(Permission denied\)"):
        list(walk(tmp_path))


def test_validation_keeps_the_indices_of_training(tmp_path: Path) -> None:
    for name in ("A", "B", "C"):
        image(tmp_path / "train" / name / "1.png")
    image(tmp_path / "val" / "C" / "1.png")
    (tmp_path / "val" / "B").mkdir()
    held_out = open_data(DataConfig(source=f"folder:{tmp_path}"), train=False)
    assert held_out.labels == ("A", "B", "C")
    assert held_out.dataset.samples[0][1] == 2
    assert check_data(str(tmp_path), 1).missing_classes == {"val": ("A", "B")}
    image(tmp_path / "val" / "D" / "1.png")
    with pytest.raises(DataError, match=r"class 'D' of .* is none of the 3 classes"):
        open_data(DataConfig(source=f"folder:{tmp_path}"), train=False)
    assert "'D'" in check_data(str(tmp_path), 1).faults[0]


def test_validation_alone_tells_its_own_classes(tmp_path: Path) -> None:
    image(tmp_path / "val" / "only" / "1.png")
    assert open_data(DataConfig(source=f"folder:{tmp_path}"), train=False).labels == ("only",)


def test_left_out_files_are_told_by_eval_and_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        image(tmp_path / "train" / name / "1.png")
    (tmp_path / "train" / "a" / "2.heic").write_bytes(b"apple")
    assert open_data(DataConfig(source=f"folder:{tmp_path}"), train=True).left_out.endswith("train: left out 1 .heic")
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", str(tmp_path), "-q"])
    assert ended.value.code == 0
    assert "left out of train: no images: 1\n  1 .heic" in capsys.readouterr().out


def tar_of(path: Path, *members: tuple[str, bytes | tuple[bytes, str]]) -> None:
    """Members are files, or links given as (type, target)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, tuple):
                info.type, info.linkname = data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (3, 3), shade).save(out, "PNG")
    return out.getvalue()


def tar_names(root: Path) -> list[tuple[str, int]]:
    data = open_data(DataConfig(source=f"tar:{root}"), train=True).dataset
    return [(name, data[i][0].getpixel((0, 0))[0]) for i, name in enumerate(data.reader.names)]


def test_a_tar_wrapped_in_its_own_name_of_tars_and_with_links(tmp_path: Path) -> None:
    tar_of(
        tmp_path / "train.tar",
        ("./train/a/1.png", png(1)),
        ("./train/b/2.png", png(2)),
        ("./train/a/1.png", png(9)),  # added again: the last one counts, as when unpacking
        ("./train/b/hard.png", (tarfile.LNKTYPE, "./train/a/1.png")),
        ("./train/b/soft.png", (tarfile.SYMTYPE, "../a/1.png")),
        ("./train/b/away.png", (tarfile.SYMTYPE, "/etc/passwd")),
    )
    root = tmp_path
    data = open_data(DataConfig(source=f"tar:{root}"), train=True).dataset
    assert data.reader.names == ["a/1.png", "b/2.png", "b/away.png", "b/hard.png", "b/soft.png"]
    assert [data[i][0].getpixel((0, 0))[0] for i in (0, 1, 3, 4)] == [9, 2, 9, 9]
    with pytest.raises(DataError, match=r"away\.png.*not in the archive"):
        data[2]


def test_tars_inside_a_tar_are_classes(tmp_path: Path) -> None:
    for name, shade in (("a", 3), ("b", 4)):
        tar_of(tmp_path / f"{name}.tar", ("x/1.png", png(shade)), (f"{name}.png", png(shade + 10)))
    inner = [(f"{name}.tar", (tmp_path / f"{name}.tar").read_bytes()) for name in ("a", "b")]
    tar_of(tmp_path / "whole" / "train.tar", *inner)
    assert tar_names(tmp_path / "whole") == [("a/a.png", 13), ("a/x/1.png", 3), ("b/b.png", 14), ("b/x/1.png", 4)]


def test_a_tar_damaged_in_its_middle_or_cut_off_is_told(tmp_path: Path) -> None:
    tar_of(tmp_path / "train.tar", *((f"{c}/{i}.png", png(i)) for c in "ab" for i in range(4)))
    whole = (tmp_path / "train.tar").read_bytes()
    (tmp_path / "train.tar").write_bytes(whole[:2048] + b"\xff" * 512 + whole[2560:])
    with pytest.raises(DataError, match="cannot be read as tar with images"):
        open_data(DataConfig(source=f"tar:{tmp_path}"), train=True)
    (tmp_path / "train.tar").write_bytes(whole[:2600])
    with pytest.raises(DataError, match="cannot be read as tar with images"):
        open_data(DataConfig(source=f"tar:{tmp_path}"), train=True)


def test_shards_that_cannot_be_right_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="needs webdataset")
    config = DataConfig(source="wds/", root=str(tmp_path), train_split="t-{0..0}.tar", num_classes=2)
    with pytest.raises(DataError, match=r"shard not found: .*t-0\.tar"):
        open_data(config, train=True)
    for cls, match in ((b"7", "is of class 7, data.num_classes says 0 to 1"), (b"cat", "holds no class number")):
        tar_of(tmp_path / "t-0.tar", ("1.png", png(1)), ("1.cls", b"0"), ("2.jpeg", png(2)), ("2.cls", cls))
        with pytest.raises(DataError, match=match):
            open_data(config, train=True)
    tar_of(tmp_path / "t-0.tar", ("1.png", png(1)), ("1.cls", b"0"), ("2.json", b"{}"))
    assert open_data(config, train=True).left_out == "t-{0..0}.tar: left out 1 samples without an image"


@pytest.mark.parametrize("key", ["root", "train_split", "source"])
def test_a_pipe_runs_only_when_commands_are_allowed(tmp_path: Path, key: str) -> None:
    pytest.importorskip("webdataset", reason="needs webdataset")
    marker = tmp_path / "ran"
    values = {"source": "wds/", "root": "", "train_split": "x-0.tar|4", "num_classes": 2}
    config = DataConfig(**(values | {key: f"{'wds/' * (key == 'source')}pipe:touch {marker}; cat /x.tar|4"}))
    with pytest.raises(ConfigError, match=rf"data\.{key.removeprefix('train_')}=.*pass --allow-commands"):
        open_data(config, train=True)
    assert not marker.exists()
    allow_commands()
    try:
        if key == "train_split":
            assert len(open_data(config, train=True).dataset) == 128
    finally:
        allow_commands(False)


def test_torchvisions_own_folder_rule_is_not_offered() -> None:
    with pytest.raises(DataError, match="use folder:PATH"):
        open_data(DataConfig(source="torch/image_folder", root="/x"), train=True)
