"""Registries of names that users can extend: families, attention layers, export targets, devices, search engines, ...

A name stands for a place, `package.module:attribute`, imported when the name is first used. Installed plugins add names
(see `mobilezoo.plugins`), and a place itself is accepted wherever a name is.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from mobilezoo.errors import ConfigError, UnknownNameError, first_line, near_names, shortened
from mobilezoo.plugins import KINDS, faults, installed_plugins, log, resolve

T = TypeVar("T")
PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class Registry(Generic[T]):
    """Names of one kind.

    Args:
        kind: what a name stands for, as error messages call it.
        field: the field of `Plugin` that adds names.
        places: built-in names and their places, or the objects themselves.
        accepts: whether a loaded object is of the kind.
        expected: what it must be, for the error message.
    """

    def __init__(
        self, kind: str, field: str, places: "Mapping[str, str | T]", accepts: Callable[[Any], bool], expected: str
    ) -> None:
        assert field in KINDS
        self.kind, self.field, self.builtin = kind, field, dict(places)
        self.accepts, self.expected = accepts, expected
        self._loaded: dict[str, T] = {}

    def add(self, name: str, place: str) -> None:
        """Adds a built-in name, from a package above the one that holds the registry.

        Args:
            name: the new name.
            place: `package.module:attribute` of its object.
        """
        self.builtin[name] = place

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (is_place(name) or bool(self._places(name)))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def names(self) -> list[str]:
        """Returns built-in names in their order, then those of plugins."""
        added = [name for found in installed_plugins() for name in found.plugin.places(self.field)]
        return list(dict.fromkeys([*self.builtin, *added]))

    def place(self, name: str) -> str:
        """Returns the place of a name's object. Raises UnknownNameError, or ConfigError for a name given twice."""
        if is_place(name):
            return name
        places = self._places(name)
        if len(places) > 1:
            owners = " and ".join(f"{place} ({owner})" for place, owner in places)
            raise ConfigError(f"{self.kind} {name!r} is given twice, by {owners}: write the place that you mean")
        if not places:
            raise UnknownNameError(self.kind, name, self.names(), faults())
        return places[0][0]

    def load(self, name: str) -> T:
        """Returns the object of a name or a place. Raises UnknownNameError or ConfigError."""
        place = self.place(name)
        own = self.builtin.get(name)
        if own is not None and not isinstance(own, str):
            return own
        if place not in self._loaded:
            self._loaded[place] = self._import(name, place)
        return self._loaded[place]

    def known(self, name: str) -> str:
        """Checks a name in a validator and returns it. Raises UnknownNameError, or ConfigError where it is unusable."""
        self.place(name)
        if name not in self.builtin:
            self.load(name)
        return name

    def load_all(self) -> dict[str, T]:
        """Returns name → object of every name; a plugin's that cannot be loaded is logged and left out."""
        loaded = {}
        for name in self.names():
            try:
                loaded[name] = self.load(name)
            except ConfigError as error:
                log.warning("%s", error)
        return loaded

    def _places(self, name: str) -> list[tuple[str, str]]:
        """Returns (place, package) of every package that registers a name."""
        own = [(str(self.builtin[name]), "mobilezoo")] if name in self.builtin else []
        plugins = [(found.plugin.places(self.field), found.package) for found in installed_plugins()]
        return own + [(places[name], package) for places, package in plugins if name in places]

    def _import(self, name: str, place: str) -> T:
        if name in self.builtin:
            found: Any = resolve(place)  # a fault in our own modules is no fault of the user's
            return found
        given = shortened(repr(name)) if name == place else f"{name!r} ({place})"
        try:
            found = resolve(place)
        except AttributeError as error:
            raise ConfigError(f"{self.kind} {given}: {_missing_attribute(place, error)}") from None
        except (Exception, SystemExit) as error:  # somebody else's module may raise anything
            raise ConfigError(
                f"{self.kind} {given} cannot be imported: {type(error).__name__}: {first_line(error)}"
            ) from error
        if not self.accepts(found):
            raise ConfigError(f"{self.kind} {given} is of the wrong kind: expected {self.expected}")
        return found


def is_place(name: str) -> bool:
    """Whether a name is itself a place, `package.module:attribute`."""
    return PLACE.fullmatch(name) is not None


def is_subclass(cls: Callable[[], type]) -> Callable[[Any], bool]:
    """Returns a test for subclasses of `cls()`, which is called (and imports the class) when it is first needed."""
    return lambda found: isinstance(found, type) and issubclass(found, cls())


def _missing_attribute(place: str, error: AttributeError) -> str:
    module, _, attribute = place.partition(":")
    if getattr(error, "name", None) not in attribute.split("."):
        return f"cannot be imported: AttributeError: {error}"
    near = near_names(attribute, dir(resolve(module)), 2)
    return f"module {module!r} has no {attribute!r}" + (f": did you mean {', '.join(near)}?" if near else "")
