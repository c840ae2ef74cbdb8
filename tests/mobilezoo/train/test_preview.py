"""`data.preview`: what the first epoch shows, the balance of classes, and generators left as they were."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mobilezoo.reading import read_json
from mobilezoo.report import ReportContents, build_report
from mobilezoo.train.assemble import assemble
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.preview import UNCOUNTED, class_counts, keep_preview
from mobilezoo.training_preview import TrainingPreview

BAD = "<script>alert(1)</script>"


def recipe(preview: int) -> TrainConfig:
    data = {"source": "digits", "batch_size": 8, "workers": 0, "preview": preview}
    return TrainConfig.parse({"model": "mnasnet_small", "data": data, "train": {"resolution": 32}})


def test_the_run_folder_keeps_what_the_first_epoch_shows(tmp_path: Path) -> None:
    config = recipe(10)
    state = assemble(config)
    drawn = torch.default_generator.get_state()
    keep_preview(tmp_path, config, state)
    assert torch.equal(torch.default_generator.get_state(), drawn)
    preview = TrainingPreview.parse(read_json(tmp_path / "preview.json"))
    first, labels = next(state.train_batches.epoch(0))
    pixels = (first[0].permute(1, 2, 0) * torch.tensor(state.prep.std) + torch.tensor(state.prep.mean)) * 255
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(preview.samples[0].jpeg))))
    assert shown.shape == (96, 96, 3)  # three pixels for one
    assert np.abs(shown[1::3, 1::3] - pixels.numpy()).mean() < 4
    assert len(preview.samples) == 10
    assert [one.label for one in preview.samples[:8]] == [state.labels[label] for label in labels]
    assert sum(one.train for one in preview.classes) == 1437
    assert sum(one.validation for one in preview.classes) == 360
    assert preview.classes[0].train == 142
    keep_preview(tmp_path / "none", recipe(0), state)
    assert not (tmp_path / "none").exists()


def test_the_page_shows_it_escaped(tmp_path: Path) -> None:
    preview = TrainingPreview.parse(
        {
            "source": BAD,
            "samples": [{"label": BAD, "jpeg": "AAAA"}],
            "classes": [{"label": BAD, "train": 3, "validation": 1}, {"label": "b", "train": 9, "validation": 2}],
            "note": UNCOUNTED,
        }
    )
    page = build_report(tmp_path / "r.html", ReportContents(title="x", previews=[("run", preview)])).read_text()
    assert BAD not in page
    assert "9 training images in the largest class, 3 in the smallest" in page
    figure = json.loads(page.partition('id="figures">')[2].partition("</script>")[0])["balance-0"]
    assert [trace["y"] for trace in figure["data"]] == [[9, 3], [2, 1]]


def test_classes_that_only_reading_tells_are_not_counted() -> None:
    assert class_counts(object()) is None
