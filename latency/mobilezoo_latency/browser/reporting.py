"""Turns a browser's results into one report, after a comparison with this machine's own runtime."""

from mobilezoo.errors import DeviceError, MobilezooError
from mobilezoo.latency_report import DeviceInfo, LatencyReport, ProcessRun, Protocol, Slice
from mobilezoo_latency.browser.messages import Hello, Result
from mobilezoo_latency.contract import ArtifactFile
from mobilezoo_latency.reports import Measurement, build_report

OUTPUT_TOLERANCE = 1e-2
"""Largest accepted difference from this machine's runtime, relative to the largest value compared."""


def input_and_output(artifact: ArtifactFile) -> tuple[bytes, list[float]]:
    """Returns the seeded noise that is fed to the network, as bytes, and this machine's output for it.

    The output (at most 64 values) is empty if this machine has no runtime for the file: then nothing is compared.

    Raises:
        DeviceError: the file has several inputs, and the page feeds one.
    """
    import numpy as np

    from mobilezoo_export import load_runner
    from mobilezoo_export.feeding import described, noise_for
    from mobilezoo_export.records import TensorSpec

    spec = artifact.record.input
    values = noise_for([TensorSpec(name="input", shape=spec.shape, dtype=spec.dtype)])
    fed = np.ascontiguousarray(values[0]).tobytes()
    try:
        runner = load_runner(artifact.path)
    except MobilezooError:
        return fed, []
    if len(runner.inputs) != 1:
        raise DeviceError(f"{artifact.path.name} takes {described(runner.inputs)}, and the page feeds one input")
    runner.feed(values)
    runner.invoke()
    return fed, runner.output().ravel()[:64].tolist()


def runtime_info_of(
    results: list[Result], hello: Hello, built: str, expected: list[float], artifact: ArtifactFile
) -> dict[str, str]:
    """Collects what the browser used: threads, build, isolation, difference of the output.

    Args:
        results: one per restart; all feed the same input.
        hello: abilities of the browser.
        built: name of the WebAssembly file that the runtime fetched.
        expected: first values of this machine's output; empty for no comparison.
        artifact: the file, for its output quantization.

    Raises:
        DeviceError: the output differs by more than OUTPUT_TOLERANCE.
    """
    runtime_info = {
        "threads": str(results[-1].threads),
        "delegate": "WebAssembly",
        "build": built.rpartition("/")[2],
        "isolated": str(hello.isolated),
        "relaxed_simd": str(hello.relaxed_simd and "compat" not in built and "litert" in built),
    }
    given = results[-1].output
    if (how := artifact.record.output_quantization) is not None:
        given = tuple((value - how.zero_point) * how.scale for value in given)
    if expected and given:
        count = min(len(given), len(expected))
        scale = max(abs(value) for value in expected[:count]) or 1.0
        off = max(abs(a - b) for a, b in zip(given[:count], expected[:count], strict=True)) / scale
        if off > OUTPUT_TOLERANCE:
            raise DeviceError(
                f"{artifact.path.name}: the browser's output is off by {off:.1%} of its largest value: not timed"
            )
        runtime_info["output_difference"] = f"{off:.1e}"
    return runtime_info


def report_of(
    info: DeviceInfo, artifact: ArtifactFile, protocol: Protocol, results: list[Result], runtime_info: dict[str, str]
) -> LatencyReport:
    """Makes the record of one measurement in a browser.

    Args:
        info: identity under which the result is stored.
        artifact: the measured file.
        protocol: the protocol that was followed.
        results: one per restart.
        runtime_info: what the browser used, see `runtime_info_of`.

    Raises:
        DeviceError: the runtime used other threads than requested.
    """
    requested = {"threads": str(protocol.threads), "delegate": "WebAssembly"}
    if runtime_info["threads"] != requested["threads"]:
        raise DeviceError(
            f"{artifact.path.name}: requested threads {requested['threads']}, "
            f"the runtime used {runtime_info['threads']}"
        )
    runs = [_process(result) for result in results]
    samples = tuple(ms for result in results for ms in result.samples_ms)
    doubts = ("the page was in the background",) if any(result.hidden for result in results) else ()
    measured = Measurement(requested, runtime_info, runs, samples, doubts)
    return build_report(artifact, info.model_copy(update={"threads": protocol.threads}), protocol, measured)


def _process(result: Result) -> ProcessRun:
    return ProcessRun(
        load_ms=result.load_ms,
        first_run_ms=result.first_run_ms,
        warmup_runs=result.warmup_runs,
        warmup_settled=result.warmup_settled,
        runs_per_sample=result.runs_per_sample,
        sentinel_before_ms=result.sentinel_before_ms,
        slices=tuple(Slice(start_s=s.start_s, samples=s.samples, sentinel_ms=s.sentinel_ms) for s in result.slices),
    )
