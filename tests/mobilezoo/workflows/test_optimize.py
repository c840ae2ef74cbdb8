"""The form of a file that is fastest on an emulated core: which changes are kept, and that the record tells."""

from pathlib import Path

import pytest
from torch import nn

import mobilezoo
from mobilezoo.artifacts import Artifact, Preprocessing, load_record_of
from mobilezoo.errors import ConfigError, UnknownNameError
from mobilezoo.workflows.optimize import LEAST_GAIN, PLAIN, Change, emulated_core, search_form
from mobilezoo_export import ExportOptions, ExportSpec, load_exporter
from mobilezoo_latency.emulator.layout import find_emulator, home

LAYOUT, CONCAT, SEGMENT, BROKEN = (
    Change(without="layout"),
    Change(without="concat"),
    Change(float_segment=3),
    Change(without="attention"),
)


@pytest.mark.parametrize(
    ("saves", "together", "best"),
    [
        ({}, {}, PLAIN),
        ({LAYOUT: -5.0, CONCAT: 0.1}, {}, PLAIN),  # 0.1 of 100 is below what block boundaries move
        ({LAYOUT: 3.0, CONCAT: 8.0}, {}, (CONCAT, LAYOUT)),
        ({LAYOUT: 3.0, CONCAT: 8.0}, {(CONCAT, LAYOUT): 7.0}, (CONCAT,)),  # what gains alone costs beside another
        ({LAYOUT: 3.0, SEGMENT: 2.0, CONCAT: 1.0}, {(LAYOUT, SEGMENT): None}, (LAYOUT, CONCAT)),  # out of tolerance
        ({BROKEN: None, LAYOUT: 1.0}, {}, (LAYOUT,)),
    ],
)
def test_changes_that_gain_are_combined_while_cycles_fall(saves, together, best):
    def cycles(changes: tuple[Change, ...]) -> float | None:
        if changes in together:
            saved = together[changes]
        else:
            each = [saves[change] for change in changes]
            saved = None if None in each else sum(each)
        return None if saved is None else 100.0 - saved

    found, fewest = search_form(cycles, 100.0, list(saves))
    assert found == best
    assert fewest == cycles(best)


@pytest.mark.parametrize(
    ("name", "target", "error", "words"),
    [
        ("host", "litert", ConfigError, "'host' is none: cortex_a53"),
        ("cortex_a99", "litert", UnknownNameError, "cortex_a76"),
        ("cortex_a76", "coreml", ConfigError, "not 'coreml': pass --to litert"),
    ],
)
def test_what_cannot_be_counted_is_one_line(name, target, error, words):
    with pytest.raises(error, match=words):
        emulated_core(name, (target,))


@pytest.mark.parametrize(
    ("target", "words"), [("onnx", "it has none"), ("executorch", "it has attention"), ("litert", None)]
)
def test_a_target_refuses_to_do_without_a_pass_that_it_has_not(target, words):
    spec = ExportSpec(
        model="m",
        resolution=(8, 8),
        preprocessing=Preprocessing(mean=(0, 0, 0), std=(1, 1, 1)),
        options=ExportOptions(without=("layout",)),
    )
    reason = load_exporter(target).unsupported_reason(nn.Identity(), spec)
    assert reason is None if words is None else reason is not None and words in reason


def test_two_searches_at_once_are_refused(tmp_path):
    if not (home() / "installed.json").is_file():
        pytest.skip("no emulator: run `mobilezoo device setup emulator`")
    find_emulator()
    with pytest.raises(ConfigError, match="leave one out"):
        mobilezoo.export("mnasnet_small", "default", "optimize_for=cortex_a76", "max_drop=1", out=tmp_path, to="litert")


@pytest.mark.slow
def test_the_record_names_the_form_and_its_gain(tmp_path: Path) -> None:
    if not (home() / "installed.json").is_file():
        pytest.skip("no emulator: run `mobilezoo device setup emulator`")
    (result,) = mobilezoo.export(
        "ghostnet_050", "default", "optimize_for=cortex_a76", "parity_images=4", out=tmp_path, to="litert"
    )
    assert result.path is not None
    form = load_record_of(Artifact, Path(result.path)).form
    assert form is not None
    assert form.device == "cortex_a76"
    assert form.plain_megacycles == form.tried["plain"]
    assert len(form.tried) > 1
    chosen = ", ".join(str(Change(without=name)) for name in form.without) or "plain"
    assert form.megacycles == form.tried[chosen]
    assert form.megacycles * (1 - 2 * LEAST_GAIN) < min(form.tried.values())  # a smaller gain is none
