"""The card's text: front matter, then one section after another; a section without facts is left out."""

from mobilezoo.report.model_card.contents import CardContents, data_name
from mobilezoo.report.model_card.front_matter import front_matter
from mobilezoo.report.model_card.latency import latency_section
from mobilezoo.report.model_card.loading import loading_section
from mobilezoo.report.model_card.markdown import code, link, plain, table
from mobilezoo.report.model_card.proof import parity_section
from mobilezoo.resolution import written

MOST_LABELS = 40
MADE_BY = "https://github.com/mobilezoo/mobilezoo"


def card_text(contents: CardContents) -> str:
    """Writes a model card; equal contents give equal text.

    Args:
        contents: what the card is about.

    Returns:
        Markdown with YAML front matter.
    """
    sections = (
        _opening(contents),
        loading_section(contents),
        _preprocessing(contents),
        _accuracy(contents),
        parity_section(contents.artifacts),
        latency_section(contents.latencies, contents.counted),
        _use(contents),
        _license(contents),
        _citation(contents),
    )
    body = "\n\n".join(section for section in sections if section)
    return f"{front_matter(contents)}\n{body}\n\nThis card was written from records by {link(MADE_BY, 'mobilezoo')}.\n"


def _opening(contents: CardContents) -> str:
    """Title, what the network is, and its figures."""
    parts = [f"# {plain(contents.name)}", _description(contents)]
    rows: list[tuple[str, object]] = [("Network", contents.name)]
    if contents.config is not None and contents.config.family != "timm":
        rows.append(("Family", contents.config.family))
    if contents.kind == "file":
        record = contents.artifacts[0]
        rows += [("File", record.path), ("Format", f"{record.target} {record.precision}")]
        rows.append(("Size", f"{record.size_bytes / 1e6:.2f} MB"))
    if contents.params is not None and contents.macs is not None:
        rows += [("Parameters", f"{contents.params / 1e6:.2f} M"), ("MACs", f"{contents.macs / 1e6:.1f} M")]
    rows.append(("Input", f"{written(contents.resolution)} px (height x width), {contents.in_chans} channels"))
    if contents.num_classes is not None:
        rows.append(("Classes", f"{contents.num_classes:,}"))
    rows += [("SHA-256", contents.sha256)] if contents.sha256 else []
    parts.append(table(("", ""), rows))
    if contents.labels:
        shown = ", ".join(plain(label) for label in contents.labels[:MOST_LABELS])
        more = len(contents.labels) - MOST_LABELS
        parts.append(f"Class names, in the order of the outputs: {shown}" + (f", and {more:,} more" * (more > 0)))
    return "\n\n".join(parts)


