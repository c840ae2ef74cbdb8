"""Latency-aware architecture search: a space as data, an objective, an Optuna study, engines.

Accuracy and latency are callables handed in by whoever calls `search`: nothing here knows a trainer, an exporter or a
device.
"""

from mobilezoo.callable_package import make_callable

make_callable(__name__)
