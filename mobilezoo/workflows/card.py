"""`mobilezoo card`: gathers what is recorded of a network, checkpoint or file, and writes its model card."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.artifacts import Artifact, Checkpoint, Origin, load_record_of
from mobilezoo.config import is_yaml
from mobilezoo.errors import ConfigError, MobilezooError, writable_place
from mobilezoo.files import write_text
from mobilezoo.models.latency_table import LatencyRow, read_latencies
from mobilezoo.report.model_card import CardContents, card_text
from mobilezoo.report.model_card.contents import REPO
from mobilezoo.workflows.card_records import exported_of, latencies_of, stored_reports
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.load_model import WEIGHTS
from mobilezoo.workflows.open_file import refuse_dense

if TYPE_CHECKING:
    from mobilezoo.models.base import ModelConfig

CARD = ".card.md"
"""Ending of cards, by which `push` and `report` find them."""


def card(
    what: str, *, out: Path | None = None, repo: str | None = None, overwrite: bool = False, hooks: Hooks = SILENT
) -> Path:
    """Write a model card.

    Args:
        what: network by name (with or without a tag of published weights) or YAML, `timm:NAME`, checkpoint of ours, or
            exported file.
        out: the Markdown file; None takes `STEM.card.md` beside a checkpoint or file, in the working folder for a
            network.
        repo: repository OWNER/NAME that the card names; None leaves a placeholder.
        overwrite: replace a card that is there.
        hooks: receives messages.

    Returns:
        The card's path.

    Raises:
        UnknownNameError: no network is called that.
        MobilezooError: a file is missing or damaged, or `out` exists.
    """
    place = out or card_place(what)
    if repo is not None and not REPO.fullmatch(repo):
        raise ConfigError(f"--repo {repo!r}: a repository on the hub, OWNER/NAME")
    writable_place(place, "--out")
    if place.exists() and not overwrite:
        raise MobilezooError(f"{str(place)!r} exists: pass --overwrite, or name another file with --out")
    return write_text(place, card_of(what, repo=repo, hooks=hooks))


def card_place(what: str) -> Path:
    """Where the card of a checkpoint, file or network goes by default."""
    path = Path(what).expanduser()
    if path.suffix == ".safetensors" or _is_file(what):
        return path.with_name((path.stem if path.suffix == ".safetensors" else path.name) + CARD)
    name = path.stem if is_yaml(what) else what.rpartition(":")[2].replace("/", "_")
    return Path(name + CARD)


def card_of(what: str, *, repo: str | None = None, hooks: Hooks = SILENT) -> str:
    """Text of a model card, see `card`.

    Args:
        what: network, checkpoint or exported file.
        repo: repository OWNER/NAME; None leaves a placeholder.
        hooks: receives messages.
    """
    contents = contents_of(what, hooks)
    return card_text(contents if repo is None else replace(contents, repo=repo))


def contents_of(what: str, hooks: Hooks = SILENT) -> CardContents:
    """Gather the records of a network, checkpoint or exported file.

    Args:
        what: network, checkpoint or exported file.
        hooks: receives what was left out, and why.
    """
    if what.endswith(".safetensors"):
        return _of_checkpoint(Path(what).expanduser(), hooks)
    if Path(what).suffix in WEIGHTS:
        raise ConfigError(f"{what!r} does not say which network it is of: run `mobilezoo convert {what} --model NAME`")
    return _of_file(Path(what).expanduser(), hooks) if _is_file(what) else _of_network(what)


def _is_file(what: str) -> bool:
    from mobilezoo_export.registry import is_exported

    return is_exported(what) and not is_yaml(what)


def _of_network(what: str) -> CardContents:
    from mobilezoo.models import load_model_config
    from mobilezoo.models.published.choose import choose, split_tag

    name, tag = (what, True) if what.startswith("timm:") else split_tag(what)
    config = load_model_config(name)
    tags = list(config.weights) if tag is True else [choose(config, tag).tag]
    weights = [choose(config, one) for one in tags]
    size = weights[0].resolution if weights else config.resolution
    network = _network(config.built_for(size))
    source = what if is_yaml(what) or what.startswith("timm:") else weights[0].name if tag is not True else config.name
    through_timm = _timm_name(config, source)
    return CardContents(
        kind="network",
        name=config.name,
        source=source,
        config=config,
        weights=weights,
        origin=_of_timm(config),
        **_counts(network, size),
        preprocessing=weights[0].preprocessing() if weights else config.preprocessing(),
        through_timm=through_timm,
        timm_has_another=through_timm is None and not is_yaml(source) and _is_of_timm(config.name),
        counted=_counted(config, size),
        latencies=stored_reports(model=config.name),
    )


def _of_checkpoint(path: Path, hooks: Hooks) -> CardContents:
    from mobilezoo.models import recorded_config

    record = load_record_of(Checkpoint, path)
    config = recorded_config(record, path)
    network = _network(
        config.built_for(record.resolution),
        num_classes=record.num_classes,
        in_chans=record.in_chans,
        **record.network_args(),
    )
    artifacts = list(exported_of(path, record.sha256, hooks))
    shared = not record.probe_queries and config.family != "supernet"
    return CardContents(
        kind="checkpoint",
        name=config.name,
        source=path.name,
        config=config,
        checkpoint=record,
        origin=record.origin,
        **{**_counts(network, record.resolution), "num_classes": record.num_classes, "in_chans": record.in_chans},
        preprocessing=record.preprocessing,
        labels=record.labels,
        artifacts=artifacts,
        latencies=latencies_of(path, artifacts, hooks),
        through_timm=config.name if shared else None,
    )


def _of_file(path: Path, hooks: Hooks) -> CardContents:
    from mobilezoo_export import open_artifact

    record = open_artifact(path)
    if record.input.layout == "none":
        raise ConfigError(f"{path.name!r} takes no image (input {record.input.shape}): it has no card")
    refuse_dense(path, record, "cards describe")
    spec = record.input
    return CardContents(
        kind="file",
        name=record.model.rpartition("/")[2].removesuffix(".yaml"),
        source=path.name,
        config=_config_of(record),
        origin=record.origin,
        in_chans=spec.shape[1 if spec.layout == "NCHW" else -1],
        resolution=spec.resolution,
        preprocessing=None if "preprocessing" in record.undeclared else record.preprocessing,
        num_classes=len(record.labels) or None,
        labels=record.labels,
        output=record.output,
        artifacts=[record],
        latencies=latencies_of(path, [record], hooks),
    )


def _config_of(record: Artifact) -> "ModelConfig | None":
    """The network that a file was made of, where its name still stands for one."""
    from mobilezoo.models import load_model_config

    if record.foreign:
        return None
    try:
        return load_model_config(record.model)
    except MobilezooError:  # a YAML that is not here
        return None


def _network(config: "ModelConfig", **args: Any) -> Any:
    """The network for counting, which needs no weights."""
    from mobilezoo.models import create_model

    return create_model(config, **args).eval()


def _counts(network: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Figures of a network for `CardContents`."""
    from mobilezoo.models.macs import count
    from mobilezoo.models.weights import channels_of, classes_of

    counted = count(network, size)
    return {
        "params": counted["params"],
        "macs": counted["macs"],
        "resolution": size,
        "num_classes": classes_of(network),
        "in_chans": channels_of(network),
    }


