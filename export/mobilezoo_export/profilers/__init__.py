"""Operator profilers of the built-in targets, one file per runtime."""
