"""The frozen records that pass between verbs.

A record is saved beside what it describes: `shvit_s1.fp32.tflite` has `shvit_s1.fp32.tflite.json`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import NonNegativeFloat, PositiveFloat

from mobilezoo.config import Record
from mobilezoo.errors import MobilezooError, existing_path
from mobilezoo.files import at_rest, finish, sha256_of, write_text, write_together
from mobilezoo.preprocessing import Preprocessing as Preprocessing
from mobilezoo.reading import read_json
from mobilezoo.resolution import Resolution

D = TypeVar("D", bound="Described")

Kind = Literal["host", "phone", "board", "browser", "emulated"]
Output = Literal["logits", "probabilities", "sigmoid"]
"""What answers are; sigmoid: a probability of each class for itself, in files that others made."""


class Quantization(Record):
    """How integers of a tensor stand for numbers: number = scale * (integer - zero_point)."""

    dtype: Literal["int8", "uint8", "int16"]
    scale: float
    zero_point: int


class InputSpec(Record):
    """The input tensor of a model or file."""

    shape: tuple[int, ...]
    """Tensor shape in the order of `layout`, batch included."""
    layout: Literal["NCHW", "NHWC", "none"] = "NCHW"
    """none: no image, in a file that others made."""
    dtype: Literal["float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"] = "float32"
    quantization: Quantization | None = None
    """Where the file takes integers for the normalized values; uint8 without it are pixels 0..255."""

    @property
    def resolution(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        h, w = self.shape[2:4] if self.layout == "NCHW" else self.shape[1:3]
        return h, w

    def resized(self, size: tuple[int, int]) -> "InputSpec":
        """The same for images of another (height, width)."""
        first = 2 if self.layout == "NCHW" else 1
        return self.model_copy(update={"shape": (*self.shape[:first], *size, *self.shape[first + 2 :])})


class Parity(Record):
    """How far a file's logits are from PyTorch's on the same inputs; measured, then judged."""

    inputs: str
    """Where the inputs came from."""
    images: int
    max_abs: float
    relative: float
    """Maximum absolute difference over the standard deviation of PyTorch's logits."""
    snr_db: float
    top1_agreement: float
    """Share of images with the same top-1 class, 0..1."""
    tolerance: float
    """Largest accepted `relative`."""
    ran_in: str
    """What computed the file's logits: the runtime's name and version."""

    @property
    def passed(self) -> bool:
        return self.relative <= self.tolerance


class Described(Record):
    """A record that lies beside the file it describes."""

    schema_version: Literal[1] = 1
    path: str
    """File name, relative to the record's folder."""
    sha256: str
    """Of the file, or of a folder's names and contents."""


class Checkpoint(Described):
    """Trained weights (`path`, safetensors) and what they are."""

    model: str
    """A model name, or the path its YAML had in training; a copy lies beside the weights, with their stem."""
    num_classes: int
    in_chans: int = 3
    resolution: Resolution
    """(height, width) in pixels."""
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    data: dict[str, Any] | None = None
    """The data config it was trained with (a DataConfig), its paths absolute; None where nobody knows."""
    epoch: int | None = None
    top1: float | None = None
    """Validation top-1 in percent, of these very weights."""
    probe_queries: int = 0
    """Queries of an efficient-probing head in place of the network's own; 0 where it has its own."""
    model_args: dict[str, Any] = {}
    """timm arguments that shaped the network, besides classes and channels."""

    @property
    def dataset(self) -> str:
        """Source of the training data; empty where nobody knows."""
        return str((self.data or {}).get("source", ""))

    def network_args(self) -> dict[str, Any]:
        """What `create_model` needs besides classes and channels to build this network again."""
        return {**self.model_args, **({"probe_queries": self.probe_queries} if self.probe_queries else {})}


class Coverage(Record):
    """Operators of an exported file, and what XNNPACK took of them where the runtime tells."""

    ops: dict[str, int]
    """Operator → how often; ExecuTorch names its partitions, not what is inside."""
    partitions: int | None
    """XNNPACK partitions; None where the format is not delegated before it reaches a phone."""
    outside: dict[str, int] | None
    """Operators that no partition took."""
    warnings: tuple[str, ...] = ()
    """What is known to be slow or refused on phones, each with its source."""


