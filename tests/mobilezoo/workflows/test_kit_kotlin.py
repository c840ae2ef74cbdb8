"""The parts of Android kits that use nothing of Android, compiled and run, against Pillow and the evaluation. Slow."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilezoo.data.transforms import eval_pixels
from mobilezoo.workflows.kit_kinds import TEMPLATES
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
            mean, std, w[0], w[1].toDouble(), w[2], "logits", 0, "float32", null, 0, listOf("a", "b"))
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
        val best = bestOf(scores, model)
        check(best.map { it.index } == listOf(1, 2, 0) && best.map { it.label } == listOf("b", "class 2", "a"))
        check(Math.abs(best.sumOf { it.probability } - 1) < 1e-12 && best[0].probability == best[1].probability)
    }
}
"""


def test_crops_and_tensors_equal_the_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert KOTLIN
    assert JAVA
    (tmp_path / "Main.kt").write_text(HARNESS)
    sources = [str(TEMPLATES / "android" / f"{name}.kt") for name in ("Model", "Prepare", "Answers")]
    command = [KOTLIN, *sources, str(tmp_path / "Main.kt"), "-include-runtime", "-d", str(tmp_path / "a.jar")]
    subprocess.run(command, check=True, capture_output=True)
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
    run = [JAVA, "-cp", str(tmp_path / "a.jar"), "org.mobilezoo.classify.MainKt", str(tmp_path / "list.txt")]
    subprocess.run(run, check=True, capture_output=True)
    for raw, (pixels, prep, kind) in wanted.items():
        crop = np.frombuffer(Path(f"{raw}.crop").read_bytes(), np.uint8).reshape(pixels.shape)
        assert np.array_equal(crop, pixels), json.dumps(prep.model_dump(mode="json"))
        values = (pixels.astype(np.float32) / np.float32(255) - np.float32(prep.mean)) / np.float32(prep.std)
        if kind == "int8":
            values = np.clip(np.round(values / np.float32(0.02)) + 3, -128, 127)
        found = np.frombuffer(Path(f"{raw}.tensor").read_bytes(), np.dtype(kind)).reshape(pixels.shape)
        assert np.array_equal(found, values.astype(np.dtype(kind)))
