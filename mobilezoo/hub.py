"""Checkpoints on the Hugging Face Hub, in timm's format: config.json, model.safetensors and a card.

`timm.create_model("hf-hub:OWNER/NAME", pretrained=True)` loads what `push` wrote, after `import mobilezoo`. A network
that timm cannot find by name (a YAML of the user's own, or a zoo name under which timm has another network) travels as
data: its architecture is then `mobilezoo`, and its config an argument of that.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm

from mobilezoo.artifacts import Checkpoint, load_record_of, write_with_record
from mobilezoo.config import config_names, write_yaml
from mobilezoo.errors import CheckpointError, MobilezooError, first_line, wrong_kind
from mobilezoo.files import atomic_write, sha256_of
from mobilezoo.hub_client import hub_errors
from mobilezoo.hub_config import CONFIG, HubError, Shared, read_shared
from mobilezoo.models.base import TIMM
from mobilezoo.models.registry import AS_DATA, timm_has_another
from mobilezoo.reading import read_text
from mobilezoo.report.model_card.contents import with_repo
from mobilezoo.scratch import temporary_folder
from mobilezoo.trust import require_no_places

if TYPE_CHECKING:
    from torch import nn

    from mobilezoo.models.base import ModelConfig

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""timm's names of the weights, in the order in which it looks for them."""
CARD_NAME = "README.md"
PUSHED = (CONFIG, WEIGHTS[0], CARD_NAME)
"""The files that `push` writes."""
MAX_CARD_BYTES = 1 << 20
UNSHARED = ("timm", "supernet")
"""Families whose networks do not travel as data."""


def push(checkpoint: Path, repo: str, *, private: bool = False) -> str:
    """Uploads a checkpoint and returns the repository's address.

    Args:
        checkpoint: weights with their record, written by `train`.
        repo: repository `OWNER/NAME`, created where it is missing.
        private: visibility of a new repository.

    Raises:
        CheckpointError: timm cannot build the network (a supernet, a probing head).
        HubError: the hub refuses the upload or cannot be reached.
    """
    from huggingface_hub import HfApi

    with temporary_folder("hub") as place:
        folder = write_folder(checkpoint, place / "files")
        with hub_errors(f"cannot push to {repo!r}"):
            api = HfApi()
            address = api.create_repo(repo, private=private, exist_ok=True)
            text = (folder / CARD_NAME).read_text(encoding="utf-8")
            (folder / CARD_NAME).write_text(with_repo(text, address.repo_id), encoding="utf-8")
            message = f"{load_record_of(Checkpoint, checkpoint).model} by mobilezoo"
            api.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message=message)
    return str(address)


def write_folder(checkpoint: Path, out: Path) -> Path:
    """Writes the files that `push` uploads into a folder, which `timm.create_model("local-dir:OUT")` loads too.

    Args:
        checkpoint: weights with their record, written by `train`.
        out: the folder; one that `push` wrote before is replaced.

    Returns:
        The folder's resolved path.

    Raises:
        CheckpointError: timm cannot build the network (a supernet, a probing head).
        HubError: the folder holds other files, or the card beside the checkpoint is of other weights.
    """
    from timm.models import save_for_hf

    from mobilezoo.models import create_model, recorded_config

    out = Path(os.path.realpath(out.expanduser()))
    _refuse_another_folder(out)
    record = load_record_of(Checkpoint, checkpoint)
    if record.probe_queries:
        raise CheckpointError(f"{str(checkpoint)!r} has a probing head, which timm cannot build: share the file itself")
    config = recorded_config(record, checkpoint).built_for(record.resolution)
    if config.family == "supernet":
        raise CheckpointError(f"{str(checkpoint)!r} is a supernet, which is many networks: push one taken out of it")
    sizes = {"num_classes": record.num_classes, "in_chans": record.in_chans}
    network: Any = create_model(config, checkpoint=checkpoint, **sizes, **record.model_args)
    architecture, args = _call(config, network, record)
    network.pretrained_cfg = {**network.pretrained_cfg, "architecture": architecture}
    data = {"input_size": (record.in_chans, *record.resolution), **record.preprocessing.to_timm()}
    labels: dict[str, Any] = {"label_names": list(record.labels)} if record.labels else {}
    card = _card(checkpoint, record)

    def write(folder: Path) -> None:
        save_for_hf(
            network, str(folder), model_config=labels, model_args=args, safe_serialization=True, data_config=data
        )
        (folder / CARD_NAME).write_text(card, encoding="utf-8")

    return atomic_write(out, write)


def _refuse_another_folder(out: Path) -> None:
    """Raises HubError for a folder that holds other files than those of `push`."""
    others = sorted(p.name for p in out.iterdir() if p.name not in PUSHED) if out.is_dir() else []
    if others:
        raise HubError(f"{str(out)!r} holds other files ({others[0]!r}): name a new folder, or one that push wrote")


