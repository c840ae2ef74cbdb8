"""Checkpoints on the Hugging Face Hub, in timm's format: config.json, model.safetensors, and our record beside them.

`timm.create_model("hf-hub:OWNER/NAME", pretrained=True)` loads what `push` wrote, after `import mobilezoo`.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mobilezoo.artifacts import Checkpoint, atomic_write, load_record_of, save_record, sha256_of
from mobilezoo.config import config_names
from mobilezoo.errors import CheckpointError, MobilezooError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import written

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class HubError(MobilezooError):
    """The hub, or a repository on it, cannot be used."""


def push(checkpoint: Path, repo: str, *, private: bool = False) -> str:
    """Upload a checkpoint of ours to `OWNER/NAME` and return the address. Raises HubError, CheckpointError."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory(prefix="mobilezoo-hub-") as place:
        folder = write_folder(checkpoint, Path(place) / "files")
        with _one_line(f"cannot push to {repo!r}"):
            api = HfApi()
            address = api.create_repo(repo, private=private, exist_ok=True)
            message = f"{load_record_of(Checkpoint, checkpoint).model} by mobilezoo"
            api.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message=message)
    return str(address)


def write_folder(checkpoint: Path, out: Path) -> Path:
    """The files that `push` uploads, as a folder: `timm.create_model("local-dir:OUT")` loads it too."""
    from timm.models import save_for_hf

    from mobilezoo.models import create_model

    record = load_record_of(Checkpoint, checkpoint)
    if record.model not in config_names("models"):
        raise CheckpointError(
            f"{record.model!r} is a YAML of your own, and timm builds the hub's networks by name: "
            "add it to configs/models/ of your copy, or share the YAML and the .safetensors file"
        )
    if record.probe_queries:
        raise CheckpointError(f"{str(checkpoint)!r} has a probing head, which timm cannot build: share the file itself")
    sizes = {"num_classes": record.num_classes, "in_chans": record.in_chans}
    network = create_model(record.model, checkpoint=checkpoint, **sizes)
    data = {"input_size": (record.in_chans, *record.resolution), **record.preprocessing.to_timm()}

    def write(folder: Path) -> None:
        config: dict[str, Any] = {"label_names": list(record.labels)} if record.labels else {}
        save_for_hf(network, str(folder), model_config=config, safe_serialization=True, data_config=data)
        (folder / "README.md").write_text(_card(record), encoding="utf-8")

    return atomic_write(out, write)


def pull(repo: str, out: Path) -> Checkpoint:
    """A repository (`OWNER/NAME`, or a folder) → `out/NAME.safetensors` with its record.

    Raises HubError where it cannot be read, CheckpointError where the weights are not what config.json says.
    """
    from safetensors.torch import save_file

    from mobilezoo.models import create_model

    config_file, weights_file = _files(repo)
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        name, classes = str(config["architecture"]), int(config["num_classes"])
        cfg = config["pretrained_cfg"]
        channels, height, width = cfg["input_size"]
    except (ValueError, KeyError, TypeError) as error:
        raise HubError(f"{repo!r}: {CONFIG} is not in timm's format ({type(error).__name__}: {error})") from None
    if name not in config_names("models"):
        raise HubError(f"{repo!r} holds {name!r}, which is no network of the zoo: timm.create_model('hf-hub:{repo}')")
    network = create_model(name, checkpoint=weights_file, num_classes=classes, in_chans=channels)  # checked key by key
    path = out / f"{repo.rstrip('/').rpartition('/')[2]}.safetensors"
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    atomic_write(path, lambda temporary: save_file(tensors, temporary, metadata={"model": name}))
    record = Checkpoint(
        path=path.name,
        sha256=sha256_of(path),
        model=name,
        num_classes=classes,
        in_chans=channels,
        resolution=(height, width),
        preprocessing=Preprocessing.from_timm(cfg),
        labels=tuple(config.get("label_names", ())),
    )
    save_record(path, record)
    return record


def _files(repo: str) -> tuple[Path, Path]:
    folder = Path(repo).expanduser()
    if folder.is_dir():
        found = folder / CONFIG, folder / WEIGHTS
        for file in found:
            if not file.is_file():
                raise HubError(f"{repo!r} has no {file.name}: it is not a folder in timm's format")
        return found
    from huggingface_hub import hf_hub_download

    with _one_line(f"cannot pull {repo!r}"):
        return Path(hf_hub_download(repo, CONFIG)), Path(hf_hub_download(repo, WEIGHTS))


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Errors of the hub's client as one line; it raises its own, HTTP's and the system's."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError:
        raise HubError(f"{what}: a repository is named OWNER/NAME") from None
    except HfHubHTTPError as error:
        status: Any = getattr(error.response, "status_code", "?")
        hint = {401: "log in with `hf auth login`", 403: "your token may not write there", 404: "no such repository"}
        raise HubError(f"{what}: the hub answered {status}: {hint.get(status, 'try again later')}") from None
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise HubError(f"{what}: {first[:200]}") from None


def _card(record: Checkpoint) -> str:
    score = f"{record.top1:.2f}% top-1 on its validation split. " if record.top1 is not None else ""
    return (
        "---\nlibrary_name: timm\npipeline_tag: image-classification\ntags: [mobilezoo, timm]\n---\n"
        f"# {record.model}\n\nTrained with mobilezoo on {record.dataset or 'unnamed data'} "
        f"at {written(record.resolution)} px, {record.num_classes} classes. {score}\n\n"
        "```python\nimport mobilezoo, timm\n\n"
        'model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True)\n```\n'
    )
