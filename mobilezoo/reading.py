"""Safe readers of YAML and JSON: untrusted bytes → plain, finite, bounded data, or a ConfigError of one line.

The result consists of dict (text keys), list, str, int (64 bits), float (finite), bool and None, nested at most
`MAX_DEPTH` levels with at most `MAX_VALUES` values. Callers may rely on that, and JSON can always hold it.
"""

import functools
import json
import math
import stat
import warnings
from pathlib import Path
from typing import Any, NoReturn

from mobilezoo.errors import ConfigError, printable

MAX_YAML_BYTES = 1 << 18
"""A config written by hand is a few kilobytes; the parser, pure Python, takes seconds for this much."""
MAX_JSON_BYTES = 1 << 26
"""Records hold raw samples, tables thousands of blocks."""
MAX_DEPTH = 64
MAX_VALUES = 4_000_000
MAX_YAML_VALUES = 200_000
"""After aliases are written out: a small file can name a large one many times over."""
MAX_DIGITS = 400
"""Of one number: the largest finite float has 309."""
INT_LIMIT = 1 << 63


def read_text(path: str | Path, limit: int) -> str:
    """Reads the UTF-8 text of a regular file.

    Args:
        path: the file.
        limit: upper limit of its size in bytes.

    Raises:
        ConfigError: the file cannot be read, is larger, or is not UTF-8.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for its writer
            raise ConfigError(f"{path}: not a regular file")
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # also a name with a NUL
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > limit:
        raise ConfigError(f"{path}: larger than {limit >> 10:,} KiB, which no file of its kind needs")
    return decoded(data, str(path))


def decoded(data: bytes, source: str) -> str:
    """Decodes UTF-8, without a byte order mark at its beginning.

    Args:
        data: the bytes.
        source: their name, for error messages.

    Raises:
        ConfigError: the bytes are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"byte {data[error.start]:#x} at {error.start}"
        raise ConfigError(f"{source}: not UTF-8 text ({kind}): save it as UTF-8") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML 1.2 file that holds a mapping, as plain data. Raises ConfigError."""
    return mapping(parse_yaml(read_text(path, MAX_YAML_BYTES), str(path)), str(path))


def read_json(path: str | Path, limit: int = MAX_JSON_BYTES) -> Any:
    """Reads a JSON file as plain data.

    Args:
        path: the file.
        limit: upper limit of its size in bytes.

    Raises:
        ConfigError: the file cannot be read, is larger, or is not valid JSON.
    """
    return parse_json(read_text(path, limit), str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Parses YAML 1.2 text to plain data.

    Args:
        text: at most `MAX_YAML_BYTES` characters.
        source: its name, for error messages.

    Raises:
        ConfigError: the text is not valid YAML, exceeds a limit, or holds dates, sets, binary data, tags or merge keys.
    """
    from ruamel.yaml import YAML

    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{source}: more than {MAX_YAML_BYTES >> 10} KiB of YAML")
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _constructor()
    try:
        with warnings.catch_warnings(action="ignore"):  # an anchor used again, which YAML 1.2 allows
            data = yaml.load(text)
    except RecursionError:
        _too_deep(source)
    except Exception as error:  # its conversions raise whatever Python's own raise on hostile text
        raise ConfigError(f"{source}: not valid YAML: {_yaml_fault(error)}") from None
    if yaml.version not in (None, (1, 2)):
        raise ConfigError(f"{source}: read as YAML 1.2, where `on` and `no` are text: remove its %YAML line")
    return plain(data, source, MAX_YAML_VALUES)


@functools.cache
def _constructor() -> Any:
    """Returns ruamel.yaml's safe constructor, restricted to YAML 1.2 and to values of bounded size."""
    from ruamel.yaml.constructor import ConstructorError, SafeConstructor

    class Constructor(SafeConstructor):
        def flatten_mapping(self, node: Any) -> Any:
            """Refuses merge keys: nested merges grow exponentially, and YAML 1.2 has none."""
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    raise ConstructorError(problem="merge keys (<<) are not supported", problem_mark=key.start_mark)

        def whole_number(self, node: Any) -> Any:
            if len(node.value) > MAX_DIGITS:
                raise ConstructorError(problem=f"a number of {len(node.value)} digits", problem_mark=node.start_mark)
            return self.construct_yaml_int(node)

        def other(self, node: Any) -> Any:
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            problem = f"the tag {kind} is no plain value: put text in quotes"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark)

    Constructor.add_constructor("tag:yaml.org,2002:int", Constructor.whole_number)
    Constructor.add_constructor(None, Constructor.other)
    return Constructor


