"""Training, eval, `data check`, tars and shards see the same classes and images in the same order, in any process.

Random trees: names that differ in case, zeros or Unicode form, nesting, hidden and foreign files, every mode, damage.
This file is also the program that the processes with other hash seeds run.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from mobilezoo.data import DataConfig, open_data
from mobilezoo.data.check import INDEX_NAME, check_data
from mobilezoo.data.names import is_hidden
from mobilezoo.errors import DataError

FORMS = {".png": "PNG", ".jpg": "JPEG", ".JPEG": "JPEG", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF", ".webp": "WEBP"}
MODES = ("L", "RGB", "RGBA", "P", "1", "LA", "CMYK", "I;16", "I", "torn", "garbage", "empty")
CLASSES = (
    "A", "a", "B", "b", "1", "01", "001", "2", "10", "x1", "x01", "X1", "²", "caf\u00e9", "cafe\u0301", "Stra\u00dfe",
    "STRASSE", "a.b", "a b", "a-b", "中文", ".hidden", "__MACOSX", "@eaDir", "lost+found", "Thumbs.db", "tab\t",
    "v.tar",
)  # fmt: skip
INSIDE = ("", "", "", "2023/", "2024/deep/", "1/", ".thumbs/", "@eaDir/", "__MACOSX/")
FILES = ("notes.txt", ".DS_Store", "._1.png", "Thumbs.db", "photo.heic", "noext", "a.tar.gz")


class Drawn(NamedTuple):
    """One file of a tree."""

    name: str
    mode: str


Tree = dict[str, list[Drawn]]
"""Split → files below it; a name that ends with a slash is an empty folder."""

letters = st.characters(exclude_categories=("Cs",), exclude_characters="/\0")
words = st.text(letters, min_size=1, max_size=6).filter(lambda word: word not in (".", ".."))
class_names = st.sampled_from(CLASSES) | words
file_names = st.sampled_from(FILES) | st.builds(
    lambda stem, ending: stem + ending, st.sampled_from(("1", "01", "2", "10", "A", "a", "é")) | words,
    st.sampled_from(tuple(FORMS)),
)  # fmt: skip
in_class = st.builds(
    lambda top, inside, name, mode: Drawn(f"{top}/{inside}{name}", mode),
    class_names, st.sampled_from(INSIDE), file_names, st.sampled_from(MODES),
)  # fmt: skip
beside = st.builds(Drawn, file_names, st.sampled_from(MODES))
empty = st.builds(lambda name: Drawn(f"{name}/", ""), st.sampled_from(CLASSES))
files = st.lists(st.one_of(in_class, in_class, in_class, in_class, beside, empty), min_size=1, max_size=14)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Half of them good ones, in which each class of a few has images and validation has some of these classes."""
    if draw(st.booleans()):
        return {"train": draw(files), "val": draw(files)}
    names = draw(st.lists(st.sampled_from(CLASSES[:21]), min_size=2, max_size=5, unique=True))
    some = st.builds(
        lambda top, inside, name, mode: Drawn(f"{top}/{inside}{name}", mode),
        st.sampled_from(names), st.sampled_from(INSIDE), file_names, st.sampled_from(MODES),
    )  # fmt: skip
    each = [Drawn(f"{name}/1.png", "RGB") for name in names]
    return {"train": each + draw(st.lists(some, max_size=10)), "val": [each[0], *draw(st.lists(some, max_size=6))]}


def content(drawn: Drawn, number: int) -> bytes:
    form = FORMS.get(f".{drawn.name.rpartition('.')[2]}")
    if form is None or drawn.mode in ("garbage", "empty"):
        return b"" if drawn.mode == "empty" else b"no image " + drawn.name.encode()
    pixels = np.random.default_rng(number).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    if drawn.mode in ("I;16", "I"):
        deep = pixels[..., 0].astype(np.uint16) * 200
        image = Image.fromarray(deep if drawn.mode == "I;16" else deep.astype(np.int32))
    elif drawn.mode != "torn":
        image = image.convert(drawn.mode)
    out = io.BytesIO()
    try:
        image.save(out, form)
    except (OSError, ValueError):  # a form that knows no such mode
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, form)
    return out.getvalue()[: len(out.getvalue()) // 2] if drawn.mode == "torn" else out.getvalue()


def plant(root: Path, tree: Tree) -> None:
    for split, drawn in tree.items():
        for number, one in enumerate(drawn):
            path = root / "folder" / split / one.name
            folder = path if one.name.endswith("/") else path.parent
            if any(part.is_file() for part in (folder, *folder.parents)):
                continue  # a file has the name of a folder
            if one.name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
            elif not path.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content(one, number))


