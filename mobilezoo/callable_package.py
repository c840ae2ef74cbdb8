"""Packages that can be called: `mobilezoo.train` is the package of the trainer and the function that trains.

Python binds a package's name in its parent as soon as anything below it is imported, so that a function of the same
name would come and go. A module may have a class of its own (Python's data model, "customizing module attribute
access"): this one passes calls on to the function of `mobilezoo.api`.
"""

import inspect
import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package whose call runs the API's function of its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function_of(self)(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function_of(self))


def make_callable(package: str) -> None:
    """Makes a package callable as the function of its last name in `mobilezoo.api`."""
    sys.modules[package].__class__ = CallablePackage


def _function_of(package: ModuleType) -> Any:
    parent, _, name = package.__name__.rpartition(".")
    return sys.modules[parent].api_function(name)  # the parent knows the API; an import here would be a circle
