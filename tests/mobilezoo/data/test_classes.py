"""The data's classes find their outputs, or nothing is scored and the line says what to do."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mobilezoo.data.classes import place_classes, placed
from mobilezoo.errors import ConfigError, MobilezooError, UnknownNameError
from mobilezoo.models import create_model
from mobilezoo.workflows.evaluate import Loading, evaluate
from mobilezoo.workflows.model_options import ModelOptions

FISH = ("n01440764", "n01443537", "n01484850")
"""Tench, goldfish and great white shark: outputs 0, 1 and 2 of ImageNet-1k."""


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_equal_counts_without_names_and_equal_names_are_taken_as_they_are() -> None:
    assert place_classes(("a", "b"), 2) == ((0, 1), "")
    assert place_classes(("a", "b"), 2, ("a", "b")) == ((0, 1), "")


def test_other_counts_are_refused_and_the_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'net' answers with 1000 classes, the data has 2 \('a', 'b'\).*--classes"):
        place_classes(("a", "b"), 1000, whose="net")


@pytest.mark.parametrize(
    ("data", "first"),
    [
        (("a", "c", "b"), r"class 1, 'b' there and 'c' here"),
        (("a", "b"), r"class 2, 'c' there and missing here: pass --classes labels"),
        (("a", "b", "c", "d"), r"class 3, missing there and 'd' here"),
    ],
)
def test_other_names_are_refused_and_the_first_difference_is_named(data: tuple[str, ...], first: str) -> None:
    with pytest.raises(ConfigError, match=first):
        place_classes(data, 3, ("a", "b", "c"))


def test_labels_places_a_subset_by_name() -> None:
    assert place_classes(("c", "a"), 3, ("a", "b", "c"), "labels").outputs == (2, 0)
    with pytest.raises(ConfigError, match="does not have 1 of the data's classes \\('z'\\)"):
        place_classes(("z",), 3, ("a", "b", "c"), "labels")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (["b", "x", "a", None], (2, 0)),
        ([1, None, 0, None], (2, 0)),
        ({"a": 2, "b": 0}, (2, 0)),
        ({"a": 3, "b": 3, "other": 0}, (3, 3)),
        ({"0": "b", "1": "x", "2": "a", "3": "y"}, (2, 0)),
        ({"0": ["b", "word"], "1": ["x", "x"], "2": ["a", "w"], "3": ["y", "w"]}, (2, 0)),
    ],
)
def test_a_json_map_names_outputs_or_classes(tmp_path: Path, content: object, expected: tuple[int, ...]) -> None:
    assert place_classes(("a", "b"), 4, given=write(tmp_path / "map.json", content)).outputs == expected


def test_a_text_map_has_a_line_per_output_with_names_or_indices(tmp_path: Path) -> None:
    assert place_classes(("a", "b"), 3, given=write(tmp_path / "m.txt", "b\nbackground\na\n")).outputs == (2, 0)
    assert place_classes(("a", "b"), 3, given=write(tmp_path / "m.txt", "\ufeff1\n\n0\n")).outputs == (2, 0)
    # Folders called by numbers: the names win.
    assert place_classes(("1", "2"), 3, given=write(tmp_path / "m.txt", "2\n0\n1\n")).outputs == (2, 0)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("m.txt", "a\nb\n", "lists 2 classes, the network has 3 outputs"),
        ("m.txt", "a\na\nb\n", "has 'a' twice, as outputs 0 and 1"),
        ("m.txt", "a\nx\ny\n", r"does not have 1 of the data's classes \('b'\)"),
        ("m.json", {"a": 0, "b": 3}, "puts 'b' at output 3, the network has 3"),
        ("m.json", {"a": 0, "b": -1}, "outputs count from 0, got -1"),
        ("m.json", {"a": "x", "b": 1}, "is no class map"),
        ("m.json", {"0": "a", "7": "b"}, "is no class map"),
        ("m.json", [["a"], 1, 2], "is no class map"),
        ("m.json", 7, "is no class map"),
        ("m.json", "{", "JSON"),
        ("m.csv", "a,b", r"a \.json or \.txt file, labels, or one of imagenet-1k"),
    ],
)
def test_a_bad_map_is_one_line(tmp_path: Path, name: str, content: object, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        place_classes(("a", "b"), 3, given=write(tmp_path / name, content))


def test_a_missing_map_and_an_unknown_list_are_named() -> None:
    with pytest.raises(MobilezooError, match="class map not found"):
        place_classes(("a",), 3, given="nowhere.txt")
    with pytest.raises(UnknownNameError, match="imagenet-1k"):
        place_classes(("a",), 3, given="imagenet1k")


def test_imagenet_classes_are_found_by_id_and_by_name() -> None:
    found = place_classes((FISH[2], FISH[0]), 1000)
    assert found.outputs == (2, 0)
    assert "2 classes of the data found by WordNet id among the 1000 of imagenet-1k" in found.note
    assert place_classes((FISH[2], FISH[0]), 1001).outputs == (3, 1)
    assert place_classes(("Great_White-Shark", "goldfish"), 1000).outputs == (2, 1)
    assert place_classes(FISH, 1000, given="imagenet-1k").outputs == (0, 1, 2)
    # Other lists of ImageNet order the same classes otherwise.
    assert place_classes(FISH, 11821, given="imagenet-12k").outputs != (0, 1, 2)


def test_ambiguous_or_unknown_imagenet_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="'crane'"):  # the bird, and the machine
        place_classes(("crane",), 1000, given="imagenet-1k")
    with pytest.raises(ConfigError, match="answers with 1000 classes, the data has 2"):
        place_classes(("goldfish", "my neighbour"), 1000)
    with pytest.raises(ConfigError, match="the list has 1000 classes, the network 10 outputs"):
        place_classes(("goldfish",), 10, given="imagenet-1k")
    with pytest.raises(ConfigError, match=r"'goldfish'.*same class"):
        place_classes((FISH[1], "goldfish"), 1000, given="imagenet-1k")


def test_placed_batches_carry_the_output_of_each_class() -> None:
    batches = [(torch.zeros(3, 1), torch.tensor([0, 1, 0]))]
    ((_, y),) = placed(batches, place_classes(("a", "b"), 3, ("b", "x", "a"), "labels"))
    assert y.tolist() == [2, 0, 2]


def test_a_network_of_1000_classes_is_scored_on_a_subset_named_by_wordnet_ids(tmp_path: Path) -> None:
    for name in (FISH[1], FISH[2]):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "val" / name / "0.png")
    network = create_model("mnasnet_small")
    head = network.get_classifier()
    torch.nn.init.zeros_(head.weight)
    head.bias.data = torch.linspace(1, 0, 1000)  # whatever it sees, output 0 first, then 1, 2, …
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    weights = ModelOptions(checkpoint=tmp_path / "w.safetensors")
    result = evaluate("mnasnet_small", f"folder:{tmp_path}", weights, loading=Loading(2, 0))
    assert (result.top1, result.top5) == (0, 100)
    swapped = write(tmp_path / "map.json", {FISH[1]: 0, FISH[2]: 999})
    result = evaluate("mnasnet_small", f"folder:{tmp_path}", weights, loading=Loading(2, 0), classes=swapped)
    assert (result.top1, result.top5) == (50, 50)


def test_labels_that_are_imagenets_in_another_order_are_refused() -> None:
    from timm.data import ImageNetInfo

    names = ImageNetInfo("imagenet-1k").label_descriptions()
    known = place_classes(FISH, 1001, ("background", *names), "imagenet-1k")
    assert known.outputs == (1, 2, 3)
    with pytest.raises(ConfigError, match="the classes of imagenet-1k in another order, output 0 is 'tench"):
        place_classes(FISH, 1001, (*names, "background"), "imagenet-1k")
    with pytest.raises(ConfigError, match="pass --classes imagenet-1k if these are its classes"):
        place_classes(FISH, 1001, ("background", *names))
