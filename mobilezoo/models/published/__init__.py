"""Trained weights that the authors of networks published: chosen by tag, fetched, checked, read.

Nothing is hosted here. `choose` finds a file's record in the model YAMLs, `fetch` has it in the cache, compared with
its pinned hash, and `load` puts it into a network.
"""
