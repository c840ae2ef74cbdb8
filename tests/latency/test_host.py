"""Real, tiny measurements on this machine. No test says how long anything took."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mobilezoo.errors import DeviceError, MobilezooError, UnknownNameError
from mobilezoo.latency_report import LatencyReport, Protocol
from mobilezoo_latency import Store, compare, list_devices, load_artifact, load_device, profile, summarize
from mobilezoo_latency.host import report_of
from mobilezoo_latency.session import WorkerSession

QUICK = Protocol(name="quick", warmup_runs=3, warmup_s=0.01, min_runs=8, min_s=0.01, max_repeats=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "latency.db")


@pytest.mark.parametrize("fixture", ["tiny_onnx", "tiny_tflite"])
def test_an_artifact_is_timed_in_its_own_runtime(fixture, request, store):
    path = request.getfixturevalue(fixture)
    report = profile(path, protocol=QUICK, store=store)
    assert report.device.kind == "host"
    assert len(report.samples_ms) >= 8
    assert report.repeats == 1
    assert report.requested["threads"] == report.obtained["threads"] == "1"
    assert report.requested["delegate"] == report.obtained["delegate"]
    assert report.load_ms > 0
    assert report.first_run_ms > 0
    (run,) = report.processes
    assert sum(s.samples for s in run.slices) == len(report.samples_ms)
    summary = summarize(report)
    assert summary["ci_low_ms"] <= summary["median_ms"] <= summary["ci_high_ms"]


def test_load_ms_is_the_runtimes_loading_and_not_the_files_checksum(tiny_tflite, monkeypatch):
    """On a clock that moves only while a checksum is made, loading takes no time at all."""
    from mobilezoo import artifacts
    from mobilezoo_latency import worker

    summed, clock = artifacts.sha256_of, SimpleNamespace(now=0.0)

    def slow(path: Path) -> str:
        clock.now += 1000.0
        return summed(path)

    def ticking() -> float:  # the rest of a session needs a clock that moves
        clock.now += 1e-6
        return clock.now

    monkeypatch.setattr(artifacts, "sha256_of", slow)
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=ticking, process_time=time.process_time))
    assert 0 < worker.Session(str(tiny_tflite), QUICK).load_ms < 1.0
    assert clock.now > 1000.0


def test_a_file_without_a_record_says_not_proven_here_in_table_and_json_and_when_it_is_known(
    tiny_tflite, tmp_path, store, capsys
):
    from mobilezoo.cli.profile import print_reports
    from mobilezoo.workflows.profile import report_dict

    path = tmp_path / "theirs.tflite"
    path.write_bytes(tiny_tflite.read_bytes())
    calm = QUICK.model_copy(
        update={"sentinel_tolerance": 100.0, "drift_tolerance": None, "max_other_load": 1.0, "stable_tolerance": 100.0}
    )
    store.add(profile(tiny_tflite, protocol=calm, store=store).model_copy(update={"noisy": ()}))  # the same bytes
    for report in (profile(path, protocol=calm, store=store, reuse=reuse) for reuse in ("quiet", "none")):
        assert report_dict(report)["unproven"] == "not proven here"
        print_reports([report])
        assert "not proven here" in capsys.readouterr().out


def test_the_runtime_a_device_names_is_the_one_that_computes(tiny_tflite, store):
    info = load_device("host").for_artifact(load_artifact(tiny_tflite)).describe()
    with WorkerSession(tiny_tflite, QUICK) as session:
        assert session.runtime == info.runtime


def test_a_quiet_result_answers_the_next_question(tiny_onnx, store):
    calm = QUICK.model_copy(
        update={"sentinel_tolerance": 100.0, "drift_tolerance": None, "max_other_load": 1.0, "stable_tolerance": 100.0}
    )
    first = profile(tiny_onnx, protocol=calm, store=store)
    again = profile(tiny_onnx, protocol=calm, store=store)
    fresh = profile(tiny_onnx, protocol=calm, store=store, reuse="none")
    assert (first.cached, fresh.cached) == (False, False)
    assert again.cached or first.noisy
    assert fresh.samples_ms != first.samples_ms


def test_a_noisy_result_answers_only_where_any_is_reused(tiny_onnx, store, tmp_path):
    other = Store(tmp_path / "other.db")
    other.add(profile(tiny_onnx, protocol=QUICK, store=store).model_copy(update={"noisy": ("drift",)}))
    assert profile(tiny_onnx, protocol=QUICK, store=other, reuse="any").cached
    assert not profile(tiny_onnx, protocol=QUICK, store=other).cached
    with pytest.raises(MobilezooError, match="unknown choice of results to reuse 'noisy'"):
        profile(tiny_onnx, protocol=QUICK, store=other, reuse="noisy")


def test_samples_come_from_as_many_fresh_processes_as_asked(tiny_onnx, store):
    protocol = QUICK.model_copy(update={"restarts": 2, "slice_s": 0.005})
    report = profile(tiny_onnx, protocol=protocol, store=store)
    assert [len(run.slices) for run in report.processes] == [1, 1]
    assert sum(s.samples for run in report.processes for s in run.slices) == len(report.samples_ms)


def test_comparing_gives_a_ratio_inside_its_interval(tiny_onnx, bigger_onnx):
    result = compare(tiny_onnx, bigger_onnx, protocol=QUICK, turns=3)
    assert len(result.ratios) == 3
    assert result.ratio_low <= result.ratio <= result.ratio_high
    assert result.device_a.kind == "host"


def test_cpu_time_is_compared_without_doubts_about_a_busy_machine(tiny_onnx, bigger_onnx):
    result = compare(tiny_onnx, bigger_onnx, protocol=QUICK, turns=3, clock="cpu")
    assert result.noisy == ()
    assert result.ratio > 1
    with WorkerSession(tiny_onnx, QUICK, clock="cpu") as session:
        assert len(session.sample(4, 0.001)) >= 4
        assert session.slices == []
    assert session.opened["sentinel_before_ms"] == 0


def test_folded_branches_are_refused_unless_asked_for(tiny_onnx, tmp_path, store):
    path = tmp_path / "folded.onnx"
    path.write_bytes(tiny_onnx.read_bytes())
    beside = tiny_onnx.with_name(tiny_onnx.name + ".json").read_text()
    path.with_name("folded.onnx.json").write_text(beside.replace('"zero_gammas": []', '"zero_gammas": ["bn.weight"]'))
    with pytest.raises(DeviceError, match=r"bn\.weight.*folds"):
        profile(path, protocol=QUICK, store=store)
    assert profile(path, protocol=QUICK, store=store, allow_folded=True).samples_ms


def test_a_file_that_changed_after_its_record_is_refused(tiny_onnx, tmp_path):
    path = tmp_path / "changed.onnx"
    path.write_bytes(tiny_onnx.read_bytes() + b"x")
    path.with_name("changed.onnx.json").write_text(tiny_onnx.with_name(tiny_onnx.name + ".json").read_text())
    with pytest.raises(MobilezooError, match="changed since its record"):
        load_artifact(path)


def test_an_artifact_the_runtime_refuses_is_one_line(tiny_onnx, tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(tiny_onnx.read_bytes()[:100])
    with pytest.raises(DeviceError, match=r"broken\.onnx") as error, WorkerSession(path, QUICK):
        pass
    assert "\n" not in str(error.value)


def test_a_runtime_for_another_target_is_refused(tiny_onnx, store):
    with pytest.raises(DeviceError, match="host_litert"):
        profile(tiny_onnx, device="host_litert", protocol=QUICK, store=store)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import sys; print('out of fingers', file=sys.stderr); sys.exit(3)", "status 3: out of fingers"),
    ],
)
def test_a_worker_that_dies_is_named_with_its_last_words(tiny_onnx, program, expected):
    with (
        pytest.raises(DeviceError, match=expected),
        WorkerSession(tiny_onnx, QUICK, command=[sys.executable, "-c", program]),
    ):
        pass


DIES = """
import json, os, signal, sys
opened = {"runtime": "x", "warmup_runs": 1, "warmup_settled": True, "runs_per_sample": 1}
opened.update(dict.fromkeys(("load_ms", "first_run_ms", "sentinel_before_ms"), 1.0))
for line in sys.stdin:
    if json.loads(line)["op"] == "open":
        print(json.dumps(opened), flush=True)
    if WHEN in line:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["close", "open"])
