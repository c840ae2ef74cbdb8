"""The results database on a real PostgreSQL server."""

import threading

import pytest

from mobilezoo.errors import MobilezooError
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo_latency import Store

pytestmark = pytest.mark.slow
INFO = DeviceInfo(name="host", kind="host", runtime="LiteRT")


@pytest.fixture(scope="module")
def address(postgres):
    return postgres.address


def made(sha: str, **changes: object) -> LatencyReport:
    fields = {
        "artifact_sha256": sha,
        "artifact": "a.tflite",
        "target": "litert",
        "precision": "fp32",
        "model": "a",
        "device": INFO,
        "protocol": Protocol(),
        "samples_ms": (1.0, 2.0, 3.0),
        "load_ms": 1.0,
        "first_run_ms": 1.0,
        "sentinel_before_ms": 1.0,
        "sentinel_after_ms": 1.0,
        "measured_at": "2024-01-01T00:00:00+00:00",
    }
    return LatencyReport(**{**fields, **changes})


def test_reports_come_back_whole_from_postgresql(address):
    store = Store(address)
    report = made("a" * 64)
    assert store.add(report)
    assert not store.add(report)
    found = store.find("a" * 64, INFO, Protocol())
    assert found is not None
    assert found.model_copy(update={"cached": False}) == report
    assert store.add(made("b" * 64, noisy=("drift",)))
    assert store.find("b" * 64, INFO, Protocol()) is None
    assert [r.artifact_sha256[0] for _, r in store.rows(kind="host")] == ["a", "b"]


def test_concurrent_writers_lose_nothing_on_postgresql(address):
    before = len(Store(address).rows())

    def write(worker: int) -> None:
        store = Store(address)
        for i in range(20):
            store.add(made(f"{worker:032d}{i:032d}"))

    workers = [threading.Thread(target=write, args=(n,)) for n in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(Store(address).rows()) == before + 80


def test_two_writers_of_one_report_keep_one(address):
    stores = [Store(address) for _ in range(6)]
    start = threading.Barrier(len(stores))
    kept: list[bool] = []

    def write(store: Store) -> None:
        start.wait()
        kept.append(store.add(made("c" * 64)))

    workers = [threading.Thread(target=write, args=(store,)) for store in stores]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert kept.count(True) == 1
    assert len(kept) == len(stores)


def test_eight_creators_at_once_make_one_table(address):
    """IF NOT EXISTS alone lets two of them create the same type at once, and one fails."""
    from sqlalchemy import create_engine, text

    engine = create_engine(address)
    for _ in range(5):
        with engine.begin() as connection:
            connection.execute(text("drop table if exists latency_reports"))
        start, made_by, failed = threading.Barrier(8), list[Store](), list[Exception]()

        def create(start: threading.Barrier = start, made_by: list = made_by, failed: list = failed) -> None:
            start.wait()
            try:
                made_by.append(Store(address))
                made_by[-1].add(made("d" * 64))
            except Exception as error:
                failed.append(error)

        workers = [threading.Thread(target=create) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert failed == []
        assert len(Store(address).rows()) == 1


def test_a_server_that_is_gone_is_one_line():
    pytest.importorskip("psycopg")
    with pytest.raises(MobilezooError, match="results database") as error:
        Store("postgresql+psycopg://tester@127.0.0.1:1/postgres")
    assert "\n" not in str(error.value)
