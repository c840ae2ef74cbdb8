"""Core AI: the program check computes what PyTorch computes, and notices every fault that is planted into a file."""

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mobilezoo.artifacts import Preprocessing
from mobilezoo.errors import ExportError, MissingToolError, MobilezooError
from mobilezoo.files import sha256_of
from mobilezoo.testing.fuzzing import damages, error_line
from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportOptions, ExportResult, ExportSpec, FileApart, load_exporter, load_runner
from mobilezoo_export.images import sample_images
from mobilezoo_export.metadata import read_metadata
from mobilezoo_export.parity import measure_parity
from mobilezoo_export.prepare import prepare
from mobilezoo_export.tolerances import verdict

sys.path.append(str(Path(__file__).parent))
INSTALLED = importlib.util.find_spec("coreai_torch") is not None
needs_coreai = pytest.mark.skipif(not INSTALLED, reason="no extra 'coreai': pip install 'mobilezoo[coreai]'")
FEWEST_FAULTS = 45
PREPROCESSING = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def refused(spec: ExportSpec, **changes: object) -> str:
    exporter = load_exporter("coreai")
    return str(exporter.unsupported_reason(None, spec.model_copy(update=changes)))  # type: ignore[arg-type]


def test_without_the_extra_the_line_installs_it(tiny_spec: ExportSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=r"pip install 'mobilezoo\[coreai\]'"):
        refused(tiny_spec)


def test_open_sizes_are_refused_with_the_remedy(tiny_spec: ExportSpec) -> None:
    assert "one file per size" in refused(tiny_spec, options=ExportOptions(flexible="batch"))


@pytest.fixture
def copy(tiny_file: Callable[[str], ExportResult], tmp_path: Path) -> Path:
    """A file of `tiny` that a test may damage; it has no record."""
    made = tiny_file("coreai").path
    assert made is not None
    return Path(shutil.copytree(made, tmp_path / "tiny.aimodel"))


def relative_fault(path: Path, tiny: nn.Module, spec: ExportSpec) -> str | None:
    """Why a file is refused, or None if it is as good as the network."""
    images = sample_images(spec, 4)
    with torch.no_grad():
        reference = tiny(torch.from_numpy(images)).numpy()
    try:
        logits = load_runner(path).run(images)
    except ExportError as error:
        return str(error)
    return verdict(measure_parity(reference, logits, precision="fp32", inputs="", ran_in=""), "fp32")


@needs_coreai
@pytest.mark.slow
def test_every_planted_fault_is_noticed(copy: Path, tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path) -> None:
    """Weights, axes, strides, padding, operators: what the format's own checks let through, the program check finds."""
    from aimodel_faults import Saved, faults

    assert relative_fault(copy, tiny, tiny_spec) is None
    planted, missed = 0, []
    for what, plant in faults(copy):
        saved = Saved(copy)
        try:
            plant(saved)
            broken = saved.save(tmp_path / "broken.aimodel")
        except RuntimeError:  # the bindings refuse to write it
            continue
        planted += 1
        if relative_fault(broken, tiny, tiny_spec) is None:
            missed.append(what)
    assert missed == []
    assert planted >= FEWEST_FAULTS


@needs_coreai
@pytest.mark.nightly
def test_every_planted_fault_is_noticed_in_a_network_of_the_zoo(tmp_path: Path) -> None:
    """MnasNet-small's gates and head have biases of zeros, whose additions are no faults to notice."""
    import random

    from aimodel_faults import Saved, faults

    import mobilezoo
    from mobilezoo.models.randomize import as_if_trained

    spec = ExportSpec(model="mnasnet_small", resolution=(64, 64), preprocessing=PREPROCESSING)
    network = mobilezoo.create_model("mnasnet_small").eval()
    as_if_trained(network, torch.from_numpy(sample_images(spec)[:16]))
    (made,) = export_files(network, spec, ["coreai"], ["fp32"], tmp_path)
    assert made.path is not None, made.reason
    path = Path(made.path)
    assert relative_fault(path, network, spec) is None
    planted = list(faults(path))
    missed, chosen = [], random.Random(0).sample(planted, 24)
    for what, plant in chosen:
        saved = Saved(path)
        try:
            plant(saved)
            broken = saved.save(tmp_path / "broken.aimodel")
        except RuntimeError:  # the bindings refuse to write it
            continue
        if relative_fault(broken, network, spec) is None:
            missed.append(what)
    assert missed == []


