"""How to load what the card is about, with timm and with mobilezoo."""

import shlex

from mobilezoo.report.model_card.contents import PULLED, CardContents
from mobilezoo.report.model_card.markdown import code, literal, one_line

INSTALL = "pip install mobilezoo"
TRANSFORM = """\
config = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**config, is_training=False)
scores = model(transform(Image.open("photo.jpg").convert("RGB")).unsqueeze(0)).softmax(-1)"""


def loading_section(contents: CardContents) -> str:
    """Writes commands and code.

    Args:
        contents: what the card is about.
    """
    parts = {"network": _network, "checkpoint": _checkpoint, "file": _file}[contents.kind](contents)
    return "\n\n".join(("## How to load it", code("sh", INSTALL), *parts))


def _network(contents: CardContents) -> list[str]:
    name = literal(contents.source)
    pretrained = ", pretrained=True" if contents.weights or contents.origin else ""
    ours = f"import mobilezoo\n\nmodel = mobilezoo.create_model({name}{pretrained}).eval()"
    parts = ["With mobilezoo:", code("python", ours)]
    if contents.through_timm is not None:
        parts += ["With timm:", _with_timm(literal(contents.through_timm), bool(pretrained))]
    elif contents.timm_has_another:
        parts.append("timm has a network of its own under this name: `timm.create_model` builds that one.")
    words = shlex.quote(one_line(contents.source)) + (" --pretrained" if pretrained else "")
    parts += ["Files for phones:", code("sh", f"mobilezoo export {words} --to litert,onnx,coreml,executorch")]
    return parts


def _checkpoint(contents: CardContents) -> list[str]:
    file, repo = one_line(contents.source), one_line(contents.repo)
    pulled = PULLED.format(repo.rpartition("/")[2])
    commands = f"mobilezoo pull {shlex.quote(repo)}\nmobilezoo predict {shlex.quote(pulled)} photo.jpg"
    parts = []
    if contents.through_timm is not None:
        parts = ["With timm:", _with_timm(literal(f"hf-hub:{repo}"), pretrained=True)]
        parts += ["With mobilezoo:", code("sh", commands)]
    ours = f"import mobilezoo\n\nmodel = mobilezoo.load_model({literal(file)}).network"
    return [*parts, "From the checkpoint and its record:", code("python", ours)]


def _with_timm(name: str, pretrained: bool) -> str:
    """Code that builds a network by timm and scores a photograph."""
    head = "import mobilezoo  # gives timm the zoo's networks\nimport timm\nfrom PIL import Image\n\n"
    given = ", pretrained=True" if pretrained else ""
    return code("python", f"{head}model = timm.create_model({name}{given}).eval()\n{TRANSFORM if pretrained else ''}")


def _file(contents: CardContents) -> list[str]:
    record = contents.artifacts[0]
    file = one_line(record.path)
    told = " --preprocess imagenet" if contents.preprocessing is None else ""
    ours = f'import mobilezoo\n\n(answer,) = mobilezoo.predict({literal(file)}, "photo.jpg")'
    parts = ["With mobilezoo:", code("sh", f"mobilezoo predict {shlex.quote(file)} photo.jpg{told}")]
    parts += [code("python", ours)] if not told else []
    if record.foreign:
        return parts
    made = f"timm loads the PyTorch network behind the file, not the file: `{_inline(record.model)}`."
    return [*parts, made, "The file holds its preprocessing and labels as JSON, under `mobilezoo`."]


def _inline(text: str) -> str:
    """A string inside backticks."""
    return one_line(text).replace("`", "'").replace("|", "/")
