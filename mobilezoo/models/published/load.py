"""Published weights → a network: under the key that their record names, by the zoo's one reader of checkpoints."""

import warnings

from timm.models._manipulate import adapt_input_conv
from torch import nn

from mobilezoo.models.checkpoint import load_state, read_state
from mobilezoo.models.published.choose import Published
from mobilezoo.models.published.fetch import fetch
from mobilezoo.models.weights import channels_of, stem_keys


def load_published(network: nn.Module, one: Published) -> None:
    """Fetch published weights and copy them into a network, as timm does with its own.

    A classifier of another number of classes keeps its fresh weights; a stem of other input channels gets the sums or
    repeats of the published one's.

    Args:
        network: a network of `one.config`, with a classifier.
        one: what to load.

    Raises:
        WeightsError: the file cannot be fetched or was replaced.
        CheckpointError: it is damaged or does not fit.
    """
    found = fetch(one)
    state = dict(read_state(network, one.config, found.path, found.key))
    own = network.state_dict()
    for key in stem_keys(network):
        if key in state and key in own and state[key].shape != own[key].shape:
            state[key] = adapt_input_conv(channels_of(network), state[key])
    with warnings.catch_warnings(action="ignore"):  # a new classifier is what other classes were asked for
        load_state(network, one.config, state, found.path, reset_head=True)