def pull(repo: str, out: Path) -> Checkpoint:
    """Downloads a repository as `out/NAME.safetensors` with its record; nothing is written before all is checked.

    Args:
        repo: `OWNER/NAME` on the hub, or a local folder in timm's format.
        out: folder of the new checkpoint.

    Returns:
        The record of the checkpoint.

    Raises:
        HubError: the repository cannot be read or is not in timm's format.
        CheckpointError: the weights do not fit the network of config.json.
        ConfigError: config.json names code, and commands are not allowed.
    """
    from safetensors.torch import save_file

    config_file, weights = _files(repo)
    shared = read_shared(config_file, repo)
    config, network = _network_of(shared, weights, repo)
    path = out / f"{Path(repo).expanduser().resolve().name}.safetensors"
    shipped = config.family == "timm" or _is_shipped(config)
    model = config.name if shipped else f"{path.stem}.yaml"
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}

    def describe(written: Path) -> Checkpoint:
        return Checkpoint(
            path=path.name,
            sha256=sha256_of(written),
            model=model,
            num_classes=shared.num_classes,
            in_chans=shared.in_chans,
            resolution=shared.resolution,
            preprocessing=shared.preprocessing,
            labels=shared.labels,
            model_args=_arguments(shared),
        )

    def write(part: Path) -> None:
        save_file(tensors, part, metadata={"model": model})
        if not shipped:
            write_yaml(part.with_suffix(".yaml"), config.plain(), [f"the network of {repo}"])

    return write_with_record(path, write, describe)


def _call(config: "ModelConfig", network: "nn.Module", record: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Returns (name, arguments) with which timm's factory builds the network."""
    described: Any = network
    if config.family == "timm":
        return str(described.pretrained_cfg["architecture"]), {}
    if _is_shipped(config) and not timm_has_another(config.name, network, record.resolution):
        return config.name, record.model_args
    return AS_DATA, {**record.model_args, "config": {**config.plain(), "name": config.name}}


def _is_shipped(config: "ModelConfig") -> bool:
    from mobilezoo.models import load_model_config

    return config.name in config_names("models") and load_model_config(config.name).plain() == config.plain()


def _network_of(shared: Shared, weights: Path, repo: str) -> "tuple[ModelConfig, nn.Module]":
    """Builds the network and loads its weights: the zoo's, unless timm has another network of that name."""
    from mobilezoo.models import load_model_config

    name = shared.architecture
    if name == AS_DATA:
        config = _config_in(shared, repo)
    elif name in config_names("models"):
        config = load_model_config(name)
    elif ":" not in name and timm.is_model(name):
        config = load_model_config(TIMM + name)
    else:
        raise HubError(f"{repo!r} holds {name!r}, which neither the zoo nor the installed timm has")
    network = _loaded(config, shared, weights, repo)
    if name == config.name and timm_has_another(name, network, shared.resolution):
        config = load_model_config(TIMM + name)
        network = _loaded(config, shared, weights, repo)
    return config, network


def _loaded(config: "ModelConfig", shared: Shared, weights: Path, repo: str) -> "nn.Module":
    from mobilezoo.models.checkpoint import ClassCountError
    from mobilezoo.models.convert import network_of_file

    args = {**_arguments(shared), "num_classes": shared.num_classes, "in_chans": shared.in_chans}
    try:
        return network_of_file(config.built_for(shared.resolution), weights, **args)
    except ClassCountError as error:
        raise HubError(f"{repo!r}: {CONFIG} says {error.here} classes, the weights have {error.there}") from None
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:  # arguments that the network does not take
        raise HubError(f"{repo!r}: model_args of {CONFIG}: {first_line(error, 200)}") from None


def _arguments(shared: Shared) -> dict[str, Any]:
    return {key: value for key, value in shared.model_args.items() if key != "config"}


def _config_in(shared: Shared, repo: str) -> "ModelConfig":
    """Parses the model config in `model_args` of a network without a name of its own."""
    from mobilezoo.models.registry import parse_model_config

    data = shared.model_args.get("config")
    if not isinstance(data, dict) or not isinstance(data.get("name"), str) or data.get("family") in UNSHARED:
        raise HubError(f"{repo!r}: model_args of {CONFIG} hold no config of a network")
    require_no_places(data, f"{repo}/{CONFIG}: config")
    try:
        return parse_model_config({k: v for k, v in data.items() if k != "name"}, data["name"], f"{repo}/{CONFIG}")
    except MobilezooError as error:
        raise HubError(str(error)) from None


def _files(repo: str) -> tuple[Path, Path]:
    """Returns the paths of config.json and the weights, downloaded where `repo` is no folder."""
    folder = Path(repo).expanduser()
    if folder.is_dir():
        weights = [folder / name for name in WEIGHTS if (folder / name).is_file()]
        for file in (folder / CONFIG, *(weights or [folder / WEIGHTS[0]])):
            if not file.is_file():
                raise HubError(f"{repo!r} has no {file.name}: it is not a folder in timm's format")
        return folder / CONFIG, weights[0]
    if folder.exists():
        raise HubError(wrong_kind(repo, "shared network", folder=True))
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    with hub_errors(f"cannot pull {repo!r}"):
        config = Path(hf_hub_download(repo, CONFIG))
        try:
            return config, Path(hf_hub_download(repo, WEIGHTS[0]))
        except EntryNotFoundError:
            return config, Path(hf_hub_download(repo, WEIGHTS[1]))


def _card(checkpoint: Path, record: Checkpoint) -> str:
    """The card beside the checkpoint where somebody wrote or edited one, else a new one."""
    from mobilezoo.workflows.card import card_of, card_place

    written = card_place(str(checkpoint))
    if not written.is_file():
        return card_of(str(checkpoint))
    text = read_text(written, MAX_CARD_BYTES)
    if record.sha256 not in text:
        remedy = f"run `mobilezoo card {checkpoint} --overwrite`, or move it away"
        raise HubError(f"{str(written)!r} is the card of other weights: {remedy}")
    return text
