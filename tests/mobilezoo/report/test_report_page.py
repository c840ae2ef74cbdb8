"""The page: self-contained, escaped, complete, and quiet in a real browser."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.errors import MobilezooError
from mobilezoo.latency_report import Counts, Estimate, LatencyReport
from mobilezoo.report import ReportContents, build_report, runs_report
from mobilezoo.report.curves import Curves
from mobilezoo.report.figures import MAX_POINTS, training_figures
from mobilezoo.report.importance import importances
from mobilezoo.report.search_figures import front_figure, reward_figure
from mobilezoo.report.search_section import FinetuneFound, SearchFound
from mobilezoo.search.finetune_result import FinetuneResult

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = {"phone": (390, 844), "desktop": (1280, 900)}


def figures_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data


def body_of(page: str) -> str:
    return page[page.index("<body>") : page.index("<noscript>")]


def test_the_page_holds_every_record_and_no_address(records: dict[str, Any], tmp_path: Path) -> None:
    path = build_report(tmp_path / "out" / "report.html", ReportContents(**records))
    page = path.read_text()
    body = body_of(page)
    assert "mobilenetv2_ca_100" in body
    assert "2.24 M" in body
    assert "98.06" in body
    assert "Core ML needs macOS" in body
    assert "the sentinel moved by 5.1%" in body
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)\s*=\s*"(https?:)?//', page[: page.index("<noscript>")])
    figures = figures_of(page)
    assert {"front", "reward", "latency-0", "latency-1", "train-0"} <= figures.keys()


def test_kinds_of_device_never_share_an_axis(records: dict[str, Any], tmp_path: Path) -> None:
    figures = figures_of(build_report(tmp_path / "r.html", ReportContents(**records)).read_text())
    samples: list[LatencyReport] = records["latencies"]
    phone = [list(r.samples_ms) for r in samples if r.device.kind == "phone"]
    host = [list(r.samples_ms) for r in samples if r.device.kind == "host"]
    drawn = [[trace["x"][::3] for trace in figures[key]["data"] if "x" in trace] for key in ("latency-0", "latency-1")]
    assert sorted(drawn[0]) == sorted(map(sorted, phone))
    assert sorted(drawn[1]) == sorted(map(sorted, host))


def test_counts_of_emulated_cores_stand_in_a_table_of_their_own(records: dict[str, Any], tmp_path: Path) -> None:
    timed = records["latencies"][0]
    update = {
        "device": timed.device.model_copy(update={"name": "cortex_a76", "kind": "emulated"}),
        "samples_ms": (),
        "counts": Counts(instructions=9_900_000, cycles=4_010_000.0, dram_lines=177_000),
        "estimate": Estimate(latency_ms=3.36, low_ms=3.1, high_ms=3.59, error_percent=7.7, basis="Pixel 4 <large>"),
    }
    reports = [timed.model_copy(update=update), timed.model_copy(update={**update, "estimate": None})]
    page = build_report(tmp_path / "r.html", ReportContents(title="x", latencies=reports)).read_text()
    body = page[page.index("<body>") :]
    assert 'class="chart"' not in body
    assert "counted, not measured" in body
    assert "≈&nbsp;3.36&nbsp;ms" in body
    assert "±7.7%" in body
    assert "Pixel 4 &lt;large&gt;" in body
    assert "not calibrated" in body


def test_the_front_chart_draws_the_trials_of_the_record(records: dict[str, Any], tmp_path: Path) -> None:
    search = records["searches"][0].result
    line, points, best = figures_of(build_report(tmp_path / "r.html", ReportContents(**records)).read_text())["front"][
        "data"
    ]
    assert line["x"] == [search.trial(n).latency.ms for n in search.front]
    assert len(points["x"]) == sum(t.state == "complete" for t in search.trials)
    assert points["marker"]["color"] == [t.reward for t in search.trials if t.state == "complete"]
    assert best["y"] == [search.trial(search.best).top1]


def test_a_front_of_many_criteria_shows_each_and_what_was_measured_again(
    records: dict[str, Any], tmp_path: Path
) -> None:
    search = records["searches"][0].result
    trials = tuple(
        t.model_copy(
            update={
                "elsewhere": {"<phone>": t.latency.model_copy(update={"ms": 2 * t.latency.ms})},
                "size_mb": 1.5 + t.number,
                "remeasured": {"laptop": t.latency.model_copy(update={"ms": 1.1 * t.latency.ms})},
            }
        )
        if t.latency
        else t
        for t in search.trials
    )
    criteria = ("top1", "laptop_ms", "<phone>_ms", "size_mb")
    update = {"trials": trials, "devices": ("laptop", "<phone>"), "criteria": criteria}
    page = build_report(
        tmp_path / "r.html", ReportContents(title="x", searches=[SearchFound(search.model_copy(update=update))])
    ).read_text()
    figures = figures_of(page)
    again = figures["front"]["data"][-1]
    assert again["x"] == [1.1 * search.trial(n).latency.ms for n in search.front]
    assert figures["front-0"]["data"][0]["x"] == [2 * t.latency.ms for t in search.trials if t.latency]
    assert figures["front-1"]["data"][0]["x"] == [1.5 + t.number for t in search.trials if t.latency]
    assert "measured again: " in body_of(page)
    assert "on &lt;phone&gt;" in body_of(page)


def test_the_choice_that_decides_the_reward_is_the_most_important(records: dict[str, Any]) -> None:
    search = records["searches"][0].result
    by_depth = tuple(
        t.model_copy(update={"reward": float(t.point.stages[2].depth)}) if t.state == "complete" else t
        for t in search.trials
    )
    shares = importances(search.model_copy(update={"trials": by_depth}))
    assert next(iter(shares)) == "stage 3 depth"
    assert shares["stage 3 depth"]["reward"] > 0.9
    assert importances(search.model_copy(update={"trials": by_depth[:5]})) == {}


def test_text_from_records_is_escaped_everywhere(records: dict[str, Any], tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    models = [{**records["models"][0], "name": evil}]
    latencies = [report.model_copy(update={"model": evil, "noisy": (evil,)}) for report in records["latencies"]]
    artifacts = [a.model_copy(update={"path": evil, "tools": {evil: evil}}) for a in records["artifacts"]]
    trials = tuple(t.model_copy(update={"arch": (evil,), "reason": evil}) for t in records["searches"][0].result.trials)
    search = records["searches"][0].result.model_copy(update={"trials": trials})
    new = {
        "title": evil,
        "models": models,
        "latencies": latencies,
        "artifacts": artifacts,
        "searches": [SearchFound(search)],
    }
    page = build_report(tmp_path / "r.html", ReportContents(**{**records, **new})).read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert all("<img" not in text for text in figures_of(page)["front"]["data"][1]["text"])


def test_sections_without_records_are_left_out(tmp_path: Path) -> None:
    page = build_report(tmp_path / "r.html", ReportContents(title="nothing yet")).read_text()
    assert "<section" not in page
    assert len(page) < 20_000  # no charts, so no plotting library


def test_runs_are_compared_by_any_column_they_have(records: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "demo_best"
    other.mkdir(parents=True)
    (other / "metrics.csv").write_text("epoch,val_top1,grad_norm\n0,50.0,3.5\n1,nan,2.5\n2,61.5,\n")
    path = runs_report([*records["runs"], other], tmp_path / "runs.html")
    figures = figures_of(path.read_text())
    top1 = figures["train-0"]["data"]
    assert [trace["name"] for trace in top1] == [
        "mobilenetv2_ca_100",
        f"{tmp_path.name}/demo_best",
        "elsewhere/demo_best",
    ]
    assert top1[2]["y"] == [50.0, None, 61.5]
    assert any(t["y"] == [3.5, 2.5, None] for figure in figures.values() for t in figure["data"])
    assert "61.50" in body_of(path.read_text())


@pytest.mark.parametrize(("content", "message"), [(None, "holds no metrics.csv"), (b"\xff\xfe\x00", "cannot be read")])
def test_a_run_without_metrics_is_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if content is not None:
        (run / "metrics.csv").write_bytes(content)
    with pytest.raises(MobilezooError, match=message):
        runs_report([run], tmp_path / "r.html")
    with pytest.raises(MobilezooError, match="no run folder given"):
        runs_report([], tmp_path / "r.html")
    with pytest.raises(MobilezooError, match="run folder not found"):
        runs_report([tmp_path / "none"], tmp_path / "r.html")


def test_a_long_measurement_is_a_box_of_all_and_few_dots(records: dict[str, Any], tmp_path: Path) -> None:
    samples = np.random.default_rng(0).gamma(3, 0.1, 20_001) + 0.3
    many = records["latencies"][0].model_copy(update={"samples_ms": tuple(map(float, samples))})
    page = build_report(tmp_path / "r.html", ReportContents(title="x", latencies=[many] * 3)).read_text()
    figure = figures_of(page)["latency-0"]
    assert sum(len(trace.get("x", ())) for trace in figure["data"]) <= 3 * MAX_POINTS  # three numbers per dot
    box, dots = figure["data"][:2]
    assert [box[key][0] for key in ("q1", "median", "q3")] == pytest.approx(np.percentile(samples, (25, 50, 75)))
    iqr = box["q3"][0] - box["q1"][0]
    assert box["upperfence"][0] == samples[samples <= box["q3"][0] + 1.5 * iqr].max()
    assert box["lowerfence"][0] == samples[samples >= box["q1"][0] - 1.5 * iqr].min()
    assert (dots["x"][0], dots["x"][-2]) == (samples.min(), samples.max())
    assert "boxes are of all 60,003 samples" in page
    assert len(json.dumps(figure)) < 200_000


def test_long_runs_and_searches_are_thinned_and_say_so(records: dict[str, Any]) -> None:
    run = Curves("long", {"epoch": [float(i) for i in range(9000)], "val_top1": [float(i % 97) for i in range(9000)]})
    (figure,) = training_figures([run])
    (line,) = figure["data"]
    assert len(line["x"]) == MAX_POINTS
    assert (line["x"][0], line["x"][-1]) == (0.0, 8999.0)
    assert line["y"] == [x % 97 for x in line["x"]]
    assert "4,000 epochs" in figure["note"]
    found = records["searches"][0].result
    some = [trial for trial in found.trials if trial.latency]
    trials = tuple(some[i % len(some)].model_copy(update={"number": i}) for i in range(9000))
    many = found.model_copy(update={"trials": trials, "front": (17,), "best": 23})
    front = front_figure(many)
    _, points, best = front["data"]
    assert len(points["x"]) == MAX_POINTS
    assert best["y"] == [trials[23].top1]
    assert "4,000 of 9,000 networks" in front["note"]
    steps, dots = reward_figure(many)["data"]
    assert len(steps["x"]) + len(dots["x"]) <= MAX_POINTS
    assert steps["y"][-1] == max(trial.reward or 0 for trial in trials)


def test_two_searches_each_have_their_section_and_charts(records: dict[str, Any], tmp_path: Path) -> None:
    one = records["searches"][0].result
    two = [SearchFound(one), SearchFound(one.model_copy(update={"name": "other"}))]
    page = build_report(tmp_path / "r.html", ReportContents(title="x", searches=two)).read_text()
    assert 'id="search"' in page
    assert 'id="search-2"' in page
    assert {"front", "reward", "front-2", "reward-2"} <= figures_of(page).keys()


def test_a_finished_network_stands_beside_what_the_search_said(records: dict[str, Any], tmp_path: Path) -> None:
    search = records["searches"][0].result
    trial = search.trial(search.best)
    estimate = trial.latency.model_copy(update={"ms": 0.4321})
    done = FinetuneResult(
        number=trial.number, checkpoint="w", file="f", search_top1=91.25, top1=95.5, file_top1=95.25,
        search_latency=trial.latency.model_copy(update={"ms": 0.321}), latency={"host": estimate},
    )  # fmt: skip
    files = ((tmp_path / "a b" / "best.safetensors", ""), (tmp_path / "net.tflite", "changed"))
    searches = [SearchFound(search, (FinetuneFound(done, files),))]
    body = body_of(build_report(tmp_path / "out" / "r.html", ReportContents(title="x", searches=searches)).read_text())
    assert f"Trial {trial.number}, trained in full" in body
    assert all(word in body for word in ("91.25", "95.50 (file 95.25)", "0.321", "0.432", "ms on host"))
    assert 'href="../a%20b/best.safetensors"' in body
    assert re.search(r"net\.<wbr>tflite</code> <span class=\"mark failed\">changed", body)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: run `apt-get install chromium`")
def test_a_browser_draws_and_prints_the_page_without_complaint(records: dict[str, Any], tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    path = build_report(tmp_path / "report.html", ReportContents(**records))
    figures = len(figures_of(path.read_text()))
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for scheme, screen in (("light", "desktop"), ("dark", "phone")):
            width, height = WIDTHS[screen]
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            look_at(page, path, figures)
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 703, "height": 1000})  # A4 between its margins
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        wide = page.evaluate(TOO_WIDE)
        printed = page.pdf(format="A4")
        browser.close()
    assert wide == []
    assert len(printed) < 2_000_000


TOO_WIDE = """Array.from(document.querySelectorAll('th, td, .main-svg, .arch, .card'))
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML)"""
"""What would be cut at the right edge."""


def look_at(page: Any, path: Path, figures: int) -> None:
    """Open the page; nothing is said, asked for from elsewhere, left out, or wider than the screen."""
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn=yes]", timeout=60_000)
    assert page.locator(".plot .main-svg").count() >= figures
    beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(beyond) <= 0
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.evaluate(beyond) <= 0
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "blob:", "file:"))] == []
