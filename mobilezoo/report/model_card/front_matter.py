"""The YAML in front of a card, by huggingface_hub's own classes.

Keys as in https://huggingface.co/docs/hub/model-cards; licenses by the hub's identifiers
(https://huggingface.co/docs/hub/repositories-licenses).
"""

import re
from typing import Any

from mobilezoo.report.model_card.contents import PLACEHOLDER, REPO, CardContents, data_name
from mobilezoo.report.model_card.markdown import ADDRESS, one_line

TASK = "image-classification"
IMAGENET = "ILSVRC/imagenet-1k"
"""The hub's name of ImageNet-1k."""
SAME = ("mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "apple-amlr", "apple-ascl")
"""Identifiers of the hub that timm uses too."""
LICENSES = {"clear bsd": "bsd-3-clause-clear", **{name: name for name in SAME}}
"""How a recorded license begins, lower case → the hub's identifier."""
UNKNOWN = ("none stated", "no weights", "unknown")
LIBRARIES = {"onnx": "onnx", "litert": "tflite", "coreml": "coreml", "executorch": "executorch"}
"""Export target → the hub's tag of its format."""


def front_matter(contents: CardContents) -> str:
    """Writes the block between the two `---`, both included.

    Args:
        contents: what the card is about.
    """
    from huggingface_hub import ModelCardData

    results = _results(contents)
    license: dict[str, Any] = {**_license(contents)}
    data = ModelCardData(
        library_name="timm" if contents.kind != "file" else LIBRARIES.get(contents.artifacts[0].target),
        pipeline_tag=TASK,
        tags=_tags(contents),
        datasets=_datasets(contents) or None,
        metrics=["accuracy"] if results else None,
        model_name=one_line(contents.name if contents.repo == PLACEHOLDER else contents.repo),
        eval_results=results or None,
        **license,
    )
    if not results:
        data.model_name = None
    return f"---\n{data.to_yaml()}\n---"


def _license(contents: CardContents) -> dict[str, str]:
    """The license of all weights; where they differ none of them, but all by name."""
    address = contents.origin.address if contents.origin else ""
    found = [hub_license(words, address) for words in contents.licenses] or [{}]
    if all(one == found[0] for one in found):
        return found[0]
    return {"license": "other", "license_name": one_line("; ".join(contents.licenses))}


def hub_license(words: str, address: str = "") -> dict[str, str]:
    """Converts a recorded license to the hub's keys; empty where nothing is recorded.

    Args:
        words: as recorded, `MIT (repository)` or `none stated`.
        address: where the weights are, for licenses that the hub has no identifier of.
    """
    lower = words.casefold()
    if not lower:
        return {}
    if lower.startswith(UNKNOWN):
        return {"license": "unknown"}
    for begin, identifier in LICENSES.items():
        if lower == begin or lower.startswith(f"{begin} "):
            return {"license": identifier}
    linked = {"license_link": address} if ADDRESS.fullmatch(address) else {}
    return {"license": "other", "license_name": one_line(words), **linked}


def _tags(contents: CardContents) -> list[str]:
    formats = [LIBRARIES.get(one.target, one.target) for one in contents.artifacts]
    of_timm = ["timm"] if contents.kind != "file" else []
    precisions = [one.precision for one in contents.artifacts if one.precision.startswith(("int8", "w8a"))]
    return [one_line(tag) for tag in ("mobilezoo", *of_timm, TASK, *formats, *precisions)]


def _datasets(contents: CardContents) -> list[str]:
    """Names on the hub, of the training data."""
    if contents.checkpoint is not None and contents.checkpoint.dataset:
        kind, _, name = contents.checkpoint.dataset.partition("/")
        return [name] if kind == "hfds" and REPO.fullmatch(name) else []
    tags = [one.tag for one in contents.weights] or ([contents.origin.name] if contents.origin else [])
    return [IMAGENET] if any("in1k" in tag for tag in tags) else []


def _results(contents: CardContents) -> list[Any]:
    """Scores for the hub's table of results: measured ones of a checkpoint, published ones of a network."""
    from huggingface_hub import EvalResult

    def result(name: str, kind: str, top1: float, address: str = "") -> Any:
        linked = ADDRESS.fullmatch(address) is not None
        return EvalResult(
            task_type=TASK,
            dataset_type=one_line(kind),
            dataset_name=one_line(name),
            metric_type="accuracy",
            metric_name="top-1 (%)",
            metric_value=round(top1, 3),
            source_name="published with the weights" if linked else None,
            source_url=address if linked else None,
        )

    record = contents.checkpoint
    if record is not None:
        if record.top1 is None:
            return []
        name = data_name(record.dataset) or "unnamed data"
        reader = re.split("[:/]", record.dataset, maxsplit=1)[0] or "custom"
        kind = next(iter(_datasets(contents)), reader)
        return [result(f"{name}, validation split", kind, record.top1)]
    scored = next((one for one in contents.weights if one.file.top1 is not None), None)
    if scored is None or scored.file.top1 is None:
        return []
    return [result("ImageNet-1k", IMAGENET, scored.file.top1, scored.file.address)]
