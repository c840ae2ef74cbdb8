"""YAML files and dotted overrides → frozen, typed records.

A config is named by path (`my/model.yaml`) or by bare name (`shvit_s1`), looked up in the configs shipped with the
package. Every record rejects unknown keys and wrong types; the message names file, key path, value and what was
expected.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from mobilezoo.errors import ConfigError, UnknownNameError, near_names, printable, shortened
from mobilezoo.reading import parse_yaml, read_yaml

MOST_FAULTS = 5
"""Faults of one record that a message lists."""
KINDS = ("models", "train", "export", "profile", "devices", "search")


class Record(BaseModel):
    """A frozen, strictly typed record; unknown keys are errors, and so are numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False)

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        from mobilezoo.notebook import record_html

        return record_html(self)

    @classmethod
    def parse(cls, data: Any, source: str = "<record>") -> Self:
        """Validates plain data (as YAML or JSON gives it).

        Args:
            data: a mapping of the record's keys.
            source: name of the file or object, for error messages.

        Raises:
            ConfigError: all faults in one line, at most `MOST_FAULTS`.
        """
        try:
            return cls.model_validate_json(json.dumps(data, allow_nan=False))
        except ValidationError as error:
            raise ConfigError(_explain(error, cls, source)) from None
        except (TypeError, ValueError, RecursionError) as error:  # no plain data: a caller's, never a file's
            raise ConfigError(f"{source}: {error}") from None


R = TypeVar("R", bound=Record)
Words = str | list[str]
"""Input type of `listed`, for JSON schemas."""


