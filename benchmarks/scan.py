"""Time the selective scan's recurrence in chunks against the sequential reference and log-doubling.

    python benchmarks/scan.py --out benchmarks/results/scan.json

The forms run in turn within each repeat, on one CPU thread, and on the GPU where one is at hand. Reported: the median
time of each form, and the median over repeats of the ratio to the sequential form with its quartiles. Inputs are as in
the networks: decays exp(-softplus(x)) for normal x, [batch, length, channels] of the variants' stages. Backward passes
include the forward pass. Subnormal numbers are left as the machine treats them.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mobilezoo.files import write_text
from mobilezoo.layers.selective_scan import linear_recurrence, sequential_recurrence

Scan = Callable[[Tensor, Tensor], Tensor]

STAGES = {
    "T2 stage 3 (3×3)": (9, 448),
    "T2 stage 2 (6×6)": (36, 384),
    "T2 stage 1 (12×12)": (144, 224),
    "B1 stage 1 (16×16)": (256, 320),
    "B4 stage 1 (32×32)": (1024, 320),
}
"""Length and channels of one direction's recurrence."""


def log_doubling(a: Tensor, b: Tensor) -> Tensor:
    """Hillis and Steele: every step doubles the distance that states have travelled."""
    distance = 1
    while distance < b.shape[1]:
        b = b + a * F.pad(b[:, :-distance], (0, 0, distance, 0))
        a = a * F.pad(a[:, :-distance], (0, 0, distance, 0))
        distance *= 2
    return b


FORMS: dict[str, Scan] = {
    "sequential": sequential_recurrence,
    "chunks": linear_recurrence,
    "log_doubling": log_doubling,
}


def time_ms(scan: Scan, a: Tensor, b: Tensor, backward: bool) -> float:
    """One run, in milliseconds, the device's queue drained before and after."""
    leaves = (a.detach().requires_grad_(backward), b.detach().requires_grad_(backward))
    _wait(a)
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        states = scan(*leaves)
        if backward:
            states.backward(torch.ones_like(states))
    _wait(a)
    return (time.perf_counter() - start) * 1e3


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def compare(shape: tuple[int, int, int], device: str, backward: bool, repeats: int) -> dict[str, Any]:
    """Medians in ms per form, and each form's speed-up over the sequential one as [first quartile, median, third]."""
    generator = torch.Generator().manual_seed(0)
    delta = F.softplus(torch.randn(shape, generator=generator)).to(device)
    decay, inputs = torch.exp(-delta), delta * torch.randn(shape, generator=generator).to(device)
    exact = sequential_recurrence(decay.double(), inputs.double())
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    for repeat in range(-2, repeats):
        for name, scan in FORMS.items():
            elapsed = time_ms(scan, decay, inputs, backward)
            if repeat >= 0:
                times[name].append(elapsed)
    gains = {n: [s / t for s, t in zip(times["sequential"], times[n], strict=True)] for n in FORMS if n != "sequential"}
    return {
        "median_ms": {name: median(values) for name, values in times.items()},
        "speedup": {name: quantiles(values, n=4) for name, values in gains.items()},
        "max_error": {name: float((scan(decay, inputs) - exact).abs().max()) for name, scan in FORMS.items()},
        "samples_ms": times,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="timed repeats after two warm-up ones")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="images per batch")
    parser.add_argument("--out", type=Path, help="write all samples here as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print(f"{'':44}{'sequential':>12}{'chunks':>10}{'log-doubling':>14}   speed-up of chunks [quartiles]")
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for stage, (length, channels) in STAGES.items():
            for batch in args.batches:
                for backward in (False, True):
                    row = compare((batch, length, channels), device, backward, args.repeats)
                    what = "forward+backward" if backward else "forward"
                    rows.append({"device": device, "stage": stage, "batch": batch, "pass": what, **row})
                    ms, (low, middle, high) = row["median_ms"], row["speedup"]["chunks"]
                    times = f"{ms['sequential']:9.2f} ms{ms['chunks']:7.2f} ms{ms['log_doubling']:11.2f} ms"
                    print(f"{device} {stage}, {batch:3}, {what:16} {times}   {middle:6.2f}× [{low:.2f}, {high:.2f}]")
    if args.out:
        device_name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        about = {"torch": torch.__version__, "cpu": platform.processor() or platform.machine(), "gpu": device_name}
        write_text(args.out, json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
