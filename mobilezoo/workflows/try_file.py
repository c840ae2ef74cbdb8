"""`mobilezoo try`: a page that runs exported files in a browser, on its camera, on photographs and on samples.

The files themselves are in `mobilezoo/try_page`; the runtimes and the server are those of the browser device.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mobilezoo.artifacts import Artifact
from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, DeviceError, existing_path
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.open_file import NOUNS, described

if TYPE_CHECKING:
    from mobilezoo_latency.browser.site import Site

PAGE = Path(__file__).parents[1] / "try_page"
MOST = 2
"""Files side by side."""
SILENT_S = 150.0
"""A page asks every 15 s whether the server is there; in the background, browsers let it ask once a minute."""
POLL_S = 0.2
FIELDS = ("input", "preprocessing", "output_index", "output_quantization", "task", "output_shape", "boxes")
"""What the page is given of a record as it is."""


class TryConfig(Record):
    """How the page is reached, and what samples it has."""

    lan: bool = True
    """Whether other devices of the network can open the page; else this machine only."""
    https: bool = True
    """Whether the connection over the network is encrypted: browsers give the camera to no other page."""
    address: str = ""
    """Of this machine, to listen on; empty: that of the default route."""
    samples: int = Field(default=24, ge=0, le=1000)
    """Images of the data set."""
    patience_s: float = Field(default=600.0, gt=0)
    """How long somebody is waited for who opens the page."""


@dataclass(frozen=True)
class TryPage:
    """A page that is being served."""

    url: str
    note: str
    """Who can open the link, and what protects it."""
    description: dict[str, Any]
    """What the page was given: `networks`, `samples` and `notes`."""
    site: "Site"
    patience_s: float

    def wait(self) -> str:
        """Returns why it ended, once nobody opened the page in time or it was closed."""
        began = time.monotonic()
        while True:
            last, now = self.site.last_request, time.monotonic()
            if last is None and now - began > self.patience_s:
                return f"nobody opened the link within {self.patience_s:.0f} s"
            if last is not None and now - last > SILENT_S:
                return "the page was closed"
            time.sleep(POLL_S)


@contextmanager
def try_files(
    files: Sequence[str | Path],
    options: ModelOptions = NO_OPTIONS,
    *,
    data: str | None = None,
    classes: str | None = None,
    config: TryConfig | None = None,
    hooks: Hooks = SILENT,
) -> Iterator[TryPage]:
    """Serve a page that runs one exported file, or two side by side; it ends with the context.

    Args:
        files: `.tflite` or `.onnx` files.
        options: labels and preprocessing of files without a record.
        data: source of the samples; None takes what the first file's weights were trained on, where that is recorded.
        classes: where the data's classes lie among the outputs, see `place_classes`.
        config: reach and number of samples.
        hooks: receives messages.

    Raises:
        ConfigError: a file cannot be run in a browser.
        DeviceError: the browser runtimes are not set up, or there is no network to serve in.
    """
    from mobilezoo.workflows.try_samples import samples_of
    from mobilezoo_latency.browser.assets import NAMES, find_assets, for_workers

    config = config or TryConfig()
    if not 1 <= len(files) <= MOST:
        raise ConfigError(f"{len(files)} files: the page runs one, or two side by side")
    assets = find_assets()
    adapted = for_workers(assets)
    paths = [existing_path(name, "file") for name in files]
    records = [_described(path, options) for path in paths]
    _check_dense(paths, records)
    samples = samples_of(paths[0], records[0], data, classes, config.samples, hooks)
    records = [record.model_copy(update={"labels": record.labels or samples.names}) for record in records]
    notes = _notes(paths, records)
    for line in notes:
        hooks.on_message(line)
    networks = [_network(i, paths, record) for i, record in enumerate(records)]
    description = {"networks": networks, "samples": samples.listed, "notes": notes}
    site, note = _opened(config, {name: assets / name for name in NAMES} | _page_files() | _models(paths))
    site.blobs = {"try.json": json.dumps(description).encode(), "beat": b"", **samples.images, **adapted}
    if config.lan:
        site.pack(_worth_packing({record.target for record in records}))
    try:
        yield TryPage(site.url, note, description, site, config.patience_s)
    finally:
        site.close()


def _check_dense(paths: list[Path], records: list[Artifact]) -> None:
    """Raise ConfigError for two files where the page would draw over one picture for both."""
    for path, record in zip(paths, records, strict=True):
        if record.task != "classify" and len(paths) > 1:
            raise ConfigError(
                f"{path.name!r} answers with {NOUNS[record.task]}: the page draws those of one file at a time"
            )


def _opened(config: TryConfig, files: dict[str, Path]) -> "tuple[Site, str]":
    from mobilezoo_latency.browser.reach import lan_address, one_address, way_of
    from mobilezoo_latency.browser.site import Site

    try:
        address = (one_address(config.address) or lan_address()) if config.lan else ""
    except ValueError as error:
        raise ConfigError(f"--address {config.address!r}: {error}") from None
    except DeviceError:
        raise DeviceError("no local network: join one, or serve to this machine only with --local") from None
    way = way_of("lan" if config.lan else "localhost", address, config.lan and config.https)
    site = Site(way.address, way.names, PAGE / "index.html", files, way.certificate and way.certificate.context)
    return site, way.note


def _page_files() -> dict[str, Path]:
    return {path.name: path for path in PAGE.iterdir() if path.suffix in (".css", ".js", ".mjs")}


def _worth_packing(targets: set[str]) -> list[str]:
    """Files of the runtimes in use that are sent over the network in a third of their bytes; likely ones first."""
    from mobilezoo_latency.browser.assets import NAMES

    used = tuple({"litert": "litert/", "onnx": "ort/"}[target] for target in targets)
    names = [name for name in NAMES if name.startswith(used) and name != "litert/index.js"]
    return sorted(names, key=lambda name: (name.endswith(".wasm"), "threaded" not in name, "compat" in name))


def _models(paths: list[Path]) -> dict[str, Path]:
    return {f"model{i}": path for i, path in enumerate(paths)}


def _described(path: Path, options: ModelOptions) -> Artifact:
    """The record of a file that a browser can run. Raises ConfigError in one line for all others."""
    from mobilezoo_export.registry import exporter_of, is_exported
    from mobilezoo_latency.browser.device import RUNTIMES, TYPES

    runs = "the page runs .tflite (LiteRT.js) and .onnx (onnxruntime-web)"
    if not is_exported(path):
        raise ConfigError(f"{path.name!r} is no exported file: {runs}; make one with `mobilezoo export`")
    if exporter_of(path).target not in RUNTIMES:
        raise ConfigError(f"{path.name!r} runs in no browser: {runs}; export with --to litert or --to onnx")
    record = described(path, options)
    title = RUNTIMES[record.target][0]
    taken = TYPES[record.target]
    if record.input.dtype not in taken:
        raise ConfigError(
            f"{path.name!r} takes {record.input.dtype}, and {title} only {', '.join(taken)}: export it with float32 "
            "or uint8 images, or to ONNX"
        )
    how = record.output_quantization
    if how is not None and how.dtype not in taken:
        raise ConfigError(f"{path.name!r} answers in {how.dtype}, and {title} gives only {', '.join(taken)}")
    if "scores" in record.undeclared:
        raise ConfigError(f"{path.name!r} has several outputs, and nothing tells which one holds the scores: --labels")
    return record


def _network(index: int, paths: list[Path], record: Artifact) -> dict[str, Any]:
    """What the page is given of one file."""
    path = paths[index]
    same = len({one.name for one in paths}) < len(paths)
    kept = {"runtime": record.target, "precision": record.precision, "labels": record.labels}
    fields = record.model_dump(mode="json", include=set(FIELDS))
    return {
        "name": f"{path.parent.name}/{path.name}" if same else path.name,
        "url": f"model{index}",
        "bytes": path.stat().st_size,
        "size": record.input.resolution,
        "output": None if "output" in record.undeclared else record.output,
        "note": record.why_not_runnable if record.foreign else "",
        **kept,
        **fields,
    }


def _notes(paths: list[Path], records: list[Artifact]) -> list[str]:
    bare = [path.name for path, record in zip(paths, records, strict=True) if not record.labels]
    return [f"{name} has no labels: classes are shown by their number (--labels)" for name in bare]