def parse_json(text: str | bytes, source: str) -> Any:
    """Parses JSON text to plain data.

    Args:
        text: the JSON.
        source: its name, for error messages.

    Raises:
        ConfigError: the text is not valid JSON, exceeds a limit, or holds NaN, Infinity or a name given twice.
    """
    try:
        data = json.loads(
            text,
            parse_constant=lambda word: _refuse(f"{word} is no JSON number"),
            parse_int=_int,
            object_pairs_hook=_unique,
        )
    except RecursionError:
        _too_deep(source)
    except ValueError as error:
        raise ConfigError(f"{source}: not valid JSON: {error}") from None
    return plain(data, source)


def mapping(data: Any, source: str) -> dict[str, Any]:
    """Returns `data`, a mapping.

    Args:
        data: plain data.
        source: its name, for error messages.

    Raises:
        ConfigError: it is no mapping.
    """
    if not isinstance(data, dict):
        got = "nothing" if data is None else type(data).__name__
        raise ConfigError(f"{source}: expected a mapping of keys, got {got}")
    return data


def plain(data: Any, source: str, most: int = MAX_VALUES) -> Any:
    """Returns `data` once it is checked to be plain and bounded.

    Args:
        data: any object; one that contains itself counts as too deep.
        source: its name, for error messages.
        most: upper limit of its values, containers included.

    Raises:
        ConfigError: a value is not plain or a limit is exceeded; the message names the key and the type.
    """
    left = most
    waiting: list[tuple[Any, tuple[Any, ...]]] = [(data, ())]
    while waiting:
        value, where = waiting.pop()
        left -= 1
        if left < 0:
            raise ConfigError(f"{source}: more than {most:,} values (aliases counted as often as they are named)")
        if len(where) > MAX_DEPTH:
            _too_deep(source)
        if type(value) is dict:
            waiting += [(item, (*where, _key(key, where, source))) for key, item in value.items()]
        elif type(value) is list:
            waiting += [(item, (*where, index)) for index, item in enumerate(value)]
        elif fault := _scalar_fault(value):
            raise ConfigError(f"{source}: {_dotted(where)} is {fault}")
    return data


def _key(key: Any, where: tuple[Any, ...], source: str) -> str:
    if type(key) is not str:
        raise ConfigError(
            f"{source}: {_dotted(where)}: the key {str(key)[:40]!r} is {_kind(key)}: keys are text, write it in quotes"
        )
    if fault := _scalar_fault(key):
        raise ConfigError(f"{source}: {_dotted(where)}: a key is {fault}")
    return key


def _scalar_fault(value: Any) -> str | None:
    """Describes why a value is not plain; None where it is."""
    if value is None or type(value) is bool:
        return None
    if type(value) is int:
        return None if -INT_LIMIT <= value < INT_LIMIT else "an integer of more than 64 bits"
    if type(value) is float:
        return None if math.isfinite(value) else f"{value}, not a finite number"
    if type(value) is str:
        return None if _encodable(value) else "text with half a character (an unpaired surrogate)"
    return f"{_kind(value)}: only text, numbers, true, false, null, lists and mappings are read; put text in quotes"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    """Returns the name of a value's type in YAML."""
    names = {"date": "a date", "datetime": "a date", "TimeStamp": "a date", "set": "a set", "bytes": "binary data"}
    return names.get(type(value).__name__, f"of type {type(value).__name__}")


def _dotted(where: tuple[Any, ...]) -> str:
    return printable(".".join(map(str, where))[:MAX_DIGITS]) or "<top>"


def _too_deep(source: str) -> NoReturn:
    raise ConfigError(f"{source}: nested deeper than {MAX_DEPTH} levels, or containing itself") from None


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        _refuse(f"a number of {len(digits)} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        _refuse(f"the name {next(n for n in names if names.count(n) > 1)!r} is given twice")
    return found


def _yaml_fault(error: Exception) -> str:
    """Describes a parser's error and its position in one line."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    text = printable(" ".join((problem or str(error) or type(error).__name__).split())[:200])
    return f"{text} (line {mark.line + 1}, column {mark.column + 1})" if mark else text
