"""Android kits: what uses nothing of Android is compiled and run, against Pillow, the evaluation and `predict`. Slow.

The rest is compiled against declarations of what it uses of Android, written here from its documentation: that finds
mistakes in the kit's own code, and none in how it uses Android.
"""

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilezoo.artifacts import BoxThresholds, Quantization
from mobilezoo.data.transforms import eval_pixels
from mobilezoo.dense.reading import boxes_of, mask_of, placement
from mobilezoo.workflows.kit_kinds import TEMPLATES
from mobilezoo_export.feeding import dequantized
from tests.mobilezoo.workflows.kit_cases import PREPARATIONS, columns_first, photographs

KOTLIN, JAVA = shutil.which("kotlinc"), shutil.which("java")
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not KOTLIN or not JAVA, reason="no Kotlin here: run `npm install -g kotlin-compiler`, and Java"),
]
SIZE = (24, 40)
HARNESS = """
package org.mobilezoo.classify
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun main(words: Array<String>) {
    for (line in File(words[0]).readLines()) {
        val w = line.split(" ")
        val (mean, std) = listOf(w[3], w[4]).map { it.split(",").map(String::toDouble).toDoubleArray() }
        val int8 = w[5] == "int8"
        val model = Model("", intArrayOf(1, 24, 40, 3), 24, 40, true, false, w[5], if (int8) 0.02 else null, 3,
            mean, std, w[0], w[1].toDouble(), w[2], IntArray(0), 0.0, 0.0, "logits", 0,
            "float32", null, 0, listOf("a", "b"))
        val (width, height) = w[6].toInt() to w[7].toInt()
        val raw = File(w[8]).readBytes()
        val colors = IntArray(width * height) { i ->
            (255 shl 24) or ((raw[3 * i].toInt() and 255) shl 16) or ((raw[3 * i + 1].toInt() and 255) shl 8) or
                (raw[3 * i + 2].toInt() and 255)
        }
        val prepare = Prepare(model)
        val image = pixelsOf(colors, width, height, 3)
        File(w[8] + ".crop").writeBytes(prepare.fit(image).bytes)
        val tensor = prepare.tensor(image)
        File(w[8] + ".tensor").writeBytes(ByteArray(tensor.remaining()).also { tensor.get(it) })
        val scores = ByteBuffer.allocate(12).order(ByteOrder.nativeOrder())
        for (score in listOf(1f, 3f, 3f)) scores.putFloat(score)
        val best = bestOf(numbersOf(scores, model), model)
        check(best.map { it.index } == listOf(1, 2, 0) && best.map { it.label } == listOf("b", "class 2", "a"))
        check(Math.abs(best.sumOf { it.probability } - 1) < 1e-12 && best[0].probability == best[1].probability)
    }
}
"""


DENSE = """
package org.mobilezoo.classify
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun main(words: Array<String>) {
    for (line in File(words[0]).readLines()) {
        val w = line.split(" ")
        val int8 = w[1] == "int8"
        val shape = w[2].split(",").map(String::toInt).toIntArray()
        val model = Model("", intArrayOf(1, 24, 40, 3), 24, 40, true, false, "float32", null, 0, DoubleArray(3),
            DoubleArray(3), "bilinear", w[5].toDouble(), w[6], shape, w[3].toDouble(), w[4].toDouble(), "sigmoid", 0,
            w[1], if (int8) w[7].toDouble() else null, if (int8) w[8].toInt() else 0, listOf())
        val raw = ByteBuffer.wrap(File(w[0]).readBytes()).order(ByteOrder.nativeOrder())
        val numbers = numbersOf(raw, model)
        val place = placement(w[9].toInt(), w[10].toInt(), model)
        println("place ${place.left} ${place.top} ${place.width} ${place.height}")
        if (shape.size == 2) {
            for (b in boxesOf(numbers, model)) {
                println("box ${b.index} ${b.probability} ${b.left} ${b.top} ${b.right} ${b.bottom}")
            }
        } else {
            val mask = maskOf(numbers, model)
            println("mask ${mask.classes.joinToString(" ")}")
            for (a in areasOf(mask)) println("area ${a.index} ${a.share}")
        }
    }
    println("colors ${(0 until 20).joinToString(" ") { "%06x".format(colorOf(it) and 0xffffff) }}")
}
"""
SHARED = ("Answers", "Found", "MainActivity", "Model", "Network", "Prepare")


def compiled(sources: Sequence[str], harness: str, folder: Path) -> list[str]:
    """The command that runs a program made of templates and a harness."""
    assert KOTLIN
    assert JAVA
    (folder / "Main.kt").write_text(harness)
    kept = [str(TEMPLATES / "android" / f"{name}.kt") for name in sources]
    _compile([*kept, str(folder / "Main.kt")], folder / "a.jar")
    return [JAVA, "-cp", str(folder / "a.jar"), "org.mobilezoo.classify.MainKt"]


