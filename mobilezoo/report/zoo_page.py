"""The latency table as an interactive page and as Markdown: `python -m mobilezoo.report.zoo_page` writes both to docs/.

The page is one file without any request: a chart drawn by its own script, since Plotly's would be fifty times as large.
"""

import html
from pathlib import Path
from typing import Any

from mobilezoo.files import write_text
from mobilezoo.models.entries import entries
from mobilezoo.models.latency_table import CALIBRATED, CoreFacts, LatencyTable, read_latencies
from mobilezoo.report.page import ASSETS, script_json

DOCS = Path(__file__).parents[2] / "docs"
PAGE, TEXT = "zoo.html", "zoo.md"
PRECISIONS = ("fp32", "fp16", "int8")
HEAD = """# Accuracy over latency

[The interactive page](zoo.html) shows the same numbers as a chart with filters, offline. Both are generated from
`mobilezoo/models/latency.json` by `make zoo`.

**No latency here was timed on a phone.** Each network (random weights and norms) becomes a LiteRT file; one warm run of
it is counted on an emulated core, priced by a static model, and converted to milliseconds by a calibration on fp32
files ([how](latency.md#the-emulated-phone)). Its mean error on networks it never saw: {errors}. Top-1 is what the
authors publish for their float weights: int8 may cost some.

```sh
mobilezoo recommend --device cortex_a76 --max-ms 10 --precision any --license permissive
mobilezoo list --device cortex_a76 --precision int8 --sort latency        # --json, --csv
mobilezoo recommend --device android --max-ms 10                          # measures the front's candidates there
python benchmarks/zoo_latency.py                                          # counts on where it stopped
```

{counted} of {every} networks are counted so far ({cpu_hours} CPU hours); the others are not guessed. XNNPACK picks its
kernels by the core's part number (of MnasNet-A1-0.35's instructions on the A76 only 11% in fp32, 37% in fp16 and 51% in
int8 are executed on the A55 too), so each core ran every file itself. {protocol}. {tools}.{outdated}

Milliseconds are estimates; † with a teacher.

"""


OUTDATED = """

{rows} of the counts are of files as `export` wrote them before it learned to split depthwise windows of more than 25
taps (all precisions) and to pad strided convolutions for half precision (fp16): such files are faster now."""


def _errors(core: CoreFacts, precisions: tuple[str, ...]) -> str:
    known = {precision: core.error_on(precision) for precision in precisions}
    return ", ".join(f"{name} {f'±{e.error_percent:.1f}%' if e else 'unknown'}" for name, e in known.items())


def page_data(table: LatencyTable) -> dict[str, Any]:
    """What the page's script reads: one record per network, with its files.

    Args:
        table: the latency table.
    """
    files: dict[str, list[dict[str, Any]]] = {}
    for row in table.rows:
        plain = row.model_dump(exclude={"model", "instructions", "dram_lines", "cycles"}, exclude_none=True)
        files.setdefault(row.model, []).append({key: value for key, value in plain.items() if value != ""})
    networks = [
        entry.model_dump(exclude={"strides"})
        | {"permissive": entry.is_permissive, "dense": entry.is_dense, "files": files.get(entry.name, [])}
        for entry in entries()
    ]
    return {
        "networks": networks,
        "cores": {name: core.model_dump() for name, core in table.cores.items()},
        "precisions": [name for name in PRECISIONS if name in table.precisions],
        "protocol": table.protocol,
        "tools": table.tools,
        "calibrated": CALIBRATED,
    }


def zoo_html(table: LatencyTable) -> str:
    """The page.

    Args:
        table: the latency table.
    """
    parts = {"css": "zoo.css", "script": "zoo.js"}
    text = (ASSETS / "zoo.html").read_text(encoding="utf-8")
    for key, name in parts.items():
        text = text.replace("{{" + key + "}}", (ASSETS / name).read_text(encoding="utf-8").rstrip())
    return text.replace("{{data}}", script_json(page_data(table)))


def zoo_markdown(table: LatencyTable) -> str:
    """docs/zoo.md.

    Args:
        table: the latency table.
    """
    errors = "; ".join(f"{name} {_errors(core, table.precisions)}" for name, core in table.cores.items())
    counted = {row.model for row in table.rows if row.latency_ms is not None}
    head = HEAD.format(
        errors=errors,
        counted=len(counted),
        every=len(entries()),
        cpu_hours=f"{table.cpu_hours:g}",
        protocol=table.protocol,
        outdated=OUTDATED.format(rows=table.outdated) if table.outdated else "",
        tools=", ".join(f"{name} {version}" for name, version in table.tools.items()),
    )
    columns = [f"{core} {precision}" for core in table.cores for precision in table.precisions]
    lines = [
        f"| model | family | top-1 % | MACs (M) | params (M) | {' | '.join(columns)} | int8 MB | weights' license |",
        f"|---|---|--:|--:|--:|{'--:|' * len(columns)}--:|---|",
    ]
    rows = {(row.model, row.device, row.precision): row for row in table.rows}
    for entry in (entry for entry in entries() if entry.name in counted):
        found = [rows.get((entry.name, core, precision)) for core in table.cores for precision in table.precisions]
        times = [f"{row.latency_ms:.2f}" if row and row.latency_ms else "" for row in found]
        int8 = [row.size_bytes for row in found if row and row.precision == "int8" and row.size_bytes]
        top1 = "" if entry.top1 is None else f"{entry.top1:.1f}" + (" †" if entry.distilled else "")
        cells = [entry.name, entry.family, top1, f"{entry.macs / 1e6:.0f}", f"{entry.params / 1e6:.2f}", *times]
        cells += [f"{int8[0] / 1e6:.2f}" if int8 else "", _text(entry.license)]
        lines.append(f"| {' | '.join(cells)} |")
    failed = [
        f"- {row.model}, {row.precision} on {row.device}: {_text(row.reason)}" for row in table.rows if row.reason
    ]
    below = ["", "Without a number:", "", *failed] if failed else []
    basis = [f"- {name}: {core.basis}" for name, core in table.cores.items()]
    return head + "\n".join([*lines, *below, "", "The estimates rest on:", "", *basis]) + "\n"


def _text(words: str) -> str:
    """Words of a license or of a converter on one line, where they make no tag and no cell."""
    return html.escape(" ".join(words.split()), quote=False).replace("|", "\\|")


def main() -> None:
    table = read_latencies()
    write_text(DOCS / PAGE, zoo_html(table))
    write_text(DOCS / TEXT, zoo_markdown(table))


if __name__ == "__main__":
    main()
