"""What several benchmarks need: image sets as folders, files for counts alone, cells kept when a run is stopped."""

import json
import os
import tarfile
import time
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def unpack_cifar(images: Path, out: Path) -> Path:
    """CIFAR-10's parquet files as an ImageNet folder of their own PNG bytes. Needs pyarrow."""
    import pyarrow.parquet

    for split, name in (("train", "cifar10-train-20k.parquet"), ("validation", "cifar10-val-10k.parquet")):
        if (out / split / "done").exists():
            continue
        table = pyarrow.parquet.read_table(images / name, columns=["image", "label"])
        for index, (image, label) in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True)):
            folder = out / split / f"class_{label}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index:05d}.png").write_bytes(image["bytes"] if isinstance(image, dict) else image)
        (out / split / "done").touch()
    return out


def unpack_clothing(images: Path, out: Path) -> Path:
    """clothing/SPLIT/CLASS/*.jpg out of `clothing.tar`."""
    if not (out / "done").exists():
        with tarfile.open(images / "clothing.tar") as tar:
            tar.extractall(out, filter="data")
        (out / "done").touch()
    return out / "clothing"


def export_unproven(network: Any, spec: Any, images: Any, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """(LiteRT file, names of norms that are all zero) without a comparison with PyTorch.

    For int8 files that export refuses because random weights put their answers too far off: those answers mean nothing,
    and how long the file takes does not depend on them. Raises MobilezooError where no file can be made.
    """
    from mobilezoo.artifacts import file_stem
    from mobilezoo_export import load_exporter
    from mobilezoo_export.prepare import prepare

    exporter = load_exporter("litert")
    path = folder / f"{file_stem(spec.model)}.{spec.precision}{exporter.suffix}"
    prepared = prepare(network, spec)
    exporter.export(prepared.graph, spec, path, [images])
    return path, prepared.zero_gammas


class Kept:
    """Finished cells, a line of JSON each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: dict[str, Row] = {row["cell"]: row for row in map(json.loads, filter(None, lines))}

    def __call__(self, cell: str, make: Any) -> Row:
        """The cell's row: kept, or made now and timed in CPU seconds, those before a stop included."""
        if cell not in self.rows:
            before = sum(os.times()[:4]) - self.rows.get(f"{cell}/interrupted", {"cpu_s": 0.0})["cpu_s"]
            try:
                made = make()
            except BaseException:
                self._write({"cell": f"{cell}/interrupted"}, before)
                raise
            self._write({"cell": cell, **made}, before)
        return self.rows[cell]

    def _write(self, row: Row, before: float) -> None:
        row["cpu_s"] = round(sum(os.times()[:4]) - before, 2)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as handle:
            handle.write(json.dumps(row) + "\n")
        self.rows[row["cell"]] = row
        print(time.strftime("%H:%M:%S"), row, flush=True)
