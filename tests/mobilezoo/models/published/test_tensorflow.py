"""TensorFlow's checkpoints, written as the authors' code writes them, end in our networks."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import mobilezoo
from mobilezoo.errors import CheckpointError, MissingToolError
from mobilezoo.models import load_model_config
from mobilezoo.models.mnasnet_official import rename
from mobilezoo.models.moat import from_official
from mobilezoo.models.published import fetch as fetching
from mobilezoo.models.published.choose import Published, choose
from mobilezoo.models.published.fetch import fetch
from mobilezoo.models.published.tensorflow import convert, unpack
from mobilezoo.testing.references import load_reference

REFERENCES = Path(__file__).resolve().parents[3] / "data" / "references"
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def mnasnet(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network with random weights, and these as variables: numbers of layers count over the whole network."""
    network = mobilezoo.create_model(name)
    variables: dict[str, Tensor] = {}
    counts = {"conv2d": 0, "depthwise_conv2d": 0, "batch_normalization": 0}
    blocks = [block for stage in network.get_submodule("blocks").children() for block in stage.children()]
    # the official code makes the blocks before stem and head
    scopes: list[tuple[str, list[nn.Module]]] = [
        (f"mnas_blocks_{k}", [layer for _, layer in _in_official_order(block)]) for k, block in enumerate(blocks)
    ]
    scopes.append(("mnas_stem", [network.get_submodule("conv_stem"), network.get_submodule("bn1")]))
    scopes.append(("mnas_head", [network.get_submodule("conv_head"), network.get_submodule("bn2")]))
    for scope, layers in scopes:
        for layer in layers:
            kind = _kind(layer)
            number = f"_{counts[kind]}" if counts[kind] else ""
            counts[kind] += 1
            for key, value in layer.state_dict().items():
                if key in ("num_batches_tracked",):
                    continue
                variable = NORM[key] if kind == "batch_normalization" else _variable(kind, key)
                fresh = torch.rand_like(value) + 0.5 if key == "running_var" else torch.randn_like(value)
                variables[f"{scope}/{kind}{number}/{variable}"] = fresh
    for key, value in network.get_submodule("classifier").state_dict().items():
        variables[f"mnas_head/dense/{'kernel' if key == 'weight' else key}"] = torch.randn_like(value)
    return network, variables


def _in_official_order(block: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers with weights as MnasBlock makes them: squeeze and excitation come after the depthwise norm."""
    named = {name: layer for name, layer in block.named_modules() if _kind(layer)}
    inverted = ("conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3")
    separable = ("conv_dw", "bn1", "conv_pw", "bn2")
    order = inverted if "conv_pwl" in named else separable
    return [(name, named[name]) for name in order if name in named]


def _kind(layer: nn.Module) -> str:
    if isinstance(layer, nn.BatchNorm2d):
        return "batch_normalization"
    if isinstance(layer, nn.Conv2d):
        return "depthwise_conv2d" if layer.groups > 1 else "conv2d"
    return ""


def _variable(kind: str, key: str) -> str:
    return "bias" if key == "bias" else "depthwise_kernel" if kind.startswith("depthwise") else "kernel"


@pytest.mark.parametrize("name", ["mnasnet_a1", "mnasnet_small"])
def test_mnasnets_variables_find_their_layers(name: str) -> None:
    network, variables = mnasnet(name)
    state = rename(variables, network)
    network.load_state_dict(state, strict=False)
    own = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert set(state) == set(own)
    # every kind of layer, by hand: the first block's depthwise kernel, a gate, the last projection, the head
    first = next(v for k, v in variables.items() if k.startswith("mnas_blocks_0/depthwise"))
    assert torch.equal(own["blocks.0.0.conv_dw.weight"], first)
    assert torch.equal(own["classifier.weight"], variables["mnas_head/dense/kernel"])
    assert sum(torch.equal(a, b) for a in own.values() for b in variables.values() if a.shape == b.shape) == len(own)


def test_another_mnasnet_is_refused() -> None:
    _, variables = mnasnet("mnasnet_a1")
    with pytest.raises(CheckpointError, match="blocks, the network has"):
        rename(variables, mobilezoo.create_model("mnasnet_small"))


def test_without_tensorflow_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, extra: str) -> None:
        raise MissingToolError(module, extra)

    monkeypatch.setattr(fetching, "require", missing)
    with pytest.raises(MissingToolError, match=r"pip install 'mobilezoo\[tensorflow\]'"):
        fetch(choose(load_model_config("mnasnet_a1")))


def test_an_archive_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.tgz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(CheckpointError, match="is damaged or no archive"):
        unpack(tmp_path / "x.tgz", tmp_path)
    with tarfile.open(tmp_path / "y.tgz", "w:gz") as tar:
        tar.add(__file__, "../outside.py")
    (tmp_path / "in").mkdir()
    with pytest.raises(CheckpointError, match=r"is damaged or no archive: .*outside"):
        unpack(tmp_path / "y.tgz", tmp_path / "in")
    assert not (tmp_path / "outside.py").exists()


def test_a_checkpoint_by_names_gives_its_averages(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow", reason="needs the extra 'tensorflow'")
    network, variables = mnasnet("mnasnet_a1_035")
    stored: dict[str, Any] = {"global_step": np.int64(7)}
    for name, value in variables.items():
        array = _tensorflow_axes(name, value.numpy())
        scoped = f"mnasnet-a1/mnas_net_model/{name}"
        stored |= {scoped: array * 0, f"{scoped}/ExponentialMovingAverage": array, f"{scoped}/RMSProp": array + 1}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        held = {name: tf.compat.v1.get_variable(f"v{n}", initializer=v) for n, (name, v) in enumerate(stored.items())}
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(held).save(session, str(tmp_path / "in" / "model.ckpt-7"), write_meta_graph=False)
    one = choose(load_model_config("mnasnet_a1_035"))
    state = _converted(one, tmp_path)
    assert set(state) == set(variables)
    network.load_state_dict(rename(state, network), strict=False)
    assert all(torch.equal(state[name], value) for name, value in variables.items())


def test_a_graph_of_objects_gives_the_networks_reference(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow", reason="needs the extra 'tensorflow'")
    known = load_reference(REFERENCES, "moat_tiny_0")
    axes_of = known.facts["tf_axes"]
    holder = tf.Module()
    for number, (name, value) in enumerate(known.state.items()):
        axes = axes_of.get(name)
        array = value.numpy().transpose(np.argsort(axes)) if axes else value.numpy()
        setattr(holder, f"layer{number}", tf.Variable(array, name=name))
    tf.train.Checkpoint(encoder=holder).write(str(tmp_path / "in" / "ckpt-1"))
    config = load_model_config("moat_tiny_0")
    state = _converted(choose(config), tmp_path)
    network = mobilezoo.create_model("moat_tiny_0").eval()
    network.load_state_dict(from_official(state, network), strict=False)
    with torch.no_grad():
        assert known.difference(network(known.inputs)) < 1e-4


def _converted(one: Published, folder: Path) -> dict[str, Tensor]:
    with tarfile.open(folder / "x.tgz", "w:gz") as tar:
        tar.add(folder / "in", "checkpoint")
    convert(one, folder / "x.tgz", folder / "x.safetensors")
    return load_file(folder / "x.safetensors")


def _tensorflow_axes(name: str, array: np.ndarray) -> np.ndarray:
    if name.endswith("depthwise_kernel"):
        return array.transpose(2, 3, 0, 1)
    if name.endswith("kernel"):
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return array