def config_root() -> Path:
    """The folder of shipped configs: inside the installed package, or beside it in a source checkout."""
    package = Path(__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def config_names(kind: str) -> list[str]:
    """Bare names of all configs of a kind (a folder of `configs/`), shipped or brought by plugins."""
    return sorted({p.stem for root in _config_roots() for p in (root / kind).glob("*.yaml")})


def config_path(kind: str, name: str) -> Path | None:
    """Finds the YAML of a bare name, shipped or brought by a plugin.

    Args:
        kind: one of `KINDS`, a folder of `configs/`.
        name: file name without its ending.

    Returns:
        Its path, or None where there is none.

    Raises:
        ConfigError: two folders hold one of that name.
    """
    found = [path for root in _config_roots() if (path := root / kind / f"{name}.yaml").is_file()]
    if len(found) > 1:
        raise ConfigError(f"{kind} config {name!r} is there twice: {found[0]} and {found[1]}: write the path you mean")
    return found[0] if found else None


def _config_roots() -> tuple[Path, ...]:
    from mobilezoo.plugins import config_folders

    return (config_root(), *config_folders())


def is_yaml(name: str) -> bool:
    """Whether a config is named by its path and not by a bare name."""
    return name.endswith((".yaml", ".yml"))


def find_config(kind: str, name: str | Path) -> Path:
    """Finds the file of a path or a bare name.

    Args:
        kind: one of `KINDS`, a folder of `configs/`.
        name: path of a YAML (ending in .yaml or .yml), or a bare name.

    Raises:
        ConfigError: the path does not exist, or the bare name is there twice.
        UnknownNameError: no config has the bare name.
    """
    text = str(name)
    if is_yaml(text):
        path = Path(text).expanduser()
        if not path.is_file():
            path = config_root() / kind / path.name if "/" not in text else path
        if not path.is_file():
            raise ConfigError(f"config file not found: {text!r}")
        return path
    if found := config_path(kind, text):
        return found
    noun = kind if kind in ("train", "export", "profile", "search") else kind.removesuffix("s")
    raise UnknownNameError(f"{noun} config" if kind != "models" else "model", text, config_names(kind))


def write_yaml(path: str | Path, data: Mapping[str, Any], header: Sequence[str] = ()) -> Path:
    """Writes plain data as block-style YAML, atomically, and returns its path.

    Args:
        path: the file.
        data: text keys with values that JSON can hold.
        header: comment lines before the data, without `#`.
    """
    import io

    from ruamel.yaml import YAML

    from mobilezoo.files import write_text

    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 110
    out = io.StringIO()
    yaml.dump(_quoted(json.loads(json.dumps(data))), out)
    return write_text(Path(path), "".join(f"# {line}\n" for line in header) + out.getvalue())


def _quoted(value: Any) -> Any:
    """Marks strings for quoting where ruamel.yaml writes no quotes although its reader needs them: `{a: ?0}`."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, dict):
        return {_quoted(key): _quoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) and value.startswith("?") else value


def apply_overrides(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Returns a copy of plain data with dotted overrides applied.

    Args:
        data: nested mappings.
        overrides: items `KEY.KEY=VALUE`, VALUE as YAML; an empty VALUE is None.

    Raises:
        ConfigError: an item is no `KEY=VALUE`, its VALUE no YAML, or one of its keys is below a value.
    """
    result = copy.deepcopy(data)
    for item in overrides:
        key, sep, value = item.partition("=")
        if not sep or not key:
            raise ConfigError(f"override {item!r}: expected KEY=VALUE, for example train.epochs=5")
        node = result
        *parents, last = key.split(".")
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigError(f"override {item!r}: {part!r} is a value, not a group of keys")
        node[last] = parse_yaml(value, f"override {item!r}") if value else None
    return result


def listed(value: Any) -> Any:
    """Converts a list, or `a,b` of the command line, to a tuple; other values pass. For validators in mode "before"."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return tuple(value) if isinstance(value, list) else value


def load_record(cls: type[R], path: str | Path, overrides: Iterable[str] = ()) -> R:
    """Reads one YAML file into a record.

    Args:
        cls: type of the record.
        path: the YAML.
        overrides: dotted overrides, see `apply_overrides`.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong.
    """
    return cls.parse(apply_overrides(read_yaml(path), overrides), str(path))


def _explain(error: ValidationError, cls: type[BaseModel], source: str) -> str:
    lines = []
    faults = error.errors()
    for item in faults[:MOST_FAULTS]:
        where = printable(".".join(str(part) for part in item["loc"]))
        if item["type"] == "extra_forbidden":
            near = _near_keys(cls, item["loc"])
            known = _fields_at(cls, item["loc"][:-1])
            hint = f"did you mean {', '.join(near)}?" if near else f"known keys: {', '.join(known)}"
            lines.append(f"{source}: unknown key {where!r}: {hint}")
        elif item["type"] == "missing":
            lines.append(f"{source}: missing key {where!r}")
        else:
            expected = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            expected = "true or false" if expected == "a valid boolean" else expected
            # a rule over several keys names them itself; the whole record would bury it
            value = "" if isinstance(item["input"], dict) else f" = {shortened(repr(item['input']))}"
            subject = f"{source}: {where}{value}" if where else source
            lines.append(f"{subject}: expected {expected}")
    more = len(faults) - MOST_FAULTS
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _near_keys(cls: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Suggests keys: those of the same name in another group, else similar ones in the same group, else anywhere."""
    name, beside = str(loc[-1]), _fields_at(cls, loc[:-1])
    leaves: dict[str, list[str]] = {}
    for key, _, _ in _rows(cls, None, ""):
        leaves.setdefault(key.rpartition(".")[2], []).append(key)
    near = near_names(name, beside, 3)
    group = ".".join(str(part) for part in loc[:-1])
    return (
        leaves.get(name)
        or [f"{group}.{key}" if group else key for key in near]
        or [leaves[leaf][0] for leaf in near_names(name, leaves, 2)]
    )


def explained(record: Record) -> list[tuple[str, str, str]]:
    """Lists (dotted key, value, meaning) of every key; the keys of an absent group or of a list of groups have no
    value.
    """
    return list(_rows(type(record), record, ""))


def _rows(
    cls: type[BaseModel], record: BaseModel | None, prefix: str, inside: tuple[type[BaseModel], ...] = ()
) -> Iterator[tuple[str, str, str]]:
    for name, field in cls.model_fields.items():
        group, value = _record_in(field.annotation), getattr(record, name, None)
        key = prefix + name
        if group is None or not isinstance(value, BaseModel):
            shown = "" if record is None else _shown(value)
            yield key, shown, key_meaning(cls, name)
        if group is not None and group not in (cls, *inside):  # a record may hold one of its own kind
            listed = isinstance(value, tuple)
            yield from _rows(group, None if listed else value, f"{key}[]." if listed else f"{key}.", (cls, *inside))


def key_meaning(cls: type[BaseModel], name: str) -> str:
    """Describes a key in one line, from its field's description or its type; empty where neither has a text.

    Args:
        cls: type of the record.
        name: field of it.
    """
    field = cls.model_fields[name]
    group = _record_in(field.annotation)
    return field.description or (_first_line(group) if group else _alternatives(field.annotation))


def _shown(value: Any) -> str:
    """Formats a value as YAML does; a list of groups as their number."""
    if isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        return f"[{len(value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def _first_line(cls: type[BaseModel]) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _alternatives(annotation: Any) -> str:
    """Joins the alternatives of a Literal; empty for other types."""
    return " or ".join(map(str, get_args(annotation))) if get_origin(annotation) is Literal else ""


def _record_in(annotation: Any) -> type[BaseModel] | None:
    """Returns the record type of an annotation, also inside of Optional and tuple; None where there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_record_in, get_args(annotation))), None)


def _fields_at(cls: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Field names of the record at a key path, as far as it can be followed through annotations."""
    current = cls
    for part in loc:
        if isinstance(part, str) and part in current.model_fields:
            current = _record_in(current.model_fields[part].annotation) or current
    return sorted(current.model_fields)
