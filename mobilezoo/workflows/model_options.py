"""Options that eval, export, profile and convert share: changes to what a network's record or config has."""

from pathlib import Path

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, existing_path
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Resolution


class ModelOptions(Record):
    """Changes to a network; a field left out comes from the checkpoint's record, its tensors or the config."""

    checkpoint: Path | None = None
    pretrained: bool | str = False
    """Take published weights: True for a network's first, or their tag."""
    key: str | None = None
    """Dotted path of the weights inside the checkpoint."""
    labels: tuple[str, ...] = ()
    resolution: Resolution | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preprocess: str | None = None
    """How images become the input of an exported file without a record, see `workflows.open_file`."""
    outputs: str | None = None
    """What such a file answers with: logits, probabilities or percent."""

    def preprocessing(self, known: Preprocessing, channels: int) -> Preprocessing:
        """`known` with the mean and deviation of these options.

        Args:
            known: preprocessing of the record or config.
            channels: input channels of the network; single values are repeated for each.

        Raises:
            ConfigError: there are neither one nor `channels` values.
        """
        changed = {"mean": self.mean, "std": self.std}
        for name, values in changed.items():
            if values is not None and len(values) not in (1, channels):
                raise ConfigError(f"--{name} has {len(values)} numbers for {channels} input channels")
        return known.for_channels(channels).model_copy(
            update={name: values * (channels // len(values)) for name, values in changed.items() if values}
        )


NO_OPTIONS = ModelOptions()
"""Everything as the record or the config has it."""


def read_labels(given: str) -> tuple[str, ...]:
    """Class names from a .txt (one per line), a .json, or a list with commas. Raises ConfigError."""
    from mobilezoo.data.class_lists import read_entries

    if not given.lower().endswith((".txt", ".json")):
        labels = [name.strip() for name in given.split(",")]
        if len(labels) < 2 or not all(labels):
            raise ConfigError(f"--labels {given!r}: a .txt or .json file, or names with commas between them")
        return tuple(labels)
    entries = read_entries(str(existing_path(given, "labels file")))
    if isinstance(entries, dict):
        entries = [name for name, _ in sorted(entries.items(), key=lambda item: item[1])]
    labels = [entry for entry in entries if isinstance(entry, str) and entry]
    if not labels or len(labels) != len(entries):
        raise ConfigError(
            f"--labels {given!r}: one name per class, {len(entries) - len(labels)} of {len(entries)} are none"
        )
    return tuple(labels)
