"""The results database: keys, cache, concurrent writers, damage."""

import multiprocessing
import sqlite3
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import event

from mobilezoo.errors import MobilezooError
from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
from mobilezoo_latency import Store

INFO = DeviceInfo(name="host", kind="host", runtime="LiteRT 2.3.0 (XNNPACK)", cpu="a cpu", os="an os")


def made(sha: str = "a" * 64, at: str = "2024-01-01T00:00:00+00:00", **changes) -> LatencyReport:
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
        "measured_at": at,
    }
    return LatencyReport(**{**fields, **changes})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "latency.db")


def test_a_report_comes_back_whole_and_is_marked_as_cached(store):
    assert store.add(made())
    found = store.find("a" * 64, INFO, Protocol())
    assert found is not None
    assert found.cached
    assert found.model_copy(update={"cached": False}) == made()


def test_another_artifact_device_or_protocol_is_another_key(store):
    store.add(made())
    assert store.find("b" * 64, INFO, Protocol()) is None
    assert store.find("a" * 64, INFO.model_copy(update={"threads": 2}), Protocol()) is None
    assert store.find("a" * 64, INFO, Protocol(min_s=2.0)) is None


def test_details_of_a_device_do_not_change_its_key(store):
    store.add(made())
    assert store.find("a" * 64, INFO.model_copy(update={"details": {"temperature": "40"}}), Protocol()) is not None


def test_a_noisy_result_is_kept_but_never_answers_for_a_measurement(store):
    store.add(made(noisy=("drift",)))
    assert store.find("a" * 64, INFO, Protocol()) is None
    assert len(store.rows()) == len(store.rows(noisy=True)) == 1


def test_the_newest_answer_wins_and_the_older_stays(store):
    store.add(made(samples_ms=(9.0,)))
    store.add(made(at="2024-02-01T00:00:00+00:00", samples_ms=(7.0,)))
    assert store.find("a" * 64, INFO, Protocol()).samples_ms == (7.0,)
    assert [r.samples_ms for _, r in store.rows()] == [(9.0,), (7.0,)]


def test_adding_the_same_report_twice_keeps_one(store):
    assert store.add(made())
    assert not store.add(made())
    assert len(store.rows()) == 1


def test_an_unknown_number_is_one_clear_line(store):
    with pytest.raises(MobilezooError, match=r"no latency result 7"):
        store.get(7)


def _write(path: str, worker: int, count: int) -> None:
    store = Store(path)
    for i in range(count):
        store.add(made(sha=f"{worker:032d}{i:032d}"))


def test_concurrent_writers_lose_nothing(tmp_path):
    path = str(tmp_path / "shared.db")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(path, w, 25)) for w in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len({r.artifact_sha256 for _, r in Store(path).rows()}) == 75


def test_two_writers_of_one_report_keep_one_and_nothing_is_taken_for_damage(tmp_path):
    stores = [Store(tmp_path / "shared.db") for _ in range(4)]
    start = threading.Barrier(len(stores))
    kept: list[bool] = []

    def write(store: Store) -> None:
        start.wait()
        kept.append(store.add(made()))

    workers = [threading.Thread(target=write, args=(store,)) for store in stores]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(kept) == [False, False, False, True]
    assert not list(tmp_path.glob("*.damaged-*"))


def test_a_damaged_database_is_kept_aside_and_named(tmp_path):
    path = tmp_path / "latency.db"
    path.write_bytes(b"this is no database, but it may hold somebody's work" * 100)
    with pytest.raises(MobilezooError, match=r"damaged.*kept aside as 'latency\.db\.damaged-"):
        Store(path)
    (aside,) = tmp_path.glob("latency.db.damaged-*")
    assert aside.read_bytes().startswith(b"this is no database")
    assert Store(path).add(made())


