"""Model cards: valid front matter, every record shown, and nothing of a stranger's string left alive."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file

import mobilezoo
from mobilezoo import hub
from mobilezoo.artifacts import Artifact, Checkpoint, InputSpec, Origin, Parity, UnitCheck, save_json, save_record
from mobilezoo.cli.main import main
from mobilezoo.errors import MobilezooError, UnknownNameError
from mobilezoo.files import sha256_of
from mobilezoo.latency_report import Counts, DeviceInfo, Estimate, LatencyReport, Protocol
from mobilezoo.models import load_model_config
from mobilezoo.models.base import FAMILIES, family_module
from mobilezoo.models.latency_table import read_latencies
from mobilezoo.models.papers import PAPERS, papers_of
from mobilezoo.report.model_card.contents import CardContents, data_name
from mobilezoo.report.model_card.front_matter import front_matter, hub_license
from mobilezoo.report.model_card.latency import latency_section
from mobilezoo.report.model_card.loading import loading_section
from mobilezoo.report.model_card.markdown import code, link, literal, plain, table
from mobilezoo.report.model_card.page import _license
from mobilezoo.workflows.card import card_of
from mobilezoo.workflows.report import write_report

MODEL = "mnasnet_a1_035"
EVIL = "a|b\n---\n# <script>x</script> [y](http://evil) `z` ![i](javascript:k) https://evil www.evil \u202e $x$"
PREP = load_model_config(MODEL).preprocessing()


@pytest.fixture(autouse=True)
def _no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILEZOO_LATENCY_DB", str(tmp_path / "none.db"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A run folder: weights of three classes, two files made of them, two latencies of the first."""
    path = tmp_path / "run" / "best.safetensors"
    path.parent.mkdir()
    torch.manual_seed(0)
    save_file(mobilezoo.create_model(MODEL, num_classes=3).state_dict(), path)
    record = Checkpoint(
        path=path.name,
        sha256=sha256_of(path),
        model=MODEL,
        num_classes=3,
        resolution=(40, 40),
        preprocessing=PREP,
        labels=("cat", EVIL, "no"),
        data={"source": "folder:/home/somebody/secret/pets"},
        epoch=4,
        top1=91.25,
        origin=Origin(name=f"{MODEL}.in1k", address="https://example.org/w.pth", sha256=None, license="Odd license"),
    )
    save_record(path, record)
    for number, precision in enumerate(("fp32", "int8")):
        _exported(path, precision, number)
    return path


def _exported(weights: Path, precision: str, number: int, of: str | None = None) -> Artifact:
    """A record of a file made of the weights; its contents do not matter to a card."""
    file = weights.parent / "export" / f"{MODEL}.{precision}.tflite"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(bytes([number]) * 2_000_000)
    parity = Parity(
        inputs="validation images", images=64, max_abs=1e-5, relative=3.2e-6, snr_db=118.4, top1_agreement=0.984,
        tolerance=1e-4, ran_in="LiteRT 2.3.0 (XNNPACK)",
    )  # fmt: skip
    checks = (
        UnitCheck(unit="cpu", status="passed"),
        UnitCheck(unit="npu", status="refused", reason="no <b>NPU</b> kernel | CUMSUM", outside={"CUMSUM": 2}),
    )
    artifact = Artifact(
        path=file.name,
        sha256=sha256_of(file),
        target="litert",
        precision=precision,
        model=MODEL,
        input=InputSpec(shape=(1, 40, 40, 3), layout="NHWC"),
        preprocessing=PREP,
        labels=("cat", EVIL, "no"),
        size_bytes=2_000_000,
        parity=parity,
        checks=checks,
        checkpoint="../best.safetensors",
        checkpoint_sha256=of or sha256_of(weights),
        tools={},
    )
    save_record(file, artifact)
    return artifact


