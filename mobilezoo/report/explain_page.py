"""The page of `mobilezoo explain`: every image beside its map."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mobilezoo.files import write_text
from mobilezoo.report.page import ASSETS, environment


def write_explanations(out: Path, model: str, layer: str, explanations: Sequence[Any]) -> Path:
    """Writes the page.

    Args:
        out: HTML file.
        model: what was explained.
        layer: module whose maps are drawn.
        explanations: records with image, fault, best, target, empty, picture and heat (base64 of JPEGs).

    Returns:
        Its path.
    """
    from markupsafe import Markup

    page = (
        environment()
        .get_template("explain.html.j2")
        .render(
            css=Markup((ASSETS / "page.css").read_text(encoding="utf-8")),
            title=f"What {Path(model).name} looks at",
            generated=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            model=model,
            layer=layer,
            explanations=explanations,
        )
    )
    return write_text(out, page)
