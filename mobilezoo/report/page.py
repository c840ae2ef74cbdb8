"""Records → one HTML file that works offline: no request leaves the page, and its policy forbids any."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import MobilezooError, require
from mobilezoo.evaluation_report import EvaluationReport
from mobilezoo.files import write_text
from mobilezoo.latency_report import LatencyReport
from mobilezoo.report.balance_figure import balance_figure
from mobilezoo.report.curves import Curves, read_curves, run_names
from mobilezoo.report.evaluation_section import evaluation_section
from mobilezoo.report.figures import latency_figure, training_figures
from mobilezoo.report.network_picture import si
from mobilezoo.report.search_section import SearchFound, search_section
from mobilezoo.report.tables import counted, latency_groups, model_rows, parity_rows, tool_versions
from mobilezoo.training_preview import TrainingPreview

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True, kw_only=True)
class ReportContents:
    """The records that a page shows; sections without records are left out."""

    title: str
    models: Sequence[Mapping[str, Any]] = ()
    """Keys: name, params and macs (counts), resolution (224 or 192x256), top1 (percent)."""
    runs: Sequence[Path] = ()
    """Folders of training runs."""
    previews: Sequence[tuple[str, TrainingPreview]] = ()
    """(run, what it was trained on)."""
    artifacts: Sequence[Artifact] = ()
    latencies: Sequence[LatencyReport] = ()
    searches: Sequence[SearchFound] = ()
    evaluations: Sequence[EvaluationReport] = ()
    model_cards: Sequence[Path] = ()
    """Model cards that the page links to."""
    unread: Sequence[tuple[str, str]] = ()
    """(file, reason why the page shows nothing of it)."""


def build_report(out_path: str | Path, contents: ReportContents) -> Path:
    """Writes the page.

    Args:
        out_path: the HTML file.
        contents: title and records.

    Returns:
        The path of the page.

    Raises:
        MissingToolError: jinja2 or plotly is not installed.
        MobilezooError: a run folder has no readable metrics.
    """
    require("jinja2", "report")
    require("plotly", "report")
    curves = [read_curves(run, name) for run, name in zip(contents.runs, run_names(contents.runs), strict=True)]
    groups = latency_groups(contents.latencies)
    figures: dict[str, dict[str, Any]] = {}
    training = [_add(figures, f"train-{i}", figure) for i, figure in enumerate(training_figures(curves))]
    latency = [
        {"heading": heading, "rows": rows, "figure": _add(figures, f"latency-{i}", latency_figure(rows))}
        for i, (heading, rows) in enumerate(groups)
    ]
    page = _render(
        title=contents.title,
        generated=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cards=_cards(contents.models, curves, contents.artifacts, groups),
        models=model_rows(contents.models),
        runs=[_run_row(run) for run in curves],
        previews=[
            {"run": run, "preview": one, "balance": _add(figures, f"balance-{i}", balance_figure(one.classes))}
            for i, (run, one) in enumerate(contents.previews)
        ],
        evaluations=[evaluation_section(i, one, partial(_add, figures)) for i, one in enumerate(contents.evaluations)],
        training=training,
        parity=parity_rows(contents.artifacts),
        latency=latency,
        counted=counted(contents.latencies),
        searches=[
            search_section(i, found, Path(out_path), partial(_add, figures))
            for i, found in enumerate(contents.searches)
        ],
        model_cards=[_linked(card, Path(out_path)) for card in contents.model_cards],
        unread=contents.unread,
        tools=tool_versions(contents.artifacts),
        figures=figures,
    )
    return write_text(Path(out_path), page)


def runs_report(run_dirs: Sequence[str | Path], out: str | Path) -> Path:
    """Compares training runs on one page: curves and a table of best figures.

    Args:
        run_dirs: folders of training runs, at least one.
        out: the HTML file.

    Returns:
        The path of the page.

    Raises:
        MissingToolError: jinja2 or plotly is not installed.
        MobilezooError: no folder given, or one without readable metrics.
    """
    if not run_dirs:
        raise MobilezooError("no run folder given: `mobilezoo report runs/NAME [runs/OTHER …]`")
    runs = [Path(run) for run in run_dirs]
    title = "Training run " + runs[0].name if len(runs) == 1 else f"{len(runs)} training runs"
    return build_report(out, ReportContents(title=title, runs=runs))


def _add(figures: dict[str, dict[str, Any]], key: str, figure: dict[str, Any]) -> dict[str, Any]:
    """Keeps a chart for the script and returns what the template needs of it."""
    figures[key] = {"data": figure["data"], "layout": figure["layout"]}
    return {"key": key, "title": figure["title"], "height": figure["height"], "note": figure.get("note", "")}


def _cards(
    models: Sequence[Mapping[str, Any]],
    curves: Sequence[Curves],
    artifacts: Sequence[Artifact],
    groups: Sequence[tuple[str, list[Any]]],
) -> list[dict[str, str]]:
    """The key figures at the head of the page."""
    cards = []
    top1 = [m["top1"] for m in models if m.get("top1") is not None] or [
        best for run in curves if (best := run.best("val_top1", highest=True)) is not None
    ]
    if top1:
        cards.append({"value": f"{max(top1):.2f}", "unit": "%", "label": "best top-1"})
    for heading, rows in groups:
        fastest = rows[0]
        cards.append(
            {"value": f"{fastest.summary.median_ms:.3g}", "unit": "ms", "label": f"fastest, {heading.lower()}"}
            | {"detail": fastest.label}
        )
    ran = [a for a in artifacts if a.parity is not None]
    if ran:
        passed = sum(a.parity.passed for a in ran if a.parity)
        worst = max(a.parity.relative for a in ran if a.parity)
        cards.append(
            {"value": f"{passed}/{len(ran)}", "unit": "", "label": "files within tolerance of PyTorch"}
            | {"detail": f"largest relative difference {worst:.1e}"}
        )
    return cards


def _linked(file: Path, page: Path) -> dict[str, str]:
    """Name and address of a file, relative to the page, so that both can move together."""
    relative = os.path.relpath(file.resolve(), page.resolve().parent)
    return {"name": file.name, "href": quote(Path(relative).as_posix())}


def _run_row(run: Curves) -> dict[str, Any]:
    return {
        "name": run.name,
        "epochs": len(run.x),
        "best_top1": run.best("val_top1", highest=True),
        "last_top1": run.last("val_top1"),
        "best_loss": run.best("val_loss", highest=False),
        "images_per_s": run.last("images_per_s"),
    }


def _render(*, figures: dict[str, dict[str, Any]], **context: Any) -> str:
    from markupsafe import Markup

    return (
        environment()
        .get_template("page.html.j2")
        .render(
            css=Markup((ASSETS / "page.css").read_text(encoding="utf-8")),
            script=Markup((ASSETS / "page.js").read_text(encoding="utf-8")),
            plotly=Markup(_plotly() if figures else ""),
            figures=Markup(script_json(figures)),
            svg=Markup,
            **context,
        )
    )


def environment() -> Any:
    """Jinja's environment of the pages: everything is escaped, a missing value is an error."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"si": _si, "num": _num, "wbr": _breakable}
    return made


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def script_json(data: Any) -> str:
    """JSON that cannot end its `<script>` element, whatever strings it holds."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _si(value: float | None) -> str:
    """A count with its SI prefix: 3.41 M."""
    return "–" if value is None else si(value)


def _breakable(name: str) -> Any:
    """A name, escaped, that may break after its underscores and dots."""
    from markupsafe import Markup, escape

    return Markup(str(escape(name)).replace("_", "_<wbr>").replace(".", ".<wbr>"))


def _num(value: float | None, spec: str = ".3g") -> str:
    return "–" if value is None else format(value, spec)
