"""Messages between page and host: every message of the page is parsed strictly, whatever it claims to be.

Sizes are bounded before anything is parsed, by what the running job can give; texts are for people and are escaped
where they are shown.
"""

import math
from typing import Annotated, Any

from pydantic import Field, ValidationError

from mobilezoo.artifacts import InputSpec
from mobilezoo.config import Record
from mobilezoo.errors import DeviceError
from mobilezoo.latency_report import Protocol
from mobilezoo_latency.protocol import slices_of

Client = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Text = Annotated[str, Field(max_length=500)]
Ms = Annotated[float, Field(ge=0, le=3.6e6)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
MAX_SAMPLES, MAX_SLICES = 1_000_000, 10_000
"""Limits of one restart."""
MIN_SAMPLE_MS = 0.05
"""Shortest sample; longer if a restart would give too many."""
SAMPLE_BYTES, SLICE_BYTES, REST_BYTES = 26, 150, 20_000
"""Largest size of one number in JSON, of one slice, and of all else in a result."""
MAX_BRACKETS = 5_000
"""A result has three lists; its error may quote some more."""
CAPS = {"hello": 10_000, "progress": 5_000}
"""Largest accepted body of each message in bytes."""


class BadMessageError(ValueError):
    """The body is no message of its name."""


class Hello(Record):
    """First message of a browser: its identity and abilities."""

    client: Client
    user_agent: Text
    browser: Text
    system: Text
    model: Text = ""
    """Model of the phone; empty in most browsers."""
    cores: int = Field(ge=0, le=4096)
    isolated: bool
    """Cross-origin isolated, as threads and fine clocks need."""
    simd: bool
    relaxed_simd: bool
    webgpu: bool
    """Offered by the browser; the runs here are WebAssembly."""
    timer_step_ms: Ms


class Progress(Record):
    """Progress of a job."""

    client: Client
    job: int
    text: str = Field(pattern=r"^(loading|warming up|timing, [0-9]{1,3}%)$")


class PageSlice(Record):
    """A slice: samples taken without a break, then the sentinel."""

    start_s: float = Field(ge=0, le=1e6)
    samples: int = Field(ge=0, le=MAX_SAMPLES)
    sentinel_ms: Ms


class Result(Record):
    """Samples of one restart of a job, or the error that prevented it."""

    client: Client
    job: int
    error: str = Field(default="", max_length=2000)
    load_ms: Ms = 0.0
    first_run_ms: Ms = 0.0
    warmup_runs: Count = 0
    warmup_settled: bool = False
    runs_per_sample: Count = 1
    sentinel_before_ms: Ms = 0.0
    slices: tuple[PageSlice, ...] = Field(default=(), max_length=MAX_SLICES)
    samples_ms: tuple[Ms, ...] = Field(default=(), max_length=MAX_SAMPLES)
    threads: int = Field(default=0, ge=0, le=4096)
    """As the runtime counts them."""
    hidden: bool = False
    """The page was in the background at some moment: browsers slow such pages down."""
    output: tuple[float, ...] = Field(default=(), max_length=64)
    """The first values of the network's output on the served input."""


Message = Hello | Progress | Result
KINDS: dict[str, type[Message]] = {"hello": Hello, "progress": Progress, "result": Result}


def parse_message(name: str, body: bytes) -> Message:
    """Parses the body of a message.

    Brackets and commas are counted first: a parser makes an object of each, which takes far more memory than its text.

    Args:
        name: a key of KINDS.
        body: JSON.

    Raises:
        BadMessageError: it is no message of this name, or beyond the limits.
    """
    commas = MAX_SAMPLES + 5 * MAX_SLICES
    if body.count(b"[") > MAX_BRACKETS or body.count(b"{") > MAX_SLICES + MAX_BRACKETS or body.count(b",") > commas:
        raise BadMessageError(name)
    try:
        return KINDS[name].model_validate_json(body)
    except ValidationError:
        raise BadMessageError(name) from None


def job_of(number: int, runtime: str, title: str, spec: InputSpec, protocol: Protocol) -> dict[str, Any]:
    """Makes the job that the page performs: one restart of a measurement.

    Args:
        number: id of the job, above 0.
        runtime: `litert` or `onnx`.
        title: what the page shows.
        spec: shape and type of the network's input.
        protocol: gives warm-up, samples and threads.

    Raises:
        DeviceError: the protocol takes more samples or slices than a page may report.
    """
    slices = slices_of(protocol)
    if sum(samples for samples, _ in slices) > MAX_SAMPLES // 2 or len(slices) > MAX_SLICES:
        raise DeviceError(f"protocol {protocol.name!r} asks for more than a browser can report: lower min_runs")
    total_ms = sum(seconds for _, seconds in slices) * 1e3
    sample_ms = max(MIN_SAMPLE_MS, total_ms / (MAX_SAMPLES // 4))
    return {
        "id": number,
        "runtime": runtime,
        "title": title,
        "shape": list(spec.shape),
        "dtype": spec.dtype,
        "threads": protocol.threads,
        "min_sample_ms": sample_ms,
        "warmup": {
            "runs": protocol.warmup_runs,
            "min_ms": protocol.warmup_s * 1e3,
            "max_ms": protocol.warmup_max_s * 1e3,
            "tolerance": protocol.stable_tolerance,
        },
        "slices": [
            # Twice what the warm-up lets expect: a network that then runs faster still fits into the report.
            {"samples": samples, "min_ms": seconds * 1e3, "most": samples + 2 * math.ceil(seconds * 1e3 / sample_ms)}
            for samples, seconds in slices
        ],
    }


def result_bytes(job: dict[str, Any] | None) -> int:
    """Largest body of a result of this job, in bytes; 0 without a job."""
    if job is None:
        return 0
    return sum(piece["most"] * SAMPLE_BYTES + SLICE_BYTES for piece in job["slices"]) + REST_BYTES


def limit_s(protocol: Protocol) -> float:
    """Seconds that one restart may take on the slowest phone before it is given up."""
    return 600.0 + 20.0 * (protocol.warmup_max_s + protocol.min_s / protocol.restarts)


def usable(result: Result, job: dict[str, Any]) -> bool:
    """True if a result without an error is complete.

    Args:
        result: message of the page.
        job: the job it answers.
    """
    counted = [piece.samples for piece in result.slices]
    wanted = [piece["samples"] for piece in job["slices"]]
    whole = len(counted) == len(wanted) and all(map(int.__ge__, counted, wanted))
    timed = bool(result.samples_ms) and min(result.samples_ms) > 0 and result.runs_per_sample > 0
    return timed and whole and sum(counted) == len(result.samples_ms)
