"""Files come whole and as they were pinned, or not at all; what went wrong is one line."""

import errno
import hashlib
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.errors import CheckpointError, MobilezooError
from mobilezoo.models.published import content, https
from mobilezoo.models.published.cache import lock_file, pin_of, place_of
from mobilezoo.models.published.choose import WeightsError
from mobilezoo.models.published.fetch import fetch, local

from .conftest import Answer, Host, published

PATH = "/files/official.pth"


def left(cache: Path) -> list[str]:
    """Files of the cache, parts and locks aside."""
    return sorted(p.name for p in cache.rglob("*") if p.is_file() and not p.name.startswith("."))


def test_a_file_comes_once_and_is_pinned(
    host: Host, weights: bytes, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.files[PATH] = weights
    one = published(host)
    found = fetch(one)
    assert found.path == cache / "weights" / "mnasnet_a1_035" / "in1k" / "official.pth"
    assert found.path.read_bytes() == weights
    assert (found.sha256, found.key) == (hashlib.sha256(weights).hexdigest(), "model")
    assert "license of the weights: MIT" in capsys.readouterr().err
    assert fetch(one) == local(one) == found
    assert len(host.requests) == 1
    assert capsys.readouterr().err == ""
    pin = pin_of(one)
    assert pin is not None
    assert (pin.sha256, pin.size_bytes) == (found.sha256, len(weights))
    assert left(cache) == ["official.pth", "weights.lock.json"]


def test_a_cut_connection_is_taken_up_where_it_ended(host: Host, weights: bytes, cache: Path) -> None:
    host.files[PATH] = weights
    half = len(weights) // 2
    host.answers[PATH] = [Answer(200, {"ETag": host.etag(PATH)}, cut_after=half)]
    assert fetch(published(host)).path.read_bytes() == weights
    first, second = [asked for _, asked in host.requests]
    assert "range" not in first
    assert (second["range"], second["if-range"]) == (f"bytes={half}-", host.etag(PATH))


def test_a_part_of_another_version_is_thrown_away(host: Host, weights: bytes) -> None:
    host.files[PATH] = weights
    host.answers[PATH] = [Answer(200, {"ETag": '"an older one"'}, b"x" * 5000, cut_after=3000)]
    assert fetch(published(host)).path.read_bytes() == weights
    assert host.requests[1][1]["if-range"] == '"an older one"'


def test_without_a_mark_of_the_version_nothing_is_mixed(host: Host, weights: bytes) -> None:
    host.files[PATH], host.etags = weights, False
    host.answers[PATH] = [Answer(200, body=b"x" * 5000, cut_after=3000)]
    assert fetch(published(host)).path.read_bytes() == weights
    assert "range" not in host.requests[1][1]


def test_another_run_goes_on_with_the_part(host: Host, weights: bytes, cache: Path) -> None:
    host.files[PATH] = weights
    etag = {"ETag": host.etag(PATH)}
    broken = [Answer(200, etag, cut_after=1000)] + [Answer(503) for _ in range(4)]
    host.answers[PATH] = broken
    with pytest.raises(WeightsError, match=r"503.*are kept, the same command goes on from there"):
        fetch(published(host))
    assert left(cache) == []
    assert fetch(published(host)).path.read_bytes() == weights
    assert host.requests[-1][1]["range"] == "bytes=1000-"


def test_a_whole_part_that_was_not_settled_is_fetched_again(host: Host, weights: bytes) -> None:
    host.files[PATH] = weights
    one = published(host)
    part = place_of(one).with_name(".official.pth.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(weights)
    note = {"url": host.address + PATH, "version": host.etag(PATH)}
    https._Part(part, host.address + PATH).note.write_text(json.dumps(note))
    assert fetch(one).path.read_bytes() == weights
    assert [asked.get("range") for _, asked in host.requests] == [f"bytes={len(weights)}-", None]


def test_redirects_are_followed(host: Host, weights: bytes) -> None:
    host.files["/real"] = weights
    host.answers[PATH] = [Answer(302, {"Location": "/real"}, b"")]
    assert fetch(published(host)).path.read_bytes() == weights
    host.answers["/circle"] = [Answer(302, {"Location": "/circle"}, b"") for _ in range(40)]
    with pytest.raises(WeightsError, match="leads in circles"):
        fetch(published(host, "/circle"), force=True)


def test_a_busy_host_is_asked_again_when_it_said(host: Host, weights: bytes, waits: list[float]) -> None:
    host.files[PATH] = weights
    host.answers[PATH] = [Answer(429, {"Retry-After": "7"}, b"slow down")]
    fetch(published(host))
    assert waits == [7.0]
    host.answers[PATH] = [Answer(429, {"Retry-After": "3600"}, b"slow down")]
    with pytest.raises(WeightsError, match="answered 429 and asks to wait 3,600 s: run the same command then"):
        fetch(published(host), force=True)
    assert waits == [7.0]
    assert local(published(host)).path.read_bytes() == weights


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(404, {}, b"gone"), "answered 404 .* it is not there any more; .*--from FILE"),
        (Answer(403, {}, b"no"), "answered 403 .* it is closed to us"),
        (Answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<p>Sign in</p>"), "gave a web page"),
        (Answer(200, {}, b"\n <!DOCTYPE html><html>"), "gave a web page"),
        (
            Answer(200, {}, b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 25\n"),
            "gave a Git LFS pointer",
        ),
        (Answer(200, {}, b'{"message": "Bad credentials"}'), r"gave no file of weights: it begins with '\{\"message"),
        (Answer(200, {}, b""), "gave an empty file"),
    ],
)
def test_what_is_no_file_of_weights_is_one_line(host: Host, cache: Path, answer: Answer, said: str) -> None:
    host.answers[PATH] = [answer]
    with pytest.raises(WeightsError, match=said) as caught:
        fetch(published(host))
    assert "\n" not in str(caught.value)
    assert left(cache) == []
    assert pin_of(published(host)) is None


def test_a_hash_that_is_not_the_records_is_refused(host: Host, weights: bytes, cache: Path) -> None:
    host.files[PATH] = weights
    for said in ({"sha256": "0123abcd"}, {"git_sha1": "0" * 40}):
        with pytest.raises(WeightsError, match="is another file than was published"):
            fetch(published(host, **said))
        assert left(cache) == []
    blob = hashlib.sha1(b"blob %d\0" % len(weights) + weights, usedforsecurity=False).hexdigest()
    found = hashlib.sha256(weights).hexdigest()
    assert fetch(published(host, git_sha1=blob, sha256=found[:8])).sha256 == found


def test_a_file_that_its_host_replaced_is_refused(host: Host, weights: bytes, cache: Path) -> None:
    host.files[PATH] = weights
    one = published(host)
    path = fetch(one).path
    host.files[PATH] = weights + b"more"
    with pytest.raises(WeightsError, match=r"what arrived is another file .* was pinned on 20.* in '.*weights\.lock"):
        fetch(one, force=True)
    assert path.read_bytes() == weights
    path.write_bytes(weights[:-1] + b"?")
    with pytest.raises(WeightsError, match=r"the file '.*official\.pth' is another file than was published"):
        local(one)


def test_a_file_is_hashed_again_only_after_a_change(
    host: Host, weights: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    real = content.sha256_of
    monkeypatch.setattr(content, "sha256_of", lambda path: hashed.append(path) or real(path))
    monkeypatch.setattr("mobilezoo.models.published.cache.SETTLED_S", 0.0)
    host.files[PATH] = weights
    one = published(host)
    place = fetch(one).path
    fetch(one)
    before = len(hashed)
    assert fetch(one).sha256 == hashlib.sha256(weights).hexdigest()
    assert len(hashed) == before  # nobody touched it
    assert local(one, anew=True).path == place
    assert len(hashed) == before + 1
    times = place.stat()
    place.write_bytes(weights[:-1] + b"x")  # of the same size, and with the old time of writing
    os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(WeightsError, match="was pinned on"):
        fetch(one)


def test_a_file_changed_a_moment_ago_is_hashed_every_time(host: Host, weights: bytes) -> None:
    host.files[PATH] = weights
    one = published(host)
    fetch(one)
    fetch(one)
    pin = pin_of(one)
    assert pin is not None
    assert pin.unchanged is None  # a second change within the file system's clock would not show


def test_a_file_with_another_key_than_its_record_is_refused(host: Host, weights: bytes, cache: Path) -> None:
    host.files[PATH] = weights
    one = published(host)
    file = one.file.model_copy(update={"key": ("state_dict",)})
    with pytest.raises(CheckpointError, match=r"no weights under 'state_dict' in .* there are model, model_ema"):
        fetch(type(one)(one.config, one.tag, file))
    assert left(cache) == []
    host.files[PATH] = b"PK\x03\x04 and then nothing"
    with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
        fetch(one)
    assert left(cache) == []


def test_a_full_disk_is_seen_before_or_when_it_is_reached(
    host: Host, weights: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.files[PATH] = weights
    real = shutil.disk_usage
    monkeypatch.setattr(https.shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    with pytest.raises(WeightsError, match=r"MB are to come and '.*' has 0 MB left: free some space, or name another"):
        fetch(published(host))
    monkeypatch.undo()
    monkeypatch.setenv("MOBILEZOO_CACHE", str(cache))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(https, "_take", full)
    with pytest.raises(WeightsError, match=r"No space left on device: free some space.*what arrived is kept"):
        fetch(published(host))
    assert left(cache) == []


def test_without_a_network_it_is_one_line_and_the_cache_still_serves(
    host: Host, weights: bytes, waits: list[float]
) -> None:
    host.files[PATH] = weights
    one = published(host)
    nowhere = one.file.model_copy(update={"url": "http://127.0.0.1:9/official.pth"})
    with pytest.raises(WeightsError, match=r"cannot be reached .*: look after the network and run the same command"):
        fetch(type(one)(one.config, one.tag, nowhere))
    assert sum(waits) < 10
    fetch(one)
    host.answers[PATH] = [Answer(500) for _ in range(9)]
    assert fetch(one).path.is_file()
    assert len(host.requests) == 1


def test_an_encrypted_address_never_leads_to_a_plain_one() -> None:
    import httpx2

    answer = httpx2.Response(200, request=httpx2.Request("GET", "http://127.0.0.1/x"))
    with pytest.raises(WeightsError, match="not encrypted"):
        https._check(answer, https._Part(Path("x"), "https://example.org/x"), "x")


def test_a_file_fetched_by_hand_is_checked_as_well(host: Host, weights: bytes, tmp_path: Path) -> None:
    one = published(host, "/", file="official.pth")
    page = one.file.model_copy(update={"url": "https://1drv.ms/f/abc"})
    one = type(one)(one.config, one.tag, page)
    with pytest.raises(WeightsError, match=r"is on OneDrive: open https://1drv\.ms/f/abc .*'official.pth' and run"):
        fetch(one)
    mine = tmp_path / "downloaded.pth"
    mine.write_text("<html>virus scan warning</html>")
    with pytest.raises(WeightsError, match="web page"):
        fetch(one, given=mine)
    mine.write_bytes(weights)
    assert fetch(one, given=mine).path.read_bytes() == mine.read_bytes() == weights
    with pytest.raises(MobilezooError, match="not found"):
        fetch(one, given=tmp_path / "no.pth")
    assert host.requests == []


def test_two_at_once_fetch_one_file(host: Host, weights: bytes) -> None:
    host.files[PATH] = weights
    one = published(host)
    threads = [threading.Thread(target=fetch, args=(one,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(host.requests) == 1
    assert local(one).path.read_bytes() == weights


def test_a_damaged_lock_file_is_one_line(host: Host, weights: bytes) -> None:
    host.files[PATH] = weights
    fetch(published(host))
    lock_file().write_text("{")
    with pytest.raises(WeightsError, match="the lock file of fetched weights is damaged"):
        local(published(host))
