"""MobileMamba: equal to the official networks, small graphs for phones, and a good timm citizen."""

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from mobilezoo.config import config_names
from mobilezoo.errors import CheckpointError, ConfigError
from mobilezoo.models import mobilemamba
from mobilezoo.models.fuse import fuse
from mobilezoo.models.randomize import randomize_norms
from mobilezoo.models.registry import create_model, load_model_config

VARIANTS = [name for name in config_names("models") if name.startswith("mobilemamba_")]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return _lively(create_model("mobilemamba_t2", num_classes=10))


def _lively(model: nn.Module) -> nn.Module:
    """Norms, scales and decays that matter, so that a wrong fold, direction or key shows."""
    generator = torch.Generator().manual_seed(0)
    randomize_norms(model, generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".scale", ".skip", ".a_log")):
                parameter.uniform_(-0.5, 1.5, generator=generator)
    return model.eval()


def _relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.std())


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_of_the_fused_network_equal_the_measured_official_ones(facts: dict[str, Any], name: str) -> None:
    config = load_model_config(name)
    fact = facts[config.aliases[0]]
    model = create_model(config).eval()
    assert sum(p.numel() for p in fuse(model, torch.zeros(1, 3, 64, 64)).parameters()) == fact["fused_params"]


def test_every_official_variant_has_a_yaml_and_an_alias() -> None:
    aliases = {load_model_config(name).aliases for name in VARIANTS}
    assert aliases == {(f"MobileMamba_{size}",) for size in ("T2", "T4", "S6", "B1", "B2", "B4")}


def test_an_images_logits_do_not_depend_on_its_batch(network: nn.Module) -> None:
    x = torch.randn(3, 3, 96, 64)
    with torch.no_grad():
        assert _relative(network(x), torch.cat([network(image) for image in x.split(1)])) <= 1e-5


def test_the_heads_norm_sees_pooled_features_in_training() -> None:
    head = create_model("mobilemamba_t2", num_classes=5).head.train()
    x = torch.randn(4, 368, 2, 3)
    plain = nn.BatchNorm1d(368).train()
    expected = head.fc(plain(x.mean((2, 3))))
    torch.testing.assert_close(head(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(head.norm.running_var, plain.running_var)


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_the_fused_head_is_one_classifier_for_every_pool(pool: str) -> None:
    model = _lively(create_model("mobilemamba_t2", num_classes=5, global_pool=pool))
    fused = model.head.fuse()
    x = torch.randn(2, 368, 3, 2)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    torch.testing.assert_close(fused(x), model.head(x), rtol=1e-4, atol=1e-4)


def test_stochastic_depth_comes_from_the_config_unless_given() -> None:
    def rates(name: str, **kwargs: float) -> list[float]:
        return [m.drop_prob for m in create_model(name, **kwargs).modules() if isinstance(m, DropPath)]

    assert rates("mobilemamba_t2") == []
    assert max(rates("mobilemamba_b1")) == pytest.approx(0.03)
    assert max(rates("mobilemamba_b1", drop_path_rate=0.3)) == pytest.approx(0.3)
    assert rates("mobilemamba_b1", drop_path_rate=0.0) == []


def test_the_wavelet_filters_alone_are_frozen() -> None:
    frozen = [n for n, p in create_model("mobilemamba_t2", num_classes=5).named_parameters() if not p.requires_grad]
    assert frozen
    assert all(name.endswith((".analysis.weight", ".synthesis")) for name in frozen)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(192, 192), (193, 161)])
def test_the_exported_graph_is_static_small_dimensional_and_equal(network: nn.Module, size: tuple[int, int]) -> None:
    x = torch.randn(1, 3, *size)
    program = torch.export.export(network, (x,))
    for node in program.graph.nodes:
        values = node.meta.get("val")
        for value in values if isinstance(values, tuple | list) else (values,):
            assert not isinstance(value, Tensor) or value.dim() <= 4, node
        if node.op == "call_function":
            target = str(node.target)
            assert not any(word in target for word in ("expand", "flip", "sym_size", "alias", "while", "cond")), node
            if "slice" in target:
                assert node.meta["val"].shape != node.args[0].meta["val"].shape, node
    assert all(b.is_contiguous() for b in program.state_dict.values())
    with torch.no_grad():
        assert _relative(program.module()(x), network(x)) <= 1e-4


@pytest.mark.nightly
def test_onnx_and_litert_files_compute_the_same_as_pytorch(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    litert_torch = pytest.importorskip("litert_torch")
    from ai_edge_litert.interpreter import Interpreter

    model = fuse(_lively(create_model("mobilemamba_t2")))
    x = torch.randn(1, 3, 192, 192)
    with torch.no_grad():
        expected = model(x)

    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    program.save(tmp_path / "t2.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "t2.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert _relative(torch.from_numpy(logits), expected) <= 1e-4
    operators = [node.op_type for node in program.model_proto.graph.node]
    assert len(operators) <= 1000
    assert not {"Loop", "Scan", "If"} & set(operators)

    litert_torch.convert(model, (x,)).export(str(tmp_path / "t2.tflite"))
    interpreter = Interpreter(str(tmp_path / "t2.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.numpy())
    interpreter.invoke()
    logits = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert _relative(torch.from_numpy(logits), expected) <= 1e-4
    delegates = [op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
    assert len(delegates) == 1, "XNNPACK takes the whole graph"


def test_weight_decay_spares_the_scans_skip(network: nn.Module) -> None:
    names = {name for name, _ in network.named_parameters()}
    assert network.no_weight_decay() == {name for name in names if name.endswith("scan.skip")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("widths=[144, 272]", "one value per stage, 3"),
        ("widths=[100, 272, 368]", "multiple of 8"),
        ("kernels=[7, 4, 3]", "odd numbers"),
        ("global_ratios=[0.8, 1.7, 0.6]", "between 0 and 1"),
        ("expansion=2", "scan_expansion"),
    ],
)
def test_a_wrong_config_value_is_named_with_what_was_expected(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model_config("mobilemamba_t2", (change,))


@pytest.mark.parametrize(
    "change", ["global_ratios=[0, 0.7, 1]", "local_ratios=[0, 0.3, 0]", "kernels=[1, 3, 9]", "depths=[1, 1, 1]"]
)
def test_other_networks_need_no_code(change: str) -> None:
    model = _lively(create_model(load_model_config("mobilemamba_t2", (change,)), num_classes=3))
    with torch.no_grad():
        assert bool(torch.isfinite(model(torch.randn(1, 3, 80, 72))).all())


def test_other_wavelets_than_haar_are_refused(network: nn.Module) -> None:
    key = "blocks1.0.mixer.m.attn.global_op.wt_filter"
    state = {"patch_embed.0.c.weight": torch.zeros(1), key: torch.randn(448, 1, 2, 2)}
    with pytest.raises(CheckpointError, match="not Haar"):
        mobilemamba.from_official(state, network)


def test_half_precision_runs_on_a_cpu(network: nn.Module) -> None:
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        expected = network(x)
        model = create_model("mobilemamba_t2", num_classes=10).eval()
        model.load_state_dict(network.state_dict())
        assert _relative(model.half()(x.half()).float(), expected) <= 0.05