def _of_timm(config: "ModelConfig") -> Origin | None:
    """Weights that timm has for one of its networks; their license as timm states it."""
    if config.family != "timm":
        return None
    import timm

    known = timm.get_pretrained_cfg(config.name.removeprefix("timm:"))
    if known is None or not known.has_weights:
        return None
    address = f"https://huggingface.co/{known.hf_hub_id}" if known.hf_hub_id else known.url or "timm"
    name = f"{known.architecture}.{known.tag}" if known.tag else str(known.architecture)
    return Origin(name=name, address=address, sha256=None, license=known.license or "none stated")


def _counted(config: "ModelConfig", size: tuple[int, int]) -> list[LatencyRow]:
    """Rows of the zoo's latency table, which are of each network at its own resolution."""
    if config.family == "timm" or size != config.resolution:
        return []
    rows = read_latencies().rows
    return [row for row in rows if row.model == config.name and row.latency_ms is not None]


def _timm_name(config: "ModelConfig", source: str) -> str | None:
    """Name that timm builds the zoo's network by; None where timm has one of its own under it."""
    import timm

    if config.family == "timm":
        return config.name.removeprefix("timm:")
    if is_yaml(source) or not timm.is_model(config.name) or _is_of_timm(config.name):
        return None
    return source


def _is_of_timm(name: str) -> bool:
    """Whether timm itself has a network of this name."""
    import timm

    return timm.is_model(name) and timm.models.model_entrypoint(name).__module__.startswith("timm.")
