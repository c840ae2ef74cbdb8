"""Any network of timm trains like the zoo's, from its own weights when asked, and its checkpoint serves everywhere."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from mobilezoo import hub
from mobilezoo.artifacts import Artifact, Checkpoint, load_record_of
from mobilezoo.config import load_record
from mobilezoo.errors import ConfigError, UnknownNameError
from mobilezoo.train import trainer
from mobilezoo.train.config import TrainConfig
from mobilezoo.workflows.evaluate import Loading, evaluate
from mobilezoo.workflows.export import export_network
from mobilezoo.workflows.load_model import load_model
from mobilezoo.workflows.model_options import ModelOptions
from mobilezoo.workflows.report import write_report
from mobilezoo.workflows.train import train
from mobilezoo_export import ExportConfig

NAME = "mobilenetv3_small_050"


def recipe(folder: Path, *overrides: str) -> TrainConfig:
    path = folder / "tuned.yaml"
    path.write_text(
        f"model: timm:{NAME}\n"
        "data: {source: digits, batch_size: 64, workers: 0, augment: {hflip: 0.0}}\n"
        "train: {epochs: 1, device: cpu, resolution: 32, schedule: {warmup_epochs: 0}}\n"
    )
    return load_record(TrainConfig, path, overrides)


def stand_in(folder: Path, name: str = NAME) -> str:
    """Weights where the hub would have them; returns the override that says so."""
    torch.manual_seed(5)
    save_file(timm.create_model(name).state_dict(), folder / "pretrained.safetensors")
    return f"model_args.pretrained_cfg_overlay={{file: {folder / 'pretrained.safetensors'}}}"


@pytest.mark.slow
def test_a_tuned_network_starts_from_timms_weights_and_serves_everywhere(tmp_path: Path) -> None:
    config = recipe(tmp_path, "pretrained=true", "tune=linear", stand_in(tmp_path), "model_args.global_pool=max")
    run = tmp_path / "run"
    record = trainer.train(config, run, show_progress=False)
    assert (record.model, record.num_classes, record.resolution) == (f"timm:{NAME}", 10, (32, 32))
    assert record.model_args == {"global_pool": "max"}
    before, after = load_file(tmp_path / "pretrained.safetensors"), load_file(run / "best.safetensors")
    assert all(torch.equal(after[key], before[key]) for key in before if not key.startswith("classifier"))
    loaded = load_model(str(run / "best.safetensors"))
    assert loaded.network.global_pool.pool_type == "max"  # type: ignore[union-attr]
    scores = evaluate(str(run / "best.safetensors"), "digits", ModelOptions(), loading=Loading(64, 0))
    assert scores.top1 == pytest.approx(record.top1)
    (exported,) = export_network(
        loaded,
        ExportConfig(targets=("onnx",), precisions=("fp32",), overwrite=True, parity_images=8),
        run / "export",
        isolate=False,
    )
    assert exported.path == str(run / "export" / f"{NAME}.fp32.onnx")
    assert load_record_of(Artifact, exported.path).model == f"timm:{NAME}"
    of_file = evaluate(exported.path, "digits", ModelOptions(), loading=Loading(64, 0))
    assert of_file.pytorch.top1 == pytest.approx(record.top1)
    assert "timm:mobilenetv3_" in write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    shared = timm.create_model(
        f"local-dir:{hub.write_folder(run / 'best.safetensors', tmp_path / 'hub')}", pretrained=True
    )
    x_bchw = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(shared.eval()(x_bchw), loaded.network(x_bchw))


def test_the_run_folder_of_a_timm_network_has_a_name_that_a_folder_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path)
    override = ("name=null", "train.resolution=32", "model=timm:test_vit")
    record = train("tuned.yaml", override)
    assert Path(record.path).parent.parent == Path("runs")
    assert ":" not in record.path
    saved = load_record_of(Checkpoint, record.path)
    assert load_model(record.path).resolution == saved.resolution == (32, 32)  # a network of one size


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=timm:mobilenetv3_smal_050"], "did you mean mobilenetv3_small_050"),
        (["model=timm:resnet18.nobodys"], "Invalid pretrained tag"),
        (["model=timm:test_vit", "train.resolution=33"], "33"),
        (["model=davit_3m", "pretrained=true"], "never published; there are some of davit_tiny"),
        (["pretrained=true", "checkpoint=x.pth"], "checkpoint=PATH or pretrained=true, not both"),
        (
            ["pretrained=true", "model_args.pretrained_cfg_overlay={file: nowhere.pth}"],
            "weights cannot be loaded: FileNotFoundError",
        ),
        (["model_args.nonsense=3"], "cannot be built so: .*nonsense"),
    ],
)
def test_what_cannot_be_tuned_is_one_line_and_leaves_nothing(tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=said) as caught:
        trainer.train(recipe(tmp_path, *overrides), tmp_path / "run", show_progress=False)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()
