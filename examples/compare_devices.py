"""One file on this machine and on an emulated phone core: times are measured here, counted and estimated there.

mobilezoo device setup emulator                                  # once
python examples/compare_devices.py model.tflite
"""

import sys

import mobilezoo
from mobilezoo_latency import summarize


def main(files: list[str]) -> None:
    """A line per file and device."""
    for file in files:
        here = summarize(mobilezoo.profile(file))
        print(f"{file} here: median {here['median_ms']:.3f} ms")
        emulated = mobilezoo.profile(file, device="cortex_a76")
        estimate = emulated.estimate
        print(
            f"{file} Cortex-A76, estimated: {estimate.latency_ms:.2f} ms, {estimate.low_ms:.2f}–{estimate.high_ms:.2f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
