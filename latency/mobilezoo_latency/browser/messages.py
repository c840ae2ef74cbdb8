"""What page and host say to each other: every message of the page is parsed strictly, whatever it claims to be."""

import math
from typing import Annotated, Any

from pydantic import Field

from mobilezoo.artifacts import Protocol
from mobilezoo.config import Record
from mobilezoo_latency.protocol import slices_of

Text = Annotated[str, Field(max_length=500)]
Ms = Annotated[float, Field(ge=0, le=3.6e6, allow_inf_nan=False)]
MAX_SAMPLES = 2_000_000


class Hello(Record):
    """What a browser says about itself."""

    client: str = Field(pattern=r"^[0-9a-f]{16}$")
    user_agent: Text
    browser: Text
    system: Text
    model: Text = ""
    """The phone, where the browser tells; most do not."""
    cores: int = Field(ge=0, le=4096)
    isolated: bool
    """Cross-origin isolated: what threads and fine clocks need."""
    simd: bool
    relaxed_simd: bool
    webgpu: bool
    """Offered by the browser; the runs here are WebAssembly."""
    timer_step_ms: Ms


class Progress(Record):
    """How far a job is."""

    client: str = Field(pattern=r"^[0-9a-f]{16}$")
    job: int
    text: Text


class PageSlice(Record):
    """An unbroken stretch of samples."""

    start_s: float = Field(ge=0, allow_inf_nan=False)
    samples: int = Field(ge=0, le=MAX_SAMPLES)
    sentinel_ms: Ms


class Result(Record):
    """One restart of one job, or why there is none."""

    client: str = Field(pattern=r"^[0-9a-f]{16}$")
    job: int
    error: Annotated[str, Field(max_length=2000)] = ""
    load_ms: Ms = 0.0
    first_run_ms: Ms = 0.0
    warmup_runs: int = 0
    warmup_settled: bool = False
    runs_per_sample: int = 1
    sentinel_before_ms: Ms = 0.0
    slices: tuple[PageSlice, ...] = Field(default=(), max_length=100_000)
    samples_ms: tuple[Ms, ...] = Field(default=(), max_length=MAX_SAMPLES)
    threads: int = Field(default=0, ge=0, le=4096)
    """As the runtime counts them."""
    hidden: bool = False
    """The page was in the background at some moment: browsers slow such pages down."""
    output: tuple[float, ...] = Field(default=(), max_length=64)
    """The first values of the network's output on the served input."""


def job_of(number: int, runtime: str, title: str, shape: tuple[int, ...], protocol: Protocol) -> dict[str, Any]:
    """What the page is told to do: one restart of a measurement."""
    return {
        "id": number,
        "runtime": runtime,
        "title": title,
        "shape": list(shape),
        "threads": protocol.threads,
        "warmup": {
            "runs": protocol.warmup_runs,
            "min_ms": protocol.warmup_s * 1e3,
            "max_ms": protocol.warmup_max_s * 1e3,
            "tolerance": protocol.stable_tolerance,
        },
        "slices": [{"samples": samples, "min_ms": seconds * 1e3} for samples, seconds in slices_of(protocol)],
    }


def usable(result: Result) -> bool:
    """Whether a result without an error holds what it must."""
    counted = sum(piece.samples for piece in result.slices)
    timed = bool(result.samples_ms) and min(result.samples_ms) > 0
    return timed and counted == len(result.samples_ms) and all(map(math.isfinite, result.output))