def _latency(artifact: Artifact, device: DeviceInfo, **more: object) -> LatencyReport:
    plain: dict[str, object] = {
        "artifact_sha256": artifact.sha256, "artifact": artifact.path, "target": artifact.target,
        "precision": artifact.precision, "model": MODEL, "device": device, "protocol": Protocol(),
        "samples_ms": (2.0, 2.5, 3.0), "load_ms": None, "first_run_ms": None, "sentinel_before_ms": None,
        "sentinel_after_ms": None, "measured_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return LatencyReport.model_validate(plain | more)


def test_a_checkpoints_card_has_valid_front_matter_and_every_record(checkpoint: Path) -> None:
    artifact = _exported(checkpoint, "fp32", 0)
    phone = DeviceInfo(name="Pixel <9>", kind="phone", runtime="LiteRT 2.3.0")
    core = DeviceInfo(name="cortex_a76", kind="emulated", runtime="LiteRT 2.3.0")
    estimate = Estimate(latency_ms=3.36, low_ms=3.1, high_ms=3.6, error_percent=7.7, basis="12 networks, Pixel 4")
    counted = {"samples_ms": (), "counts": Counts(instructions=9, cycles=4.0), "estimate": estimate}
    folder = checkpoint.parent / "latency"
    save_json(folder / "a.latency.json", _latency(artifact, phone, noisy=("throttled",)))
    save_json(folder / "b.latency.json", _latency(artifact, core, **counted))
    save_json(folder / "c.latency.json", _latency(artifact, phone, artifact_sha256="0" * 64, samples_ms=(77.0,)))
    text = card_of(str(checkpoint), repo="me/pets")
    found = ModelCard(text).data
    assert found.license == "other"
    assert (found.license_name, found.license_link) == ("Odd license", "https://example.org/w.pth")
    assert (found.library_name, found.pipeline_tag) == ("timm", "image-classification")
    assert found.tags == ["mobilezoo", "timm", "image-classification", "tflite", "int8"]
    (result,) = found.eval_results
    assert (result.metric_value, result.dataset_name) == (91.25, "pets (folder), validation split")
    assert "secret" not in text, "where the images lie is nobody's business"
    assert 'timm.create_model("hf-hub:me/pets", pretrained=True)' in text
    assert "mobilezoo predict runs/pulled/pets.safetensors photo.jpg" in text
    assert "3.2e-06 | 118 | 98.4 | 64 (validation images)" in text
    assert "| ✓ passed | ✗ refused, 2 operators on the CPU |" in text
    measured, estimated = text.index("### Phones (measured)"), text.index("### Emulated or estimated (not measured)")
    assert "| litert fp32 | Pixel &lt;9&gt; | LiteRT 2.3.0 | 1 | 2.5 |" in text[measured:estimated]
    assert "noisy: throttled" in text[measured:estimated]
    assert "| cortex\\_a76 (emulated) | LiteRT 2.3.0 | ≈ 3.36 | 3.1..3.6 | ±7.7% | 12 networks, Pixel 4 |" in text
    assert "77" not in text[measured:], "a latency of another file"
    assert "measured on no phone" not in text
    assert "top-1 91.25%" in text.lower()


def test_foreign_strings_become_text(checkpoint: Path) -> None:
    text = card_of(str(checkpoint))
    body = text.partition("\n---\n")[2]
    outside = re.sub(r"^```.*?^```", "", body, flags=re.M | re.S)
    assert "script" in outside
    for alive in ("<script", "](http://evil)", "![i]", "\u202e", "\n# <", "`z`", " https://evil", "www.evil", " $x$"):
        assert alive not in outside, alive
    rows = [line for line in outside.splitlines() if line.startswith("| ")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in rows if "tflite" in line}
    assert widths == {11}, "a | in a reason makes no cell"
    assert table(("a", "b (ms)"), [(EVIL, None)]).count("\n") == 2
    assert code("sh", "x\n````\ny").startswith("`````sh\n")
    assert link("javascript:alert(1)", "a") == "a"
    assert link("https://x.org/a)b", "a") == "a"
    assert plain("a_b*c") == r"a\_b\*c"


@pytest.mark.slow
def test_files_of_earlier_weights_and_changed_files_are_left_out(checkpoint: Path) -> None:
    _exported(checkpoint, "fp32", 0, of="0" * 64)
    (checkpoint.parent / "export" / f"{MODEL}.int8.tflite").write_bytes(b"other")
    said: list[str] = []
    place = mobilezoo.card(checkpoint, hooks=mobilezoo.Hooks(on_warning=said.append))
    assert place == checkpoint.with_name("best.card.md")
    assert "Files and parity" not in place.read_text()
    assert len(said) == 2
    assert any("made of earlier weights" in line for line in said)


def test_a_files_card_names_its_input_and_its_formats_library(checkpoint: Path) -> None:
    file = checkpoint.parent / "export" / f"{MODEL}.int8.tflite"
    text = card_of(str(file))
    data = ModelCard(text).data
    assert (data.library_name, data.eval_results) == ("tflite", None)
    assert "The input is float32, NHWC, 1x40x40x3." in text
    assert f"mobilezoo predict {file.name} photo.jpg" in text
    assert "timm.create_model" not in text


@pytest.mark.slow
def test_a_networks_card_has_its_published_weights_and_papers(tmp_path: Path) -> None:
    text = card_of("shvit_s1")
    data = ModelCard(text).data
    assert data.datasets == ["ILSVRC/imagenet-1k"]
    assert data.license == "mit"
    assert "pretrained=True" in text
    assert "arxiv.org/abs/2401.16456" in text
    assert "author = {Yun, Seokju and others}" in text
    untrained = card_of(MODEL)
    assert ("pretrained" in untrained) == bool(load_model_config(MODEL).weights)


def test_every_family_has_papers_and_they_are_those_that_its_module_names() -> None:
    for family in set(FAMILIES.names()) - {"timm", "supernet"}:  # the latter once a search was opened
        told = family_module(family).__doc__ or ""
        for _, paper in PAPERS[family]:
            assert paper.arxiv in told or paper.arxiv == "1910.03151", (family, paper.arxiv)
            assert re.fullmatch(r"@\w+\{[a-z]+20\d\d[a-z0-9]+,\n(  \w+ = \{.*\},\n)+\}", paper.bibtex()), paper.bibtex()
    assert [p.arxiv for p in papers_of(load_model_config("mobilenext_ca_100"))] == ["2007.02269", "2103.02907"]


def test_estimates_that_come_with_the_zoo_are_named_so() -> None:
    rows = [row for row in read_latencies().rows if row.latency_ms][:2]
    shown = latency_section([], rows)
    assert "### Emulated or estimated (not measured)" in shown
    assert all(f"| litert {row.precision} | {plain(row.device)} (emulated) |" in shown for row in rows)
    assert "(measured)" not in shown


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("digits", "digits"),
        ("folder:/home/me/secret/pets", "pets (folder)"),
        ("hfds/owner/pets", "hfds/owner/pets"),
        ("hfds//home/me/secret/pets", "pets (hfds)"),
        ("hfds/~/secret/pets", "pets (hfds)"),
        ("wds/home/me/secret/pets", "pets (wds)"),
        ("wds//home/me/secret/pipe:cat /home/pets", "pets (wds)"),
        ("torch/cifar10", "torch/cifar10"),
    ],
)
def test_of_training_data_only_the_last_folder_is_named(source: str, name: str) -> None:
    assert data_name(source) == name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("MIT (repository)", {"license": "mit"}),
        ("apache-2.0 (timm card)", {"license": "apache-2.0"}),
        ("none stated for weights (torchvision: BSD-3-Clause)", {"license": "unknown"}),
        ("Apple sample code license", {"license": "other", "license_name": "Apple sample code license"}),
        ("cc-by-nc-4.0", {"license": "cc-by-nc-4.0"}),
        ("unknown", {"license": "unknown"}),
        ("MITRE license", {"license": "other", "license_name": "MITRE license"}),
        ("", {}),
    ],
)
def test_licenses_by_the_hubs_identifiers(words: str, expected: dict[str, str]) -> None:
    assert hub_license(words) == expected


