"""What `export_model` promises around every exporter."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mobilezoo.artifacts import InputSpec
from mobilezoo.errors import ExportError, MobilezooError, UnknownNameError
from mobilezoo.testing.targets import export_files
from mobilezoo_export import (
    ExportConfig,
    Exporter,
    ExportHooks,
    ExportOptions,
    ExportResult,
    ExportSpec,
    ModelSpec,
    ProofImages,
    Runner,
    convert,
    export_model,
    reference,
    registry,
)
from mobilezoo_export.prepare import prepare
from mobilezoo_export.quiet import quiet
from mobilezoo_export.records import TensorSpec


class FakeExporter(Exporter):
    """Writes a NumPy array of weights' sum; the runner's logits are wrong by `options.opset` - 20."""

    target, suffix, extra, modules, packages, precisions = "fake", ".fake", "onnx", (), (), ("fp32",)

    def open(self, path, threads, record):  # type: ignore[no-untyped-def]
        return FakeRunner(path, threads, record)

    def export(self, model, spec, path, calibration=()):  # type: ignore[no-untyped-def]
        if spec.options.opset == 22:
            path.write_text("half")
            raise ValueError("unsupported op\nwith details")
        FakeRunner.model, FakeRunner.offset = model, float(spec.options.opset - 20)
        path.write_text(f"offset {FakeRunner.offset}")
        return ["a warning"]


class FakeRunner(Runner):
    model: nn.Module
    offset: float
    runtime = "fake runtime 1"

    def __init__(self, path: Path, threads: int = 1, record: object = None) -> None:
        self.input = InputSpec(shape=(1, 3, 14, 14))
        self.inputs = (TensorSpec(name="x", shape=(1, 3, 14, 14), dtype="float32"),)

    def feed(self, values: Sequence[np.ndarray]) -> None:
        (self.batch,) = values

    def invoke(self) -> None:
        with torch.no_grad():
            self.result = self.model(torch.from_numpy(self.batch)).numpy() + self.offset

    def output(self) -> np.ndarray:
        return self.result


@pytest.fixture
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    here = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "fake_target", here)
    monkeypatch.setitem(registry.TARGETS.builtin, "fake", "fake_target:FakeExporter")


def model_of(spec: ExportSpec) -> ModelSpec:
    return ModelSpec(**{name: getattr(spec, name) for name in ModelSpec.model_fields})


def with_opset(spec: ExportSpec, opset: int) -> ExportSpec:
    return spec.model_copy(update={"options": ExportOptions(opset=opset)})


@pytest.mark.usefixtures("_fake")
def test_a_good_file_gets_its_name_its_record_and_the_warnings(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    (result,) = export_files(tiny, tiny_spec, ["fake"], ["fp32"], tmp_path)
    assert result.status == "exported", result.reason
    assert result.warnings == ("a warning",)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.fp32.fake", "tiny.fp32.fake.json"]


@pytest.mark.usefixtures("_fake")
def test_a_file_over_tolerance_is_not_left_behind(tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    (result,) = export_files(tiny, with_opset(tiny_spec, 19), ["fake"], ["fp32"], tmp_path)
    assert result.status == "failed"
    assert "differs from PyTorch by" in result.reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_fake")
def test_a_converter_that_fails_is_one_line_and_leaves_nothing(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    (result,) = export_files(tiny, with_opset(tiny_spec, 22), ["fake"], ["fp32"], tmp_path)
    assert result.reason == "the fake converter refused tiny: ValueError: unsupported op"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_fake")
def test_a_file_is_kept_only_where_it_is_what_would_be_made(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    def export(spec: ExportSpec = tiny_spec, **more: bool) -> ExportResult:
        return export_files(tiny, spec, ["fake"], ["fp32"], tmp_path, **more)[0]

    assert export().status == "exported"
    kept = export()
    assert (kept.status, kept.ok) == ("kept", True)
    assert kept.artifact is not None
    assert export(overwrite=True).status == "exported"
    assert export(tiny_spec.model_copy(update={"labels": ("a", "b")})).status == "exported", "what is in it changed"
    assert export().status == "exported"


@pytest.mark.usefixtures("_fake")
@pytest.mark.parametrize("record", [True, False])
def test_a_file_that_is_not_ours_any_more_is_neither_kept_nor_replaced(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, record: bool
) -> None:
    file = tmp_path / "tiny.fp32.fake"
    export_files(tiny, tiny_spec, ["fake"], ["fp32"], tmp_path)
    file.write_text("mine")
    if not record:
        (tmp_path / "tiny.fp32.fake.json").unlink()
    (refused,) = export_files(tiny, tiny_spec, ["fake"], ["fp32"], tmp_path)
    assert (refused.status, refused.ok, refused.artifact) == ("refused", False, None)
    assert ("changed since" if record else "has no record") in refused.reason
    assert "--overwrite" in refused.reason
    assert file.read_text() == "mine"
    (made,) = export_files(tiny, tiny_spec, ["fake"], ["fp32"], tmp_path, overwrite=True)
    assert made.status == "exported"


@pytest.mark.usefixtures("_fake")
def test_a_file_of_other_weights_is_made_again(tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    weights = tmp_path / "best.safetensors"
    spec = tiny_spec.model_copy(update={"checkpoint": str(weights)})
    statuses = []
    for content in ("epoch 1", "epoch 1", "epoch 2"):
        weights.write_text(content)
        (result,) = export_files(tiny, spec, ["fake"], ["fp32"], tmp_path / "export")
        statuses.append(result.status)
    assert statuses == ["exported", "kept", "exported"]


@pytest.mark.usefixtures("_fake")
def test_an_unknown_precision_is_refused_with_the_known_ones(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    (result,) = export_files(tiny, tiny_spec, ["fake"], ["fp8"], tmp_path)
    assert result.status == "refused"
    assert "choose from fp32" in result.reason


@pytest.mark.usefixtures("_fake")
def test_zero_gammas_are_found_and_warned_about(tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    import copy

    network = copy.deepcopy(tiny)
    network.norm.weight.data.zero_()  # type: ignore[union-attr]
    (result,) = export_files(network, tiny_spec, ["fake"], ["fp32"], tmp_path)
    assert result.artifact is not None
    assert result.artifact.zero_gammas == ("norm.weight",)
    assert "converters fold their branches away" in result.warnings[0]


@pytest.mark.usefixtures("_fake")
def test_the_network_is_left_as_it_was(tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    import copy

    network = copy.deepcopy(tiny).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    export_files(network, tiny_spec, ["fake"], ["fp32"], tmp_path)
    assert network.training
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_an_unknown_target_and_wrong_images_are_one_line(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError):
        export_files(tiny, tiny_spec, ["tensorrt"], ["fp32"], tmp_path)
    for side, count, reason in ((8, 1, "parity images have shape"), (14, 0, "no images")):
        images = ProofImages(np.zeros((count, 3, side, side), np.float32))
        with pytest.raises(ExportError, match=reason):
            export_model(tiny, model_of(tiny_spec), ExportConfig(targets=("onnx",)), tmp_path, images=images)


@pytest.mark.slow
def test_a_process_of_its_own_gives_the_same_result_and_survives_a_crash(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second converter kills its process with SIGSEGV; what comes before and after is there all the same."""
    module = tmp_path / "crashing_target.py"
    module.write_text(
        "import os, signal\n"
        "from mobilezoo_export.targets.onnx import OnnxExporter\n"
        "class Crashing(OnnxExporter):\n"
        "    target, suffix = 'crash', '.crash'\n"
        "    def export(self, model, spec, *args):\n"
        "        if spec.precision == 'fp32':\n"
        "            os.kill(os.getpid(), signal.SIGSEGV)\n"
        "        print('toolchains talk')\n"
        "        return super().export(model, spec, *args)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(
        "from mobilezoo_export import registry\nregistry.TARGETS.add('crash', 'crashing_target:Crashing')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(registry.TARGETS.builtin, "crash", "crashing_target:Crashing")
    heard: list[ExportResult] = []
    config = ExportConfig(targets=("onnx", "crash"), precisions=("fp32", "fp16"))
    hooks = ExportHooks(on_result=heard.append)
    results = export_model(tiny, model_of(tiny_spec), config, tmp_path / "out", hooks=hooks)
    assert [r.status for r in results] == ["exported", "exported", "failed", "exported"], results
    assert "the crash converter ended with SIGSEGV; other targets are unaffected" in results[2].reason
    assert heard == results


@pytest.mark.slow
def test_a_converter_that_has_grown_is_replaced_before_the_next_network(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with convert.Converters() as converters:
        processes = []
        for name, limit in (("first", 0), ("second", 1e6), ("third", 0)):
            config = ExportConfig(targets=("onnx",))
            (result,) = export_model(tiny, model_of(tiny_spec), config, tmp_path / name, isolate=converters)
            assert result.status == "exported", result.reason
            child = converters._running["onnx"]
            assert child.peak_mb > 50
            processes.append(child.worker)
            monkeypatch.setattr(convert, "MOST_MEMORY_MB", limit)
    assert processes[0] is not processes[1]
    assert processes[1] is processes[2]


def test_hidden_output_comes_back_as_a_note_when_something_fails(capfd: pytest.CaptureFixture[str]) -> None:
    @quiet()
    def noisy() -> None:
        os.write(1, b"the cause\n")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken") as caught:
        noisy()
    assert "the cause" in caught.value.__notes__[0]
    os.write(1, b"heard again\n")
    assert capfd.readouterr().out == "heard again\n"


def test_pipeline_reference_is_batched_without_effect(tiny: nn.Module) -> None:
    images = np.random.default_rng(0).standard_normal((5, 3, 14, 14)).astype(np.float32)
    np.testing.assert_allclose(
        reference.torch_logits(tiny, images, batch=2), reference.torch_logits(tiny, images, batch=5), atol=1e-5
    )


def test_a_users_graph_pass_runs_after_the_common_ones_on_every_target(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_pass.py").write_text("calls = []\ndef run(graph):\n    calls.append(graph)\n    return 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    options = ExportOptions(passes=("logs", "own_pass:run"))
    spec = tiny_spec.model_copy(update={"options": options})
    changed = prepare(tiny, spec).changed
    assert list(changed)[-2:] == ["logs", "own_pass:run"]
    assert changed["own_pass:run"] == 3
    assert len(sys.modules["own_pass"].calls) == 1
    assert ExportOptions.parse({"passes": "logs,noop"}, "here").passes == ("logs", "noop")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lgos", "unknown graph pass 'lgos': did you mean logs"),
        ("json:dump_all", "module 'json' has no 'dump_all': did you mean dump"),
        ("json:__name__", "is of the wrong kind: expected a function"),
    ],
)
def test_a_graph_pass_that_cannot_be_used_is_one_line(name: str, told: str) -> None:
    with pytest.raises(MobilezooError, match=told):
        ExportOptions.parse({"passes": [name]}, "here")


def test_a_target_given_by_its_place_is_exported_and_found_again(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fake_target", sys.modules[__name__])
    place = "fake_target:FakeExporter"
    (result,) = export_files(tiny, tiny_spec, [place], ["fp32"], tmp_path)
    assert result.status == "exported", result.reason
    assert result.path is not None
    assert isinstance(registry.load_runner(result.path), FakeRunner)
    assert registry.is_exported(result.path)
    assert not registry.is_exported(tmp_path / "tiny.fp32.fake.json")