def test_a_bad_address_is_one_clear_line(tmp_path):
    with pytest.raises(MobilezooError, match="results database"):
        Store("nonsense://x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(MobilezooError, match="results database"):
        Store(tmp_path / "file" / "latency.db")


def test_the_default_database_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEZOO_LATENCY_DB", str(tmp_path / "mine.db"))
    Store().add(made())
    assert (tmp_path / "mine.db").is_file()


def test_a_file_name_is_no_address(tmp_path):
    for name in ("a?b=c.db", "100%.db", "a#b.db", "a b:@.db"):
        Store(tmp_path / name).add(made())
        assert (tmp_path / name).is_file()


def test_a_database_that_cannot_be_written_is_one_line_with_the_remedy(tmp_path):
    with pytest.raises(MobilezooError, match="must be writable") as error:
        Store(tmp_path)  # a folder: what a folder that is read-only says too
    assert "\n" not in str(error.value)


def test_a_full_disk_is_one_line_with_the_remedy(store):
    store.add(made())
    with store._connect() as connection:
        (pages,) = connection.exec_driver_sql("pragma page_count").one()
    limit = f"pragma max_page_count={pages + 2}"
    event.listen(store._engine, "connect", lambda connection, _: connection.execute(limit))
    store._engine.dispose()
    with pytest.raises(MobilezooError, match="is full: free some space"):
        store.add(made(model="b", noisy=("x" * 500_000,)))
    assert len(store.rows()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes on Windows")
def test_a_disk_without_room_for_a_new_database_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    """SQLite calls it a fault of input or output: its shared memory cannot be made as large as it must be."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        with pytest.raises(MobilezooError, match=r"(I/O|is full).*free some space") as raised:
            Store(tmp_path / "new.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(raised.value)
    assert Store(tmp_path / "new.db").rows() == []


def spoil(store: Store, number: int, change: str = '"samples_ms":[NaN,-1.0]') -> None:
    """What an import of older days could leave behind."""
    with sqlite3.connect(store.file) as database:
        (text,) = database.execute("select report from latency_reports where id = ?", (number,)).fetchone()
        spoilt = text.replace('"samples_ms":[1.0,2.0,3.0]', change)
        assert spoilt != text
        database.execute("update latency_reports set report = ? where id = ?", (spoilt, number))


@pytest.mark.parametrize(
    "change", ['"samples_ms":[NaN]', '"samples_ms":[-1.0]', '"samples_ms":"\x1b[2J"', '"samples_ms":[1,']
)
def test_a_bad_row_is_named_once_and_left_out(store, capsys, change):
    store.add(made())
    store.add(made(at="2024-02-01T00:00:00+00:00"))
    spoil(store, 2, change)
    assert [number for number, _ in store.rows()] == [1]
    assert store.find("a" * 64, INFO, Protocol()).measured_at.startswith("2024-01")
    assert store.damaged() == [2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out: latency result 2: ")
    assert "latency delete 2" in line
    assert line.isprintable()
    with pytest.raises(MobilezooError, match="latency result 2"):
        store.get(2)
    assert store.delete(store.damaged()) == 1
    assert store.damaged() == []


def test_rows_are_deleted_by_number_or_column_and_only_where_all_are_there(store):
    for name in "abc":
        store.add(made(sha=name * 64, model=name))
    with pytest.raises(MobilezooError, match="no latency result 9: nothing was deleted"):
        store.delete([1, 9])
    assert store.delete() == 0
    assert len(store.rows()) == 3
    assert store.delete([2]) == 1
    assert store.delete(model="c") == 1
    assert [report.model for _, report in store.rows()] == ["a"]


def test_a_noisy_result_answers_where_one_is_good_enough_and_a_quiet_one_goes_before_it(store):
    noisy = made(at="2024-03-01T00:00:00+00:00", noisy=("drift",))
    store.add(noisy)
    assert store.find("a" * 64, INFO, Protocol(), noisy=True).noisy == ("drift",)
    store.add(made())
    assert store.find("a" * 64, INFO, Protocol(), noisy=True).noisy == ()


def test_names_longer_than_a_column_are_kept_whole(store):
    store.add(made(model="m\x00" * 5000))
    assert store.rows()[0][1].model == "m\x00" * 5000
