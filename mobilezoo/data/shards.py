"""WebDataset shards on disk: `name.png` beside `name.cls`, indexed once and read from their place.

Every image is seen once, in the order of the shards, whatever the number of processes; shards behind an address are
streamed by timm's reader instead.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from mobilezoo.data.config import DataConfig
from mobilezoo.data.names import EXTENSIONS, is_hidden
from mobilezoo.data.scan import Scan
from mobilezoo.data.tars import Place, TarSplit, members
from mobilezoo.errors import ConfigError, DataError
from mobilezoo.reading import decoded, mapping, parse_json, read_json

INFO_NAMES = ("_info.json", "info.json")
MAX_CLASS_BYTES = 1 << 20
"""Largest size of the file with an image's class."""
NO_IMAGE = "samples without an image"


class ShardSplit(TarSplit):
    """The samples of some shards as files: name of the image → where it lies; classes are numbers."""

    def __init__(self, shards: list[Path], target_key: str | None = None) -> None:
        self.path, self.target_key = shards[0], target_key
        self.places: dict[str, Place] = {}
        self.samples: list[tuple[str, int]] = []
        self.left_out: Counter[str] = Counter()
        for shard in shards:
            self._add(shard, prefix=f"{shard.name}/" if len(shards) > 1 else "")

    def scan(self, classes: tuple[str, ...] | None = None, fewest: int = 1) -> Scan:
        """The samples, whose class numbers must be below the number of `classes`.

        Args:
            classes: names of the numbers; None leaves every number beyond.
            fewest: unused, as the classes are not read from the shards.
        """
        classes = classes or ()
        beyond = next((sample for sample in self.samples if not 0 <= sample[1] < len(classes)), None)
        faults = []
        if beyond is not None:
            faults.append(f"{beyond[0]!r} is of class {beyond[1]}, data.num_classes says 0 to {len(classes) - 1}")
        if not self.samples:
            faults.append(f"{str(self.path)!r} holds no samples of an image and its class (name.jpg beside name.cls)")
        return Scan(classes, self.samples, dict(self.left_out), tuple(faults))

    def _add(self, shard: Path, prefix: str) -> None:
        for key, files in _samples(shard).items():
            image = next((ext for ext in files if f".{ext.rpartition('.')[2]}" in EXTENSIONS), None)
            if image is None:
                self.left_out[NO_IMAGE] += 1
                continue
            name = f"{prefix}{key}.{image}"
            self.places[name] = files[image]
            self.samples.append((name, self._class_of(f"{shard.name}: {key}", files)))

    def _class_of(self, name: str, files: dict[str, Place]) -> int:
        kind = "json" if self.target_key else "cls"
        if kind not in files:
            raise DataError(f"{name!r} has no .{kind} file beside its image: every image needs a class")
        try:
            if files[kind].size > MAX_CLASS_BYTES:
                raise ValueError(f"{files[kind].size:,} bytes")
            text = decoded(files[kind].read(), kind)
            return int(_field(text, self.target_key) if self.target_key else text)
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise DataError(f"the .{kind} file of {name!r} holds no class number ({error})") from None


def _field(text: str, key: str) -> Any:
    return mapping(parse_json(text, "json"), "json")[key]


def open_shards(config: DataConfig, split: str) -> ShardSplit:
    """Index the shards of a split.

    Args:
        config: `data.root` is their folder.
        split: a pattern such as `train-{0000..0009}.tar`, or a split named in the folder's _info.json.

    Raises:
        DataError: a shard is missing or damaged, or a sample has no class number.
    """
    from webdataset.shardlists import expand_urls

    root = Path(config.root or ".").expanduser()
    info = _info(root, split)
    names = info["filenames"] if info else expand_urls(split.partition("|")[0])
    shards = [root / str(name) for name in names]
    missing = next((shard for shard in shards if not shard.is_file()), None)
    if not shards or missing is not None:
        raise DataError(f"shard not found: {str(missing or root / split)!r}; data.train_split and .val_split name them")
    return ShardSplit(shards, info.get("alt_label") or None)


def _info(root: Path, split: str) -> dict[str, Any]:
    """The entry of a split in the folder's info file; {} where there is none."""
    file = next((root / name for name in INFO_NAMES if (root / name).is_file()), None)
    content = read_json(file) if file else None
    splits = content.get("splits") if isinstance(content, dict) else None
    found = splits.get(split) if isinstance(splits, dict) else None
    if found is None:
        return {}
    if not isinstance(found, dict) or not isinstance(found.get("filenames"), list):
        raise DataError(f"{str(file)!r} does not tell the filenames of split {split!r}")
    return found


def _samples(shard: Path) -> dict[str, dict[str, Place]]:
    """Key → extension → place; as WebDataset has it, the key ends at the first dot of the file's name."""
    found: dict[str, dict[str, Place]] = {}
    for name, what, place in members(shard):
        if what != "file" or any(map(is_hidden, name.split("/"))):
            continue
        folder, slash, file = name.rpartition("/")
        stem, _, extensions = file.partition(".")
        found.setdefault(f"{folder}{slash}{stem}", {})[extensions.lower()] = place
    return found
