"""Latency without measuring: tables of blocks and learned predictors, each with its error on networks it never saw."""
