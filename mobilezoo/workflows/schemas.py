"""JSON schemas of the YAML kinds, from the records that read them, so that editors complete and check keys."""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from mobilezoo.config import Record, key_meaning
from mobilezoo.errors import UnknownNameError
from mobilezoo.registry import PLACE, Registry

KINDS = {
    "model": "models",
    "train": "train",
    "export": "export",
    "profile": "profile",
    "search": "search",
    "device": "devices",
}
"""Kind of schema → the folder of `configs/` whose files it describes."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def schema(kind: str) -> Schema:
    """The JSON schema of a kind of YAML; of models by `family`, of devices by `type`, those of plugins included.

    Raises UnknownNameError.
    """
    if kind not in KINDS:
        raise UnknownNameError("schema", kind, list(KINDS))
    if kind == "model":
        body = _model_schema()
    elif kind == "device":
        body = _device_schema()
    else:
        body = config_of(kind).model_json_schema(schema_generator=_Described)
    return {"$schema": DIALECT, "title": f"mobilezoo: a YAML in configs/{KINDS[kind]}/", **body}


def config_of(kind: str) -> type[Record]:
    """The record behind a kind that has one."""
    if kind == "train":
        from mobilezoo.train.config import TrainConfig

        return TrainConfig
    if kind == "export":
        from mobilezoo_export.config import ExportConfig

        return ExportConfig
    if kind == "profile":
        from mobilezoo_latency.config import ProfileConfig

        return ProfileConfig
    from mobilezoo.search.config import SearchConfig

    return SearchConfig


def _model_schema() -> Schema:
    from mobilezoo.models.base import FAMILIES

    return _one_of("family", FAMILIES, {"resolution"})


def _device_schema() -> Schema:
    from mobilezoo_latency.registry import DEVICES

    return _one_of("type", DEVICES, set())


def _one_of(key: str, registry: Registry[Any], required: set[str]) -> Schema:
    """One alternative for each name of a registry, selected by `key`, and one for places of a user's own."""
    loaded = registry.load_all()
    configs: dict[str, type[BaseModel]] = {name: loaded[name].Config for name in sorted(loaded) if name != "supernet"}
    definitions = _definitions(configs, key)
    place = {"type": "string", "pattern": f"^{PLACE.pattern}$", "description": "package.module:attribute of your own"}
    own = {"type": "object", "properties": {key: place}, "required": sorted({key, *required})}
    names = {"type": "string", "description": f"which {registry.kind} reads the other keys", "examples": list(configs)}
    alternatives = [{"$ref": f"#/$defs/{name}"} for name in configs]
    return {
        "type": "object",
        "properties": {key: names},
        "required": [key],
        "oneOf": [*alternatives, own],
        "$defs": definitions,
    }


def _definitions(configs: Mapping[str, type[BaseModel]], key: str) -> Schema:
    """The record of each name under that name, and the records inside them."""
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [(config, "validation") for config in configs.values()]
    references, whole = models_json_schema(list(dict.fromkeys(modes)), schema_generator=_Described)
    definitions: Schema = dict(whole["$defs"])
    named: Schema = {}
    for name, config in configs.items():
        body = definitions[references[(config, "validation")]["$ref"].rpartition("/")[2]]
        kind = {"const": name, "description": body["properties"][key].get("description", "")}
        properties = {key: kind} | {k: v for k, v in body["properties"].items() if k not in (key, "name")}
        named[name] = {**body, "properties": properties, "required": sorted({key, *body.get("required", ())})}
    roots = {reference["$ref"].rpartition("/")[2] for reference in references.values()}
    return named | {name: body for name, body in definitions.items() if name not in roots}


class _Described(GenerateJsonSchema):
    """Every key with its meaning, and no titles that only repeat names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: Any) -> Schema:
        made = super().model_schema(schema)
        made.pop("title", None)
        cls: type[BaseModel] = schema["cls"]
        written = _attribute_docstrings(cls)
        for name, field in made.get("properties", {}).items():
            meaning = field.get("description") or written.get(name) or key_meaning(cls, name)
            if meaning:
                field["description"] = meaning
        return made


def _attribute_docstrings(cls: type[BaseModel]) -> dict[str, str]:
    """Field → the text below it, of a record and those that it extends."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, Record) and base is not Record:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            assert isinstance(body, ast.ClassDef)
            found |= dict(filter(None, map(_documented, body.body, body.body[1:])))
    return found


def _documented(field: ast.stmt, text: ast.stmt) -> tuple[str, str] | None:
    """(field, text) of two statements that follow each other, where they are a field and its docstring."""
    match field, text:
        case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
            return name, inspect.cleandoc(meaning)
    return None
