"""One set of weights for every network of a search space: trained once, then each network is scored in seconds."""

from mobilezoo.models.base import FAMILIES

FAMILIES.add("supernet", "mobilezoo.search.supernet.model")
