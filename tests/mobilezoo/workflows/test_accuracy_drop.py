"""A file that costs a trained network more than a point of top-1 is warned of; what chance explains is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mobilezoo.artifacts import Artifact, Top1Drop, load_record_of
from mobilezoo.data import DataConfig, open_data
from mobilezoo.errors import ConfigError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.workflows.accuracy_drop import Held, warning_of, with_top1_drops
from mobilezoo.workflows.export import export_network, spec_of
from mobilezoo.workflows.export_images import export_images
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.load_model import LoadedModel
from mobilezoo_export import ExportConfig

DIGITS = DataConfig(source="digits", workers=0)
INT8 = ExportConfig(targets=("onnx",), precisions=("int8",))


def drop(images: int, lost: int, won: int) -> Top1Drop:
    pytorch, file = np.ones(images, bool), np.ones(images, bool)
    file[:lost], pytorch[lost : lost + won] = False, False
    return Top1Drop.of(pytorch, file, "given images")


def test_a_drop_is_counted_in_pairs() -> None:
    found = drop(200, 7, 1)
    assert (found.lost, found.won, found.points) == (7, 1, 3.0)
    assert found.top1_pytorch - found.top1 == pytest.approx(found.points)
    assert found.p_value == pytest.approx(9 / 256)  # 7 or 8 heads of 8 tosses
    assert drop(10, 0, 0).p_value == 1


@pytest.mark.parametrize(
    ("images", "lost", "won", "warned"),
    [
        (334, 19, 5, True),
        (64, 3, 0, False),  # 4.7 points, and no proof
        (64, 7, 0, True),
        (5000, 45, 0, False),  # proven, and below a point
        (1000, 60, 45, False),
    ],
)
def test_few_images_give_no_alarm_and_many_do(images: int, lost: int, won: int, warned: bool) -> None:
    lines = warning_of(drop(images, lost, won), "executorch", "int8")
    assert bool(lines) == warned
    assert all("--max-drop 1" in line for line in lines)
    assert not any("w8a16" in line for line in lines), "executorch has none"


def test_the_remedy_names_16_bit_activations_where_the_target_has_them() -> None:
    assert (
        "--max-drop 1 keeps parts of it in float, --precision w8a16" in warning_of(drop(64, 7, 0), "litert", "int8")[0]
    )
    assert warning_of(drop(64, 7, 0), "litert", "w8a16")[0].endswith(": take another precision")


def test_files_equally_good_are_rarely_warned_of() -> None:
    generator = np.random.default_rng(0)
    flips = generator.binomial(12, 0.5, size=2000)
    assert np.mean([drop(300, int(lost), 12 - int(lost)).too_large for lost in flips]) < 0.01


class Reader(nn.Module):
    """A linear classifier of digits; its scores of two classes can be swapped."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 10)
        self.eval()

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(x_bchw.flatten(1))
        return scores

    def fit(self, x_bchw: torch.Tensor, y_b: torch.Tensor) -> "Reader":
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(self(x_bchw), y_b).backward()
            optimizer.step()
        return self


@pytest.fixture(scope="module")
def trained() -> LoadedModel:
    prep = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0)
    data = open_data(DIGITS, train=False)
    from mobilezoo.data import eval_loader

    batches = list(eval_loader(DIGITS, data, 8, prep, torch.device("cpu")))
    x_bchw, y_b = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return LoadedModel(
        network=Reader().fit(x_bchw, y_b),
        name="reader",
        resolution=(8, 8),
        in_chans=3,
        preprocessing=prep,
        labels=data.labels,
        data=DIGITS,
        random_weights=False,
        checkpoint=None,
    )


@pytest.mark.slow
def test_a_file_that_confuses_two_classes_is_warned_of_and_a_sound_one_is_not(
    trained: LoadedModel, tmp_path: Path
) -> None:
    (sound,) = export_network(trained, INT8, tmp_path, isolate=False)
    assert sound.artifact is not None, sound.reason
    found = sound.artifact.top1_drop
    assert found is not None
    assert found.images == 360 - 64
    assert abs(found.points) < 2
    assert not sound.warnings
    assert load_record_of(Artifact, tmp_path / "reader.int8.onnx").top1_drop == found

    swapped = Reader()
    swapped.load_state_dict(trained.network.state_dict())
    order = [0, 1, 2, 8, 4, 5, 6, 7, 3, 9]
    swapped.head.weight.data, swapped.head.bias.data = swapped.head.weight[order], swapped.head.bias[order]
    better = replace(trained, network=swapped)
    (wrong,) = export_network(better, INT8.model_copy(update={"scored_images": 0}), tmp_path / "w", isolate=False)
    images = export_images(trained, spec_of(trained), INT8, SILENT)
    (warned,) = with_top1_drops(trained, INT8, images, [wrong], SILENT)
    assert any("onnx int8 costs" in line for line in warned.warnings)


def test_images_that_were_calibrated_on_are_not_scored(trained: LoadedModel) -> None:
    held = Held(trained, INT8, DIGITS)
    assert len(held.positions) == len(set(held.positions)) == 360 - 64
    assert 0 not in held.positions
    right = held.by_pytorch()
    assert right.mean() > 0.8


@pytest.mark.slow
def test_classes_that_do_not_agree_are_a_line_and_no_failure(trained: LoadedModel, tmp_path: Path) -> None:
    others = replace(trained, labels=tuple("abcdefghij"))
    images = export_images(trained, spec_of(trained), INT8, SILENT)
    lines: list[str] = []
    from mobilezoo_export import ExportResult

    failed = ExportResult(target="onnx", precision="int8", status="failed")
    hooks = Hooks(on_message=lines.append)
    assert with_top1_drops(others, INT8, images, [failed], hooks) == [failed]
    assert not lines  # nothing to score, nothing to complain of
    (made,) = export_network(trained, INT8.model_copy(update={"scored_images": 0}), tmp_path, isolate=False)
    assert with_top1_drops(others, INT8, images, [made], hooks) == [made]
    (line,) = lines
    assert "what its files cost in top-1 is not measured" in line


@pytest.mark.slow
def test_other_precisions_are_made_beside_int8_within_a_limit(trained: LoadedModel, tmp_path: Path) -> None:
    config = INT8.model_copy(update={"precisions": ("fp32", "int8", "w8a16"), "max_drop": 50.0})
    plain, mixed, wide = export_network(trained, config, tmp_path, isolate=False)
    assert [one.precision for one in (plain, mixed, wide)] == ["fp32", "int8", "w8a16"]
    assert mixed.mixed is not None
    assert mixed.mixed.float_segments == ()
    assert plain.mixed is wide.mixed is None
    assert wide.artifact is not None, wide.reason
    assert wide.artifact.top1_drop is not None
    with pytest.raises(ConfigError, match=r"got 'fp32,w8a16': add --precision int8"):
        export_network(trained, config.model_copy(update={"precisions": ("fp32", "w8a16")}), tmp_path)
