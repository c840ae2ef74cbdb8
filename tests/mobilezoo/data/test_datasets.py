"""Sources open with their classes; broken ones are named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mobilezoo.artifacts import Preprocessing
from mobilezoo.data import Augment, DataConfig, open_data, sample_batch, train_loader
from mobilezoo.errors import DataError, MobilezooError

PREP = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CPU = torch.device("cpu")


def image_folder(root: Path, classes: int = 2, images: int = 6) -> Path:
    """An ImageNet-style folder of small real digit scans."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for split in ("train", "validation"):
        for label in range(classes):
            folder = root / split / f"digit_{label}"
            folder.mkdir(parents=True)
            picked = digits.images[digits.target == label][:images]
            for index, pixels in enumerate(picked):
                Image.fromarray((pixels * 15).astype("uint8")).convert("RGB").save(folder / f"{index}.png")
    return root


def test_digits_split_is_a_stratified_fifth_and_disjoint() -> None:
    fit, held_out = (open_data(DataConfig(source="digits"), train).dataset for train in (True, False))
    assert (len(fit), len(held_out)) == (1437, 360)
    assert not set(fit.indices) & set(held_out.indices)
    counts = np.bincount([held_out.targets[i] for i in held_out.indices])
    assert counts.min() >= 34


def test_a_folder_gives_its_classes_in_order(tmp_path: Path) -> None:
    data = open_data(DataConfig(source=f"folder:{image_folder(tmp_path, 3)}"), train=False)
    assert data.labels == ("digit_0", "digit_1", "digit_2")
    assert len(data.dataset) == 18


def test_the_same_seed_gives_the_same_epoch() -> None:
    config = DataConfig(source="digits", workers=0, batch_size=32, augment=Augment(auto_augment="rand-m9-mstd0.5"))
    data = open_data(config, train=True)
    loader = train_loader(config, data, 32, PREP, CPU, seed=3)

    def first_batch() -> torch.Tensor:
        return next(loader.epoch(1))[0]

    assert torch.equal(first_batch(), first_batch())


def test_repeated_augmentation_shows_an_image_several_times() -> None:
    config = DataConfig(source="digits", workers=0, batch_size=32, augment=Augment(repeats=3))
    data = open_data(config, train=True)
    loader = train_loader(config, data, 32, PREP, CPU)
    assert loader.order is not None
    order = [key.image for batch in loader.order for key in batch]
    assert max(np.bincount(order)) == 3


def test_multi_scale_batches_take_the_named_sizes() -> None:
    config = DataConfig(source="digits", workers=0, batch_size=32, augment=Augment(sizes=(32, 64)))
    data = open_data(config, train=True)
    sizes = {x.shape[-1] for x, _ in train_loader(config, data, 48, PREP, CPU).epoch(0)}
    assert sizes == {32, 64}


def test_sample_batch_is_float_nchw_and_repeats() -> None:
    a, b = (sample_batch(DataConfig(source="digits"), 32, PREP, 16) for _ in range(2))
    assert a.shape == (16, 3, 32, 32)
    assert a.dtype == np.float32
    assert np.array_equal(a, b)


def test_an_unreadable_image_is_named_or_counted(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    broken = root / "train" / "digit_0" / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    stop = open_data(DataConfig(source=f"folder:{root}"), train=True)
    with pytest.raises(DataError, match=r"0\.png.*on_bad_image=skip"):
        _ = [stop.dataset[i] for i in range(len(stop.dataset))]
    skip = open_data(DataConfig(source=f"folder:{root}", on_bad_image="skip"), train=True)
    assert len([skip.dataset[i] for i in range(len(skip.dataset))]) == 12
    assert int(skip.bad_images) == 1


def test_unreadable_images_are_counted_across_loader_processes(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / "train" / "digit_1" / "2.png").write_bytes(b"not an image")
    config = DataConfig(source=f"folder:{root}", on_bad_image="skip", workers=2, batch_size=4)
    data = open_data(config, train=True)
    assert len(list(train_loader(config, data, 32, PREP, CPU).epoch(0))) == 3
    assert int(data.bad_images) >= 1


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("folder:/nowhere/at/all", "not found"),
        ("digit", "did you mean digits"),
        ("hfds/", "cannot open"),
    ],
)
def test_a_missing_source_is_one_line(source: str, expected: str) -> None:
    with pytest.raises(MobilezooError, match=expected):
        open_data(DataConfig(source=source), train=True)


def test_one_class_no_images_and_no_split_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split folder"):
        open_data(DataConfig(source=f"folder:{tmp_path}"), train=True)
    (tmp_path / "train" / "only").mkdir(parents=True)
    with pytest.raises(DataError, match=r"class folder 'only' of .* holds no images: add some, or remove it"):
        open_data(DataConfig(source=f"folder:{tmp_path}"), train=True)
    Image.new("L", (4, 4)).save(tmp_path / "train" / "only" / "1.png")
    with pytest.raises(DataError, match=r"1 class folder.*at least two"):
        open_data(DataConfig(source=f"folder:{tmp_path}"), train=True)
