"""Published weights: what there is, fetched, verified, and where it lies."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.errors import MobilezooError, UnknownNameError
from mobilezoo.resolution import written
from mobilezoo.workflows.hooks import SILENT, Hooks

if TYPE_CHECKING:
    from mobilezoo.models.published.choose import Published


def weight_rows(pattern: str = "*") -> list[dict[str, Any]]:
    """One plain record per published file of the networks that match a shell pattern: `shvit*`, `*.dist_in1k`.

    Raises UnknownNameError where there is none.
    """
    from mobilezoo.config import config_names
    from mobilezoo.models.published.cache import pin_of, place_of
    from mobilezoo.models.published.choose import all_published

    found = all_published(pattern)
    if not found:
        if not any(c in pattern for c in "*?["):
            published_named(pattern)  # tells what is wrong with a plain name
        raise UnknownNameError("weights", pattern, config_names("models"))
    rows = []
    for one in found:
        pin, place = pin_of(one), place_of(one)
        rows.append(
            {
                "name": one.name,
                "model": one.config.name,
                "tag": one.tag,
                "default": one.tag == next(iter(one.config.weights)),
                "access": one.file.access,
                "address": one.file.address,
                "resolution": written(one.resolution),
                "preprocessing": one.preprocessing().model_dump(),
                **one.file.model_dump(exclude={"url", "hub", "resolution", "crop_pct", "interpolation", "mean", "std"}),
                "pinned_sha256": pin.sha256 if pin else None,
                "path": str(place) if place.is_file() else None,
            }
        )
    return rows


def published_named(name: str) -> "Published":
    """`shvit_s1`, `shvit_s1.timm_in1k` → the published file. Raises UnknownNameError, WeightsError."""
    from mobilezoo.models.published.choose import choose, described, split_tag

    network, tag = split_tag(name)
    return choose(described(network), tag)


def fetch_weights(
    names: Sequence[str], *, given: Path | None = None, force: bool = False, hooks: Hooks = SILENT
) -> list[Path]:
    """Fetch published weights, or take one file that was fetched by hand; the paths in the cache, in order.

    Args:
        names: networks, with or without a tag.
        given: the file that somebody downloaded in a browser; one name only.
        force: fetch again what is there.
        hooks: what hears of progress and of licenses.

    Raises:
        MobilezooError: for whatever a user can mend; what was fetched before is kept.
    """
    from mobilezoo.models.published.fetch import fetch

    if given is not None and len(names) != 1:
        raise MobilezooError(f"--from gives the file of one network, {len(names)} were named")
    chosen = [published_named(name) for name in names]
    with hooks.listening():
        return [fetch(one, given=given, force=force).path for one in chosen]


def verify_weights(names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One plain record per fetched file (all of the cache without names): whether it is what was pinned."""
    from mobilezoo.models.published.cache import place_of
    from mobilezoo.models.published.choose import all_published
    from mobilezoo.models.published.fetch import local

    chosen = [published_named(name) for name in names] or [p for p in all_published() if place_of(p).is_file()]
    rows = []
    for one in chosen:
        row: dict[str, Any] = {"name": one.name, "path": str(place_of(one)), "ok": True, "reason": ""}
        try:
            row["sha256"] = local(one, anew=True).sha256
        except MobilezooError as error:
            row.update(ok=False, reason=str(error))
        rows.append(row)
    return rows


def weights_path(name: str) -> Path:
    """Where fetched weights lie. Raises WeightsError where they are not fetched yet, or changed."""
    from mobilezoo.models.published.fetch import local

    return local(published_named(name)).path
