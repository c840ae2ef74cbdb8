"""Latency-aware architecture search: a space as data, an objective, an Optuna study, engines.

Accuracy and latency are callables that the caller passes to `search`: nothing here depends on a trainer, an exporter
or a device.
"""

from mobilezoo.callable_package import make_callable

make_callable(__name__)