def test_a_worker_that_kills_itself_on_close_is_named_and_no_broken_pipe(tiny_onnx, when):
    def close() -> None:
        with WorkerSession(
            tiny_onnx, QUICK, command=[sys.executable, "-c", DIES.replace("WHEN", repr(when))]
        ) as session:
            if when == "open":
                session._worker._process.wait()  # the request meets a broken pipe
            session.close()

    with pytest.raises(DeviceError, match="the runtime ended with SIGKILL"):
        close()


def test_threads_or_delegate_other_than_asked_for_fail(tiny_onnx):
    artifact = load_artifact(tiny_onnx)
    device = load_device("host").for_artifact(artifact)
    for runtime_info in ({"threads": "2"}, {"delegate": "none"}):
        with pytest.raises(DeviceError, match="requested"):
            report_of(device, artifact, QUICK, [], [], runtime_info)


def test_every_shipped_device_loads_and_describes_itself_twice_the_same():
    names = list_devices()
    assert {"host", "host_ort", "host_litert", "host_executorch"} <= set(names)
    for name, description in names.items():
        assert description
        if name.startswith("host"):
            device = load_device(name)
            device.check()
            assert device.describe() == device.describe()


def test_an_unknown_device_offers_near_names():
    with pytest.raises(UnknownNameError, match="host_litert"):
        load_device("host_litrt")


