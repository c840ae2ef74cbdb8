"""One self-contained HTML page from records: models, training, parity, latency, search."""

from mobilezoo.callable_package import make_callable
from mobilezoo.report.page import ReportContents, build_report, runs_report

__all__ = ["ReportContents", "build_report", "runs_report"]

make_callable(__name__)