def pack(root: Path) -> None:
    """The same tree as an archive per split, and as an archive per class; members in another order than on disk."""
    for split in ("train", "val"):
        folder = root / "folder" / split
        (root / "tar").mkdir(exist_ok=True)
        (root / "class_tars" / split).mkdir(parents=True)
        with tarfile.open(root / "tar" / f"{split}.tar", "w") as tar:
            for path in sorted(folder.rglob("*"), reverse=True):
                tar.add(path, f"./{path.relative_to(folder)}", recursive=False)
        for top in folder.iterdir():
            if top.is_dir():
                with tarfile.open(root / "class_tars" / split / f"{top.name}.tar", "w") as tar:
                    for path in sorted(top.rglob("*"), key=lambda p: p.name):
                        tar.add(path, str(path.relative_to(top)), recursive=False)
            else:
                (root / "class_tars" / split / top.name).write_bytes(top.read_bytes())


def shards(root: Path, split: str, view: dict[str, Any]) -> DataConfig:
    """What a writer of shards makes of a view: numbered samples with the class beside the image, and its own junk."""
    (root / "wds").mkdir(exist_ok=True)
    names = [f"{split}-0.tar", f"{split}-1.tar"]
    for part, shard in enumerate(names):
        with tarfile.open(root / "wds" / shard, "w") as tar:
            numbered, half = list(enumerate(view["samples"])), len(view["samples"]) // 2
            for number, (name, target, _) in numbered[half:] if part else numbered[:half]:
                data = (root / "folder" / split / name).read_bytes()
                ending = name.rpartition(".")[2]
                for member, bytes_ in (
                    (f"{number:04d}.{ending}", data),
                    (f"._{number:04d}.{ending}", b"junk"),
                    (f"{number:04d}.cls", str(target).encode()),
                ):
                    info = tarfile.TarInfo(member)
                    info.size = len(bytes_)
                    tar.addfile(info, io.BytesIO(bytes_))
    key = split + "-{0..1}.tar"
    return DataConfig(
        source="wds/", root=str(root / "wds"), train_split=key, val_split=key, num_classes=len(view["classes"])
    )


def view(config: DataConfig, train: bool, names: Callable[[Any], list[str]]) -> dict[str, Any]:
    """What a source shows: classes, and (name, class, hash of the pixels) of each image; or that it is refused."""
    try:
        data = open_data(config, train)
    except DataError:
        return {"refused": True}
    samples = []
    for index, name in enumerate(names(data.dataset)):
        target = data.dataset.reader[index][1] if not _dangling(data.dataset, index) else None
        try:
            image, target = data.dataset[index]
            shown = sha256(image.tobytes()).hexdigest()[:12]
        except DataError:
            shown = "unreadable"
        samples.append([name, target, shown])
    return {"classes": list(data.labels), "samples": samples}


def _dangling(dataset: Any, index: int) -> bool:
    try:
        dataset.reader[index][0].close()
    except OSError:
        return True
    return False


def views(root: Path) -> dict[str, Any]:
    """Every way of looking at a planted tree, which must all agree; `check` tells no pixels, only what is broken."""
    found: dict[str, Any] = {}
    for split, train in (("train", True), ("val", False)):
        start = len(f"{root}/folder/{split}/")
        folder = view(
            DataConfig(source=f"folder:{root}/folder"), train, lambda d, n=start: [p[n:] for p, _ in d.samples]
        )
        found[split] = folder
        for kind in ("tar", "class_tars"):
            found[f"{split} {kind}"] = view(DataConfig(source=f"tar:{root}/{kind}"), train, lambda d: d.reader.names)
        if "refused" not in folder:
            found[f"{split} shards"] = view(shards(root, split, folder), train, lambda d: d.reader.names)
    for kind in ("folder", "tar", "class_tars"):
        found[f"check {kind}"] = checked(root, kind)
    return found