def test_a_device_file_with_a_wrong_key_is_one_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("type: host\nruntime: auto\nthreads: 3\n")
    with pytest.raises(MobilezooError, match="unknown key 'threads'"):
        load_device(path)


def test_importing_the_package_loads_no_runtime():
    program = (
        "import sys, mobilezoo_latency; "
        "print([m for m in ('torch', 'onnxruntime', 'sqlalchemy', 'numpy', 'timm') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


@pytest.mark.slow
def test_with_a_core_loaded_on_purpose_two_runs_agree_or_say_they_are_noisy(bigger_onnx, store):
    """The protocol's promise, with as many burners as cores, so that the measurement must share one."""
    how = Protocol(name="loaded", min_s=0.5, max_repeats=1)
    calm = profile(bigger_onnx, protocol=how, store=store, reuse="none")
    burn = [sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(burn) for _ in range(os.cpu_count() or 1)]
    try:
        loaded = profile(bigger_onnx, protocol=how, store=store, reuse="none")
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    difference = abs(summarize(loaded)["median_ms"] / summarize(calm)["median_ms"] - 1)
    assert loaded.noisy, f"every core was busy with something else; the medians differ by {difference:.1%}"
    assert any("other processes used" in why or "waited for a core" in why for why in loaded.noisy)


@pytest.mark.slow
def test_a_machine_that_slows_down_halfway_is_noticed(bigger_onnx, store):
    """Throttling as the protocol sees it: a stopped and continued worker runs at half speed for a while."""
    how = Protocol(name="throttled", min_s=2.0, max_repeats=1, slice_s=0.25, max_other_load=1.0)
    found: list[LatencyReport] = []
    worker = threading.Thread(target=lambda: found.append(profile(bigger_onnx, protocol=how, store=store)))
    worker.start()
    time.sleep(1.0)
    while worker.is_alive():
        for process in worker_processes():
            os.kill(process, signal.SIGSTOP)
        time.sleep(0.01)
        for process in worker_processes():
            os.kill(process, signal.SIGCONT)
        time.sleep(0.01)
    (report,) = found
    assert any("waited for a core" in why or "sentinel" in why or "drift" in why for why in report.noisy)


def worker_processes() -> list[int]:
    """Worker processes of this test process."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]