def _compile(sources: list[str], out: Path) -> None:
    command = [str(KOTLIN), *sources, "-include-runtime", "-d", str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("own", [("Classes", "FindClasses"), ("Dense", "FindBoxes"), ("Dense", "FindMask")])
def test_every_template_is_right_kotlin(own: tuple[str, str], tmp_path: Path) -> None:
    stubs = []
    for part in Path(__file__).with_name("android_stubs.txt").read_text(encoding="utf-8").split("=== ")[1:]:
        package, _, body = part.partition("\n")
        stubs.append(tmp_path / f"{package}.kt")
        stubs[-1].write_text(f"package {package}\n{body}", encoding="utf-8")
    kept = [TEMPLATES / "android" / f"{name}.kt" for name in (*SHARED, *own)]
    _compile([str(path) for path in (*kept, *stubs)], tmp_path / "a.jar")


def test_boxes_and_masks_are_those_of_predict(tmp_path: Path) -> None:
    rng, lines, wanted = np.random.default_rng(0), [], []
    for number in range(12):
        detects, int8 = number % 2 == 0, number % 4 > 1
        shape = (60, 7) if detects else (24, 40, 3)
        real = rng.random(shape, dtype=np.float32)
        if detects:
            real[:, 2:4] = real[:, :2] + rng.random((60, 2), dtype=np.float32) * 0.6 - 0.05
        how = Quantization(dtype="int8", scale=1 / 160, zero_point=-100)
        stored = np.clip(np.round(real / how.scale) + how.zero_point, -128, 127).astype(np.int8) if int8 else real
        answer = dequantized(stored, how if int8 else None)
        file = tmp_path / f"{number}.raw"
        file.write_bytes(stored.tobytes())
        thresholds = BoxThresholds(score=0.6, overlap=0.3)
        prep = list(PREPARATIONS.values())[number % len(PREPARATIONS)]
        size = int(rng.integers(30, 400)), int(rng.integers(30, 400))
        told = [file, stored.dtype, ",".join(map(str, shape)), thresholds.score, thresholds.overlap]
        told += [prep.crop_pct, prep.crop_mode, how.scale, how.zero_point, *size[::-1]]
        lines.append(" ".join(map(str, told)))
        wanted.append(["place", *placement(size, SIZE, prep)])
        if detects:
            boxes = boxes_of(answer, thresholds)
            assert 5 < len(boxes) < 60
            wanted += [["box", box.index, box.probability, *box.sides] for box in boxes]
        else:
            mask = mask_of(answer).ravel()
            shares = np.bincount(mask) / mask.size
            wanted += [["mask", *mask], *(["area", i, shares[i]] for i in np.argsort(-shares, kind="stable"))]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    command = compiled(("Model", "Prepare", "Answers", "Dense"), DENSE, tmp_path)
    done = subprocess.run([*command, str(tmp_path / "list.txt")], check=True, capture_output=True, text=True)
    *found, colors = [line.split() for line in done.stdout.splitlines()]
    assert [one[0] for one in found] == [one[0] for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert [float(number) for number in one[1:]] == pytest.approx([float(number) for number in other[1:]], rel=1e-6)
    sys.path.insert(0, str(TEMPLATES / "python"))
    color = runpy.run_path(str(TEMPLATES / "python" / "draw.py"))["color"]
    sys.path.remove(str(TEMPLATES / "python"))
    assert colors[1:] == ["".join(f"{part:02x}" for part in color(index)) for index in range(20)]


def test_crops_and_tensors_equal_the_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = compiled(("Model", "Prepare", "Answers", "Classes"), HARNESS, tmp_path)
    monkeypatch.setattr(Image.Image, "resize", columns_first)
    lines, wanted = [], {}
    for number, path in enumerate(photographs(tmp_path, 12)):
        prep = list(PREPARATIONS.values())[number % len(PREPARATIONS)]
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        raw = tmp_path / f"{number}.raw"
        raw.write_bytes(image.tobytes())
        kind = "int8" if number % 2 else "float32"
        numbers = [",".join(map(repr, values)) for values in (prep.mean, prep.std)]
        told = [prep.interpolation, prep.crop_pct, prep.crop_mode, *numbers, kind, *image.size, raw]
        lines.append(" ".join(map(str, told)))
        wanted[raw] = (eval_pixels(prep, SIZE)(image).permute(1, 2, 0).numpy(), prep, kind)
    (tmp_path / "list.txt").write_text("\n".join(lines))
    subprocess.run([*command, str(tmp_path / "list.txt")], check=True, capture_output=True)
    for raw, (pixels, prep, kind) in wanted.items():
        crop = np.frombuffer(Path(f"{raw}.crop").read_bytes(), np.uint8).reshape(pixels.shape)
        assert np.array_equal(crop, pixels), json.dumps(prep.model_dump(mode="json"))
        values = (pixels.astype(np.float32) / np.float32(255) - np.float32(prep.mean)) / np.float32(prep.std)
        if kind == "int8":
            values = np.clip(np.round(values / np.float32(0.02)) + 3, -128, 127)
        found = np.frombuffer(Path(f"{raw}.tensor").read_bytes(), np.dtype(kind)).reshape(pixels.shape)
        assert np.array_equal(found, values.astype(np.dtype(kind)))
