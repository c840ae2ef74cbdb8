"""A doctor's report as one HTML page that works offline: no script, no request, and a policy that forbids both."""

from pathlib import Path

from mobilezoo.doctor_report import DoctorReport
from mobilezoo.errors import require
from mobilezoo.files import write_text

ASSETS = Path(__file__).parent / "assets"


def write_page(out: Path, report: DoctorReport) -> Path:
    """Write the page.

    Args:
        out: the HTML file.
        report: what was found.

    Returns:
        The page's path.

    Raises:
        MissingToolError: jinja2 is not installed.
        MobilezooError: the page cannot be written.
    """
    return write_text(out, render(report))


def render(report: DoctorReport) -> str:
    """The page as text.

    Args:
        report: what was found.

    Raises:
        MissingToolError: jinja2 is not installed.
    """
    require("jinja2", "report")
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shape"] = _shape
    css = Markup((ASSETS / "page.css").read_text(encoding="utf-8"))
    return environment.get_template("doctor.html.j2").render(r=report, css=css)


def _shape(sizes: tuple[int | None, ...] | None) -> str:
    if sizes is None:
        return "unknown"
    return "×".join("?" if size is None else str(size) for size in sizes) or "scalar"
