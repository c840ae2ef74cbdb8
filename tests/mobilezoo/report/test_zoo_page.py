"""The page of the latency table: generated from the table, self-contained, and quiet in a real browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.models.latency_table import REVISION, LatencyTable, read_latencies
from mobilezoo.report.zoo_page import DOCS, PAGE, TEXT, zoo_html, zoo_markdown

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data


@pytest.mark.skipif(not DOCS.is_dir(), reason="an installed package has no docs")
def test_the_docs_are_those_of_the_table() -> None:
    table = read_latencies()
    assert (DOCS / PAGE).read_text(encoding="utf-8") == zoo_html(table), "run make zoo"
    assert (DOCS / TEXT).read_text(encoding="utf-8") == zoo_markdown(table), "run make zoo"


def test_the_page_holds_every_row_and_no_address() -> None:
    table = read_latencies()
    page = zoo_html(table)
    files = [(n["name"], f["device"], f["precision"]) for n in data_of(page)["networks"] for f in n["files"]]
    assert sorted(files) == sorted((row.model, row.device, row.precision) for row in table.rows)
    assert "default-src 'none'" in page
    assert "emulated phone cores" in page
    assert not re.search(r'(src|href)\s*=\s*"', page)
    assert len(page) < 5_000_000


def test_a_reason_cannot_end_the_script() -> None:
    table = read_latencies()
    row = table.rows[0].model_copy(update={"reason": "</script><b>", "latency_ms": None})
    page = zoo_html(LatencyTable.model_validate({**dict(table), "rows": (row,)}))
    assert "</script><b>" not in page


def test_a_reason_makes_no_tag_and_no_line_in_markdown() -> None:
    table = read_latencies()
    row = table.rows[0].model_copy(update={"reason": "<unknown>:0: error:\n# no | kernel"})
    assert "&lt;unknown&gt;:0: error: # no \\| kernel\n" in zoo_markdown(table.model_copy(update={"rows": (row,)}))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_it_draws_in_a_browser(tmp_path: Path) -> None:
    table = read_latencies()
    (tmp_path / "zoo.html").write_text(zoo_html(table), encoding="utf-8")
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=2000"]
    address = f"{(tmp_path / 'zoo.html').as_uri()}#core=cortex_a76&precision=int8"
    dom = subprocess.run([*command, address], capture_output=True, text=True, check=True, timeout=120).stdout
    assert 'data-drawn="yes"' in dom
    shown = {
        row.model for row in table.rows if (row.device, row.precision) == ("cortex_a76", "int8") and row.latency_ms
    }
    names = set(re.findall(r'<th class="">([^<]+)</th>', dom))
    assert shown <= names
    assert dom.count('class="mark') >= 1


def test_counts_of_files_written_otherwise_are_named() -> None:
    table = read_latencies()
    old = tuple(row.model_copy(update={"revision": REVISION - 1}) for row in table.rows[:2])
    new = tuple(row.model_copy(update={"revision": REVISION}) for row in table.rows[2:])
    assert table.model_copy(update={"rows": new}).outdated == 0
    assert "learned to" not in zoo_markdown(table.model_copy(update={"rows": new}))
    assert "\n2 of the counts are of files" in zoo_markdown(table.model_copy(update={"rows": (*old, *new)}))