@needs_coreai
@pytest.mark.slow
def test_the_same_network_gives_the_same_bytes(
    tiny_file: Callable[[str], ExportResult], tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    first = tiny_file("coreai").artifact
    (again,) = export_files(tiny, tiny_spec, ["coreai"], ["fp32"], tmp_path)
    assert first is not None
    assert again.path is not None
    assert sha256_of(Path(again.path)) == first.sha256
    assert b"/site-packages/" not in (Path(again.path) / "main.mlirb").read_bytes()


@needs_coreai
@pytest.mark.slow
def test_large_int8_weights_are_stored_as_integers_of_a_segment_that_is_not_kept(
    tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    from mobilezoo_export.aimodel.reading import read_graphs

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 64, 14), nn.ReLU(), nn.Flatten(), nn.Linear(64, 32), nn.Linear(32, 10))
    export, program = load_exporter("coreai").export, prepare(network.eval(), tiny_spec).graph
    stored = {}
    for name, kept in (("all", ()), ("kept", (2,))):
        spec = tiny_spec.model_copy(update={"precision": "int8", "float_segments": kept})
        assert export(program, spec, tmp_path / f"{name}.aimodel") == []
        graph = read_graphs(tmp_path / f"{name}.aimodel")["main"]
        stored[name] = [value.shape for value in graph.constants.values() if value.dtype == np.int8 and value.ndim > 1]
        assert all(value.dtype != np.float32 for value in graph.constants.values())
    conv, linear, head = (64, 3, 14, 14), (32, 64), (10, 32)
    assert conv in stored["all"]
    assert linear in stored["all"]
    assert head not in stored["all"]  # too few values
    assert conv not in stored["kept"]
    assert linear in stored["kept"]
    images = sample_images(tiny_spec, 8)
    with torch.no_grad():
        reference = network(torch.from_numpy(images)).numpy()
    found = load_runner(tmp_path / "all.aimodel").run(images)
    parity = measure_parity(reference, found, precision="int8", inputs="", ran_in="")
    assert 30 < parity.snr_db < 70


@needs_coreai
@pytest.mark.slow
def test_a_file_on_which_core_ai_s_own_runtime_disagrees_is_not_kept(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mobilezoo_export.aimodel import own_runtime

    answer = own_runtime._answer

    async def other(*given: object) -> np.ndarray:
        return (await answer(*given)) * 1.1  # type: ignore[arg-type]

    monkeypatch.setattr(own_runtime, "_answer", other)
    (result,) = export_files(tiny, tiny_spec, ["coreai"], ["fp32"], tmp_path)
    assert result.status == "failed"
    assert "in Core AI's runtime the coreai fp32 file differs from the program check" in result.reason
    assert list(tmp_path.iterdir()) == []


def without(part: str) -> Callable[[Path], None]:
    return lambda folder: (folder / part).unlink()


def cut(part: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / part).write_bytes((folder / part).read_bytes()[:-100])

    return damage


def to_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"no model")


@needs_coreai
@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (without("main.mlirb"), "main.mlirb is missing"),
        (without("main.hash"), "main.hash is missing"),
        (cut("main.mlirb"), "main.mlirb is not what main.hash states"),
        (to_a_file, "it is no folder with main.mlirb"),
    ],
)
def test_a_damaged_part_is_one_line_that_names_it(copy: Path, damage: Callable[[Path], None], why: str) -> None:
    damage(copy)
    with pytest.raises(ExportError, match=why) as caught:
        load_runner(copy)
    assert "\n" not in str(caught.value)
    assert "tiny.aimodel" in str(caught.value)


@needs_coreai
@pytest.mark.slow
def test_the_doctor_reads_what_a_file_holds(copy: Path) -> None:
    from mobilezoo_export.anatomy.describe import describe

    found = describe(copy)
    assert found.target == "coreai"
    assert found.ops["conv2d"] == 3
    assert [(one.name, one.shape) for one in found.inputs] == [("image", (1, 3, 14, 14))]
    assert [one.shape for one in found.outputs] == [(1, 10)]
    assert found.scheme == "none: float32"
    assert found.weights_bytes > 1000
    (copy / "main.mlirb").unlink()
    with pytest.raises(ExportError, match=r"main\.mlirb is missing"):
        describe(copy)


@needs_coreai
@pytest.mark.slow
def test_damaged_metadata_is_one_line(copy: Path) -> None:
    assert read_metadata(copy)["labels"] == list("abcdefghij")
    (copy / "metadata.json").write_text("{")
    with pytest.raises(MobilezooError, match=r"metadata\.json"):
        read_metadata(copy)