def _of_weights(*licenses: str) -> CardContents:
    weights = [SimpleNamespace(tag="x", name="x", file=SimpleNamespace(license=one, top1=None)) for one in licenses]
    return CardContents(
        kind="network", name="x", source="x.yaml", weights=cast("Any", weights), resolution=(8, 8), preprocessing=None
    )


def test_licenses_that_differ_are_all_named() -> None:
    one, two = _of_weights("MIT", "MIT (timm)"), _of_weights("none stated")
    both = _of_weights("MIT", "none stated")
    assert "license: mit\n" in front_matter(one)
    assert "license: unknown\n" in front_matter(two)
    assert "license: other\nlicense_name: MIT; none stated\n" in front_matter(both)
    assert "Licenses of the weights: MIT; none stated; the table above" in _license(both)


def test_code_of_a_card_names_what_is_meant() -> None:
    for name in ("a😀.onnx", 'a"b\\c\n', "naïve 猫"):
        assert ast.literal_eval(literal(name)) == name
        assert literal(name).isascii()
    text = loading_section(_of_weights("MIT"))
    assert 'create_model("x.yaml"' in text
    assert "timm has a network of its own" not in text


@pytest.mark.slow
def test_push_takes_the_edited_card_and_refuses_one_of_other_weights(checkpoint: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    assert "hf-hub:OWNER/NAME" in (hub.write_folder(checkpoint, shared) / "README.md").read_text()
    place = mobilezoo.card(checkpoint)
    place.write_text(place.read_text() + "\nAsk me about pets.\n")
    assert (hub.write_folder(checkpoint, shared) / "README.md").read_text().endswith("Ask me about pets.\n")
    place.write_text(place.read_text().replace(sha256_of(checkpoint), "0" * 64))
    with pytest.raises(hub.HubError, match="card of other weights"):
        hub.write_folder(checkpoint, shared)
    assert hub.with_repo("hf-hub:OWNER/NAME runs/pulled/NAME.safetensors", "me/x") == (
        "hf-hub:me/x runs/pulled/x.safetensors"
    )


@pytest.mark.slow
def test_the_report_links_cards(checkpoint: Path, tmp_path: Path) -> None:
    mobilezoo.card(checkpoint)
    page = write_report([checkpoint.parent], tmp_path / "pages" / "report.html").read_text()
    assert '<a href="../run/best.card.md">best.card.md</a>' in page


def test_bad_input_is_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownNameError, match="did you mean shvit_s1"):
        mobilezoo.card("shvit_s11")
    checkpoint.with_name("best.card.md").write_text("edited")
    before = checkpoint.with_name("best.card.md").read_bytes()
    damaged = checkpoint.parent / "export" / f"{MODEL}.fp32.tflite"
    damaged.write_bytes(b"TFL3")
    (tmp_path / "weights.pth").write_bytes(b"")
    lines = {
        (str(checkpoint),): "exists: pass --overwrite",
        (str(damaged),): "changed since its record was written",
        (str(tmp_path / "gone.onnx"),): "file not found",
        (str(tmp_path / "weights.pth"),): "does not say which network",
        (str(checkpoint), "--repo", "me", "--overwrite"): "OWNER/NAME",
        (str(checkpoint), "--out", str(tmp_path)): "is a folder",
    }
    for args, expected in lines.items():
        with pytest.raises(SystemExit) as ended:
            main(["card", *args])
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert ended.value.code == 2
        assert expected in line
    assert checkpoint.with_name("best.card.md").read_bytes() == before
    with pytest.raises(MobilezooError):
        card_of(str(damaged))
