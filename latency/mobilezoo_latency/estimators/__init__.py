"""Latency without measuring: tables of blocks and learned predictors, each with its error on held-out networks."""