@needs_coreai
@pytest.mark.nightly
def test_damaged_bytes_with_a_hash_that_fits_run_or_are_one_line(copy: Path) -> None:
    import hashlib

    program = {"main.mlirb": (copy / "main.mlirb").read_bytes()}

    def opened() -> None:
        with FileApart(copy) as file:
            file.run(np.ones((1, 3, 14, 14), np.float32))

    for number, (part, data) in enumerate(damages(program, 6)):
        (copy / part).write_bytes(data)
        (copy / "main.hash").write_bytes(hashlib.sha256(data).digest())
        line = error_line(opened, f"round {number}")
        assert not line or "tiny.aimodel" in line


@needs_coreai
@pytest.mark.slow
def test_an_operation_without_a_definition_here_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mobilezoo_export.aimodel import arguments, program

    assert program
    monkeypatch.delitem(arguments.OPERATIONS, "sigmoid")
    with pytest.raises(ExportError, match="does not know the operation sigmoid"):
        load_runner(copy)


class Assorted(nn.Module):
    """Operators that the tiny network has not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.group = nn.LayerNorm(6), nn.GroupNorm(1, 4)
        self.conv, self.up = nn.Conv2d(3, 4, 3, 2, 2, dilation=2), nn.ConvTranspose2d(4, 4, 2, 2)
        self.same = nn.Conv2d(4, 4, 3, padding="same", groups=2)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(F.gelu(self.group(self.conv(x))))
        x = self.same(F.max_pool2d(x, 3, 2, 1, ceil_mode=True))
        x = x + F.avg_pool2d(x, 3, 1, 1)
        x = F.pixel_shuffle(x, 2)[:, :, :6, :6]
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[..., ::2]
        a, b = torch.split(self.norm(x).flatten(1, 2), [5, 7], 1)
        attention = torch.softmax(a @ b.transpose(1, 2), -1)
        tail = torch.stack([attention.amax(-1), attention.pow(2).sum(-1).rsqrt()], 1)
        return torch.cat([tail.flatten(1), F.leaky_relu(tail).flatten(1), torch.tanh(tail).flatten(1)], 1)


@needs_coreai
@pytest.mark.slow
def test_other_operators_agree_with_pytorch(tmp_path: Path, tiny_spec: ExportSpec) -> None:
    torch.manual_seed(0)
    model, path = Assorted(), tmp_path / "assorted.aimodel"
    assert load_exporter("coreai").export(prepare(model, tiny_spec).graph, tiny_spec, path) == []
    image = torch.randn(1, 3, 14, 14)
    with torch.no_grad():
        np.testing.assert_allclose(load_runner(path).run(image.numpy()), model(image).numpy(), rtol=1e-3, atol=1e-5)


class Spread(nn.Module):
    """The variance of each channel, which the converter lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).var((2, 3))


class Uncounted(nn.Module):
    """Average pooling whose padding does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(self.conv(x), 3, 2, 1, count_include_pad=False).mean((2, 3))


@needs_coreai
@pytest.mark.slow
def test_pooling_that_the_converter_spells_wrongly_is_refused(tiny_spec: ExportSpec, tmp_path: Path) -> None:
    (result,) = export_files(Uncounted().eval(), tiny_spec, ["coreai"], ["fp32"], tmp_path)
    assert result.status == "refused"
    assert "as if padding counted" in result.reason


@needs_coreai
@pytest.mark.slow
def test_an_operator_that_the_converter_lacks_is_named(tiny_spec: ExportSpec, tmp_path: Path) -> None:
    (result,) = export_files(Spread().eval(), tiny_spec, ["coreai"], ["fp32"], tmp_path)
    assert result.status == "failed"
    assert "coreai-torch does not know aten.var.correction: other targets may" in result.reason
    assert list(tmp_path.iterdir()) == []


@needs_coreai
@pytest.mark.slow
def test_an_image_goes_in_as_pixels_and_probabilities_come_out(
    tiny: nn.Module, tiny_spec: ExportSpec, tmp_path: Path
) -> None:
    spec = tiny_spec.model_copy(update={"options": ExportOptions(image=True, softmax=True)})
    (result,) = export_files(tiny, spec, ["coreai"], ["fp32"], tmp_path)
    assert result.status == "exported", result.reason
    assert result.path is not None
    runner = load_runner(result.path)
    images = sample_images(spec, 2)
    found = runner.run(images)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-4)
    bare = shutil.copytree(result.path, tmp_path / "bare.aimodel")  # without its record
    with FileApart(bare) as file:
        np.testing.assert_allclose(file.run(images), found, rtol=1e-4, atol=1e-5)
        assert file.artifact.labels == tuple("abcdefghij")