def checked(root: Path, kind: str) -> dict[str, Any]:
    try:
        report = check_data(f"{'folder' if kind == 'folder' else 'tar'}:{root}/{kind}", workers=1)
    except DataError:
        return {"refused": True}
    index = json.loads((root / kind / INDEX_NAME).read_text())
    return {
        "faults": len(report.faults),
        "splits": {
            name: {
                "classes": list(split.class_names),
                "samples": [n.partition("/")[2] for n in index["files"] if n.startswith(f"{name}/")],
                "broken": [n.partition("/")[2] for n in report.broken if n.startswith(f"{name}/")],
            }
            for name, split in report.splits.items()
        },
    }


def assert_all_agree(found: dict[str, Any]) -> None:
    for split in ("train", "val"):
        folder = found[split]
        for kind in ("tar", "class_tars"):
            assert found[f"{split} {kind}"] == folder, (split, kind)
        if "refused" in folder:
            continue
        shown = found[f"{split} shards"]
        assert [sample[1:] for sample in shown["samples"]] == [sample[1:] for sample in folder["samples"]]
        for kind in ("folder", "tar", "class_tars"):
            report = found[f"check {kind}"]["splits"][split]
            assert report["classes"] == folder["classes"]
            assert report["samples"] == [name for name, *_ in folder["samples"]]
            assert report["broken"] == [name for name, _, shown in folder["samples"] if shown == "unreadable"]
    refused = "refused" in found["train"] or "refused" in found["val"]
    report = found["check folder"]
    assert ("refused" in report or report["faults"] > 0) == refused
    assert found["check tar"] == found["check class_tars"] == report


def assert_classes_are_first_folders(tree: Tree, found: dict[str, Any]) -> None:
    for split in ("train", "val"):
        for name, target, _ in found[split].get("samples", []):
            top = unicodedata.normalize("NFC", name.split("/")[0])
            assert found[split]["classes"][target] == top
            assert not any(is_hidden(part) for part in name.split("/"))
    if "refused" not in found["train"] and "refused" not in found["val"]:
        assert found["train"]["classes"] == found["val"]["classes"]


@given(trees())
@settings(
    max_examples=int(os.environ.get("ONE_RULE_EXAMPLES", "20")),
    suppress_health_check=list(HealthCheck),
)
def test_every_source_and_the_check_see_the_same(tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as root:
        plant(Path(root), tree)
        for split in ("train", "val"):
            (Path(root) / "folder" / split).mkdir(parents=True, exist_ok=True)
        pack(Path(root))
        found = views(Path(root))
        assert_all_agree(found)
        assert_classes_are_first_folders(tree, found)


@pytest.mark.slow
@given(st.lists(trees(), min_size=4, max_size=4))
@settings(max_examples=1, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
def test_processes_with_other_hash_seeds_see_the_same(drawn: list[Tree]) -> None:
    known = {"train": [Drawn(f"{name}/{file}.png", "RGB") for name in ("A", "a", "01", "1") for file in ("1", "01")]}
    known["val"] = known["train"]
    with tempfile.TemporaryDirectory() as folder:
        roots = [Path(folder) / str(number) for number in range(len(drawn) + 1)]
        for root, tree in zip(roots, [known, *drawn], strict=True):
            for split in ("train", "val"):
                (root / "folder" / split).mkdir(parents=True)
            plant(root, tree)
            pack(root)
        answers = [seen_by_a_process(seed, roots) for seed in (1, 2)]
    assert answers[0] == answers[1]
    first = json.loads(answers[0])[0]["train"]
    assert first["classes"] == ["01", "1", "A", "a"]
    assert [name for name, *_ in first["samples"]][:4] == ["01/01.png", "01/1.png", "1/01.png", "1/1.png"]


def seen_by_a_process(seed: int, roots: list[Path]) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    command = [sys.executable, __file__, *map(str, roots)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.nightly
def test_many_more_trees() -> None:
    environment = {**os.environ, "ONE_RULE_EXAMPLES": "300"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", __file__, "-k", "every_source"]
    assert subprocess.run(command, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    print(json.dumps([views(Path(root)) for root in sys.argv[1:]]))
