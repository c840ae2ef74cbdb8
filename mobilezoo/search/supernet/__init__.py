"""Weight sharing: one set of weights for all networks of a search space, trained once; scoring then takes seconds."""

from mobilezoo.models.base import FAMILIES

FAMILIES.add("supernet", "mobilezoo.search.supernet.model")