class Artifact(Described):
    """One exported file (or `.mlpackage` folder) and the proof that comes with it."""

    target: str
    precision: str
    model: str
    input: InputSpec
    output: Output = "logits"
    output_index: int = 0
    """Which of the file's outputs that is."""
    float_segments: tuple[int, ...] = ()
    """Eighths of an int8 file, counted from the input as 0, that stay float."""
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    size_bytes: int
    parity: Parity | None
    """None where the file was not run; `why_not_runnable` then says why."""
    why_not_runnable: str | None = None
    zero_gammas: tuple[str, ...] = ()
    """Norm or LayerScale tensors that are all zero: converters fold their branches away, so latency lies."""
    coverage: Coverage | None = None
    checkpoint: str | None = None
    """The PyTorch weights it was made of, relative to the record's folder; None for random ones."""
    checkpoint_key: str | None = None
    """Where in that file they are, if it had to be said."""
    recipe_sha256: str = ""
    """Of all that the file was made of: weights, options, images. A file of another recipe is made again."""
    tools: dict[str, str]
    """Toolchain versions."""
    output_quantization: Quantization | None = None
    """Where the file answers with integers."""
    foreign: bool = False
    """Described from the file alone, which others made: nothing of it is proven here."""
    undeclared: tuple[str, ...] = ()
    """What the file does not tell, so that it is a stand-in here: `preprocessing`, `resolution`, `output`, or which
    output holds the `scores`."""


class DeviceInfo(Record):
    """What a latency was measured on."""

    name: str
    kind: Kind
    runtime: str
    """Runtime and version, for example `LiteRT 2.3.0 (XNNPACK)`."""
    cpu: str = ""
    os: str = ""
    threads: int = 1
    details: dict[str, str] = {}


class Protocol(Record):
    """How samples were taken; part of a result's identity."""

    name: str = "screen"
    warmup_runs: int = 10
    warmup_s: float = 0.5
    warmup_max_s: float = 20.0
    """Warm-up that has not settled by then ends, and the result is marked as noisy."""
    stable_tolerance: float = 0.05
    """Warm-up has settled when the medians of its last two windows differ by less than this share."""
    min_runs: int = 64
    min_s: float = 1.0
    """Time spent in timed runs; `min_runs` and `min_s` are totals over all restarts."""
    restarts: int = 1
    """Fresh processes the samples are spread over."""
    slice_s: float = 0.0
    """The sentinel runs after every slice of this length; 0 runs it before and after all samples only."""
    threads: int = 1
    max_repeats: int = 3
    """How often a noisy measurement is repeated before it is reported as noisy."""
    sentinel_tolerance: float = 0.03
    drift_tolerance: float | None = 0.05
    """Largest accepted shift between the first and last quarter of the samples; None where drift is the subject."""
    max_other_load: float = 0.25
    """Share of all CPU cores that other processes may use meanwhile."""


class Slice(Record):
    """An unbroken stretch of timed runs inside a measurement, and the machine's state after it."""

    start_s: float
    """Seconds since the process began its first timed run."""
    samples: int
    sentinel_ms: NonNegativeFloat
    temperature_c: float | None = None
    frequency_mhz: float | None = None


class ProcessRun(Record):
    """One fresh process of a measurement: costs before the first timed run, and its slices in order."""

    load_ms: NonNegativeFloat | None
    """None where a runner does not tell."""
    first_run_ms: NonNegativeFloat
    warmup_runs: int
    warmup_settled: bool
    runs_per_sample: int
    """Runs timed together because the clock is coarse; each sample is their mean."""
    memory_bytes: int | None = None
    """Growth of the peak resident memory from before loading to the end."""
    cpu_share: float | None = None
    """CPU seconds per second of timed runs; below the thread count when the process had to wait for a core."""
    other_load: float | None = None
    """Share of all CPU cores that other processes kept busy meanwhile."""
    sentinel_before_ms: NonNegativeFloat
    slices: tuple[Slice, ...]


class Counts(Record):
    """What an emulated core executed in one warm run."""

    instructions: int
    cycles: float
    """Cycles from the static model of the core; not real time before calibration."""
    dram_lines: int | None = None
    macs: int | None = None
    """Multiply-adds found among the executed instructions."""


class Estimate(Record):
    """A latency that was not measured, with the error it is known to have."""

    latency_ms: NonNegativeFloat
    low_ms: NonNegativeFloat
    high_ms: NonNegativeFloat
    error_percent: NonNegativeFloat
    """Mean absolute percentage error on the networks named in `basis`."""
    basis: str


