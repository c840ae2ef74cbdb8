"""One set of weights for every network of a search space: trained once, then each network is scored in seconds."""
