"""The sampling rules, on clocks and runs that the test controls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilezoo.errors import ConfigError, UnknownNameError
from mobilezoo.latency_report import DeviceInfo, LatencyReport, ProcessRun, Protocol, Slice
from mobilezoo_latency.protocol import (
    TIERS,
    drift,
    load_protocol,
    noise_reasons,
    runs_per_sample,
    sample,
    sentinel_shift,
    slices_of,
    timer_step_s,
    until_quiet,
    warm_up,
)


class FakeMachine:
    """Time passes only while a run runs; run `i` takes `duration(i)` seconds."""

    def __init__(self, duration=lambda i: 0.01) -> None:
        self.now_s, self.count, self.duration = 0.0, 0, duration

    def now(self) -> float:
        return self.now_s

    def time_runs(self, runs: int) -> float:
        start = self.now_s
        for _ in range(runs):
            self.now_s += self.duration(self.count)
            self.count += 1
        return self.now_s - start


def process(sentinels=(1.0, 1.0), **changes) -> ProcessRun:
    slices = tuple(Slice(start_s=0.0, samples=10, sentinel_ms=t) for t in sentinels[1:])
    fields = {
        "load_ms": 1.0,
        "first_run_ms": 1.0,
        "warmup_runs": 10,
        "warmup_settled": True,
        "runs_per_sample": 1,
        "cpu_share": 1.0,
        "other_load": 0.0,
        "sentinel_before_ms": sentinels[0],
        "slices": slices,
    }
    return ProcessRun(**{**fields, **changes})


def report(noisy=()) -> LatencyReport:
    return LatencyReport(
        artifact_sha256="0" * 64,
        artifact="a.onnx",
        target="onnx",
        precision="fp32",
        model="a",
        device=DeviceInfo(name="host", kind="host", runtime="none"),
        protocol=Protocol(),
        samples_ms=(1.0,),
        load_ms=1.0,
        first_run_ms=1.0,
        sentinel_before_ms=1.0,
        sentinel_after_ms=1.0,
        noisy=noisy,
        measured_at="2024-01-01T00:00:00+00:00",
    )


@given(run_s=st.floats(1e-4, 2.0), runs=st.integers(2, 40), seconds=st.floats(0.0, 3.0))
def test_warm_up_reaches_both_its_runs_and_its_seconds(run_s, runs, seconds):
    machine = FakeMachine(lambda i: run_s)
    warm = warm_up(machine.time_runs, Protocol(warmup_runs=runs, warmup_s=seconds), machine.now)
    assert warm.settled
    assert warm.runs == machine.count >= runs
    assert machine.now_s >= min(seconds, warm.runs * run_s)
    assert warm.run_s == pytest.approx(run_s)


def test_warm_up_goes_on_while_runs_still_get_faster():
    machine = FakeMachine(lambda i: 0.01 * (1 + 10 * 0.9**i))
    warm = warm_up(machine.time_runs, Protocol(warmup_runs=10, warmup_s=0.0), machine.now)
    assert warm.settled
    assert warm.runs > 20
    assert warm.run_s < 0.012


def test_warm_up_that_never_settles_ends_at_its_limit_and_says_so():
    machine = FakeMachine(lambda i: 0.01 * 1.2**i)
    warm = warm_up(machine.time_runs, Protocol(warmup_max_s=5.0), machine.now)
    assert not warm.settled
    assert any(
        "did not settle" in reason for reason in noise_reasons(Protocol(), [process(warmup_settled=False)], [1.0])
    )


@given(run_s=st.floats(1e-5, 1.0), least=st.integers(1, 200), seconds=st.floats(0.0, 2.0), runs=st.integers(1, 5))
def test_sampling_reaches_both_totals_and_drops_nothing(run_s, least, seconds, runs):
    machine = FakeMachine(lambda i: run_s)
    samples = sample(machine.time_runs, runs, least, min(seconds, run_s * 2000))
    assert len(samples) >= least
    assert sum(samples) / 1e3 * runs >= min(seconds, run_s * 2000) * (1 - 1e-6)
    assert machine.count == len(samples) * runs
    assert all(t == pytest.approx(run_s * 1e3) for t in samples)


@given(run_s=st.floats(1e-7, 10.0), step_s=st.floats(1e-9, 1e-3))
def test_a_sample_always_spans_a_hundred_steps_of_the_clock(run_s, step_s):
    runs = runs_per_sample(run_s, step_s)
    assert runs * run_s >= 100 * step_s * (1 - 1e-9)
    assert runs == 1 or (runs - 1) * run_s < max(100 * step_s, 50e-6) * (1 + 1e-9)


def test_the_clock_step_is_what_the_clock_shows():
    ticks = iter(int(i / 7) * 1e-4 for i in range(100_000))
    assert timer_step_s(lambda: next(ticks)) == pytest.approx(1e-4)


@given(
    restarts=st.integers(1, 5),
    min_runs=st.integers(1, 3000),
    min_s=st.floats(0.1, 100),
    slice_s=st.just(0.0) | st.floats(0.5, 20.0),
)
def test_slices_of_all_restarts_reach_the_totals(restarts, min_runs, min_s, slice_s):
    plan = slices_of(Protocol(restarts=restarts, min_runs=min_runs, min_s=min_s, slice_s=slice_s))
    assert restarts * sum(n for n, _ in plan) >= min_runs
    assert restarts * sum(s for _, s in plan) == pytest.approx(min_s)
    assert slice_s == 0 or all(s <= slice_s * (1 + 1e-9) for _, s in plan)


def test_a_quiet_measurement_has_no_reasons():
    assert noise_reasons(Protocol(), [process((1.0, 1.02))], [1.0] * 100) == ()


@pytest.mark.parametrize(
    ("run", "samples", "word"),
    [
        (process((1.0, 1.05)), [1.0] * 100, "sentinel shifted by 5.0%"),
        (process((1.05, 1.0)), [1.0] * 100, "sentinel"),
        (process(cpu_share=0.5), [1.0] * 100, "waited for a core 50%"),
        (process(other_load=0.5), [1.0] * 100, "other processes used 50%"),
        (process(), [1.0] * 50 + [1.1] * 50, "drift of 10.0%"),
    ],
)
def test_every_disturbance_is_named(run, samples, word):
    (reason,) = noise_reasons(Protocol(), [run], samples)
    assert word in reason


def test_a_machine_that_tells_nothing_about_its_load_is_judged_by_its_sentinel_alone():
    assert noise_reasons(Protocol(), [process(cpu_share=None, other_load=None)], [1.0] * 100) == ()


def test_a_sentinel_shift_between_restarts_counts():
    assert sentinel_shift([process((1.0, 1.0)), process((1.1, 1.1))]) == pytest.approx(0.1)


def test_few_samples_have_no_drift():
    assert drift([1.0, 2.0, 3.0]) == 0.0


def test_the_sustained_tier_does_not_call_heat_noise():
    assert noise_reasons(TIERS["sustained"], [process((1.0, 1.3))], [1.0] * 50 + [1.3] * 50) == ()


def test_a_noisy_measurement_is_repeated_up_to_the_limit_and_stays_marked():
    made = []

    def measure() -> LatencyReport:
        made.append(report(("sentinel", "drift") if len(made) == 0 else ("sentinel",)))
        return made[-1]

    result = until_quiet(measure, 3)
    assert len(made) == result.repeats == 3
    assert result.noisy == ("sentinel",)


def test_repeating_ends_with_the_first_quiet_measurement():
    answers = iter([report(("drift",)), report(), report()])
    result = until_quiet(lambda: next(answers), 3)
    assert (result.noisy, result.repeats) == ((), 2)
    assert next(answers, None) is not None


def test_protocols_come_by_name_with_changes():
    assert load_protocol("screen", threads=2, min_s=None) == TIERS["screen"].model_copy(update={"threads": 2})
    with pytest.raises(UnknownNameError, match="screen"):
        load_protocol("scren")
    with pytest.raises(ConfigError, match="threads"):
        load_protocol("screen", threads="two")


def test_the_tiers_keep_what_the_documentation_promises():
    assert (TIERS["screen"].min_runs, TIERS["screen"].min_s, TIERS["screen"].sentinel_tolerance) == (64, 1.0, 0.03)
    assert (TIERS["report"].min_runs, TIERS["report"].min_s) == (1024, 60.0)
    assert TIERS["report"].restarts > 1
    assert TIERS["sustained"].min_s >= 600