class LatencyReport(Record):
    """Raw latency samples of one artifact on one device; summaries are computed from them."""

    schema_version: Literal[1] = 1
    artifact_sha256: str
    artifact: str
    target: str
    precision: str
    model: str
    device: DeviceInfo
    protocol: Protocol
    samples_ms: tuple[PositiveFloat, ...]
    """Finite and positive. Empty where the device counts instead of timing (`counts`, `estimate`)."""
    load_ms: NonNegativeFloat | None
    """Median over `processes`, like `first_run_ms`; None, like the sentinel, where nothing was timed."""
    first_run_ms: NonNegativeFloat | None
    sentinel_before_ms: NonNegativeFloat | None
    sentinel_after_ms: NonNegativeFloat | None
    noisy: tuple[str, ...] = ()
    """Why this result is not to be trusted; empty when it is."""
    repeats: int = 1
    measured_at: str
    """ISO 8601, UTC."""
    requested: dict[str, str] = {}
    """Threads, delegate and so on as asked for."""
    runtime_info: dict[str, str] = {}
    """The same as the runtime gave them."""
    processes: tuple[ProcessRun, ...] = ()
    counts: Counts | None = None
    estimate: Estimate | None = None
    cached: bool = False
    """Read from the results store, not measured now."""
    unproven: str | None = None
    """Why nobody compared the file with PyTorch, `not proven here` for files of others; None where somebody did."""


def record_path(path: Path) -> Path:
    """Where the record of a file lies: beside it, `.json` appended."""
    return path.with_name(path.name + ".json")


def has_record(path: Path) -> bool:
    """Whether a record lies beside a file, which need not be there itself. Raises MobilezooError."""
    finish(path)
    return record_path(path).is_file()


def load_record_of(cls: type[D], path: str | Path) -> D:
    """The record beside a file that is still the one it describes: everything that uses a file begins here.

    Raises MobilezooError when file or record is missing, the record is damaged, or the file changed since.
    """
    try:
        return _unchanged(cls, path)
    except MobilezooError:  # a writer may be replacing the two at this moment
        with at_rest(Path(path).expanduser()):
            return _unchanged(cls, path)


def _unchanged(cls: type[D], path: str | Path) -> D:
    record = read_record_of(cls, path)
    if reason := why_changed(path, record):
        raise MobilezooError(f"{reason}: export or train it again, or restore it")
    return record


def read_record_of(cls: type[D], path: str | Path) -> D:
    """The record beside a file, whether or not the file is still the one it describes. Raises MobilezooError."""
    finish(Path(path).expanduser())
    beside = record_path(existing_path(path, "file"))
    if not beside.is_file():
        raise MobilezooError(f"{str(path)!r} has no record {beside.name!r} beside it: export or train it again")
    return cls.parse(read_json(beside), str(beside))


def why_changed(path: str | Path, record: "Described") -> str | None:
    """How a file is not the one that its record describes; None where it is."""
    found = sha256_of(Path(path).expanduser())
    if found == record.sha256:
        return None
    return f"{str(path)!r} changed since its record was written (sha256 {found[:12]}…, recorded {record.sha256[:12]}…)"


def write_with_record(path: Path, write: Callable[[Path], None], describe: Callable[[Path], D]) -> D:
    """Write a file and its record: `write(temporary)`, then `describe(temporary)` gives the record, which is returned.

    `write` may leave more files beside `temporary`. All of them appear together or not at all.
    """
    records: list[D] = []

    def fill(folder: Path) -> None:
        write(folder / path.name)
        records.append(describe(folder / path.name))
        record_path(folder / path.name).write_text(_as_text(records[0]), encoding="utf-8")

    write_together(path, fill)
    return records[0]


def _as_text(record: Record) -> str:
    return record.model_dump_json(indent=2) + "\n"


def save_record(path: Path, record: Record) -> Path:
    """Save `record` beside the file it describes, which is there already; returns the record's path."""
    return write_text(record_path(path), _as_text(record))


def save_json(path: Path, record: Record) -> Path:
    """Save a record under a name of its own."""
    return write_text(path, _as_text(record))


def file_stem(model: str) -> str:
    """A network's name as the beginning of file names: `timm:resnet18.a1_in1k` → `resnet18.a1_in1k`."""
    return model.rpartition(":")[2].replace("/", "_")
