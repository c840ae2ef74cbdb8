"""Blocks and attention modules that more than one family uses."""
