"""One trainer for every backbone."""

from mobilezoo.callable_package import make_callable

make_callable(__name__)