def _description(contents: CardContents) -> str:
    """The first sentence of the family's module, a description of the network."""
    config = contents.config
    if config is None:
        return "A file that was made by other tools; what is known of it was read from the file."
    if config.family == "timm":
        return "A network of timm (PyTorch Image Models)."
    from mobilezoo.models.base import family_module

    first = (family_module(config.family).__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(plain(line) for line in first.splitlines())


def _preprocessing(contents: CardContents) -> str:
    """How an image becomes the input."""
    title, how = "## Preprocessing", contents.preprocessing
    if how is None:
        return f"{title}\n\nThe file does not declare how images become its input."
    from mobilezoo.preprocessing import COLORS

    how = how.for_channels(contents.in_chans)
    colors = COLORS.get(contents.in_chans, f"{contents.in_chans} channels")
    steps = [f"Channels: {plain(colors)}.", f"{plain(_sentence(how.rule(contents.resolution)))}."]
    numbers = [", ".join(f"{value:g}" for value in values) for values in (how.mean, how.std)]
    normalized = f"(pixel / 255 - mean) / std, mean {numbers[0]}, std {numbers[1]}"
    if contents.kind == "file":
        steps.append(_file_input(contents, normalized))
    else:
        steps.append(f"Normalize: {plain(normalized)}.")
    return f"{title}\n\n" + "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def _file_input(contents: CardContents, normalized: str) -> str:
    """What a file's input tensor takes."""
    given = contents.artifacts[0].input
    shape = "x".join(map(str, given.shape))
    tensor = f"The input is {given.dtype}, {given.layout}, {shape}."
    if given.quantization is not None:
        q = given.quantization
        return plain(f"{tensor} q = round({normalized} / {q.scale:g}) + {q.zero_point}, clipped to {q.dtype}.")
    if given.dtype == "uint8":
        return plain(f"{tensor} Pixels 0..255 go in as they are; the file normalizes them: {normalized}.")
    return plain(f"{tensor} Values: {normalized}.")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _accuracy(contents: CardContents) -> str:
    """Scores, and whose they are."""
    record = contents.checkpoint
    if record is not None:
        data = data_name(record.dataset)
        trained = f"Trained on {plain(data)}" if data else "The training data is not recorded"
        epoch = f", best after {record.epoch + 1} epochs" if record.epoch is not None else ""
        score = f" Top-1 {record.top1:.2f}% on its validation split." if record.top1 is not None else ""
        started = f" It started from {plain(contents.origin.name)}." if contents.origin else ""
        return f"## Training and accuracy\n\n{trained}{epoch}.{score}{started}"
    if not contents.weights:
        return ""
    rows = [
        (
            one.name,
            None if one.file.top1 is None else f"{one.file.top1:g}",
            written(one.resolution),
            one.file.training,
            one.file.license,
            one.file.source,
        )
        for one in contents.weights
    ]
    head = ("weights", "top-1 (%)", "pixels", "training", "license", "source")
    text = "ImageNet-1k top-1 as published with each file; none of it was measured by mobilezoo."
    return f"## Published weights\n\n{text}\n\n{table(head, rows)}"


def _use(contents: CardContents) -> str:
    """What it is for, and what nobody showed of it."""
    classes = "its classes" if contents.num_classes is None else f"its {contents.num_classes:,} classes"
    use = [f"Classification of single images into {classes}, on phones and other small devices."]
    if contents.kind != "file":
        use.append("Backbone of other vision tasks, through timm's `features_only=True`, after training for them.")
    limits = [
        "An image of something else still gets one of the classes.",
        "Images must be prepared as above; other resizing, cropping or normalization changes the answers.",
        "Bias, fairness, robustness and images unlike the training data were not examined.",
        *_limits_of_records(contents),
    ]
    text = "\n".join(f"- {line}" for line in use)
    return f"## Intended use\n\n{text}\n\n## Limits\n\n" + "\n".join(f"- {line}" for line in limits)


def _limits_of_records(contents: CardContents) -> list[str]:
    """Limits that follow from what the records have and lack."""
    lines = []
    if contents.kind == "network" and not contents.weights and contents.origin is None:
        lines.append("No trained weights are published: the network has to be trained first.")
    if contents.checkpoint is not None and contents.checkpoint.top1 is None:
        lines.append("No accuracy is recorded.")
    if contents.artifacts:
        lines.append("Agreement with PyTorch is numeric; accuracy of a file is shown by `mobilezoo eval` alone.")
    if contents.kind == "network" and contents.latencies:
        lines.append("Latency is of files of this network by name: their input size and classes may be others.")
    if not any(report.device.kind == "phone" for report in contents.latencies):
        lines.append("Its latency was measured on no phone.")
    return lines


def _license(contents: CardContents) -> str:
    """License of the weights, and where they came from."""
    origin, words = contents.origin, contents.licenses
    lines = []
    if origin is not None:
        lines.append(f"Weights of, or trained from, {plain(origin.name)}: {link(origin.address)}.")
    if len(words) > 1:
        lines.append(f"Licenses of the weights: {plain('; '.join(words))}; the table above has that of each.")
    elif words:
        lines.append(f"License of the weights: {plain(words[0])}.")
    elif contents.kind == "network":
        whose = "timm" if contents.source.startswith("timm:") else "mobilezoo"
        lines.append(f"No weights are published. The definition is part of {whose} (Apache-2.0).")
    else:
        lines.append("No license is recorded. Whoever publishes the weights adds `license:` to the front matter.")
    if any(one.casefold().startswith("none stated") for one in words):
        lines.append("Where their authors stated none, use is between you and them.")
    return "## License\n\n" + " ".join(lines)


def _citation(contents: CardContents) -> str:
    """Papers of the network and their BibTeX entries."""
    from mobilezoo.models.papers import papers_of

    papers = papers_of(contents.config) if contents.config is not None else ()
    if not papers:
        return ""
    lines = [
        f"- {link(paper.address, paper.title)}, {plain(paper.venue or 'arXiv')}, arXiv:{paper.arxiv}"
        for paper in papers
    ]
    entries = code("bibtex", "\n\n".join(paper.bibtex() for paper in papers))
    return "## Papers and citation\n\n" + "\n".join(lines) + f"\n\n{entries}"
