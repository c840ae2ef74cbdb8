"""`mobilezoo kit`: what a kit holds, what is refused, and that no folder of the user's is lost."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing, read_record_of
from mobilezoo.cli.main import main
from mobilezoo.data.pixels import Pixels
from mobilezoo.errors import ConfigError, DeviceError, MobilezooError
from mobilezoo.workflows import kit
from mobilezoo.workflows.kit import MARK, write_kit
from mobilezoo.workflows.kit_facts import DENSE, PLACEHOLDER, c_string, code, filled, header_values, placeholders
from mobilezoo.workflows.kit_kinds import FILLED_HEADERS, KINDS, TEMPLATES
from tests.mobilezoo.workflows.dense_cases import detector, segmenter
from tests.mobilezoo.workflows.kit_cases import LABELS
from tests.mobilezoo.workflows.test_try_file import network, onnx, recorded


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are not run: a process with a runtime takes a second."""
    monkeypatch.setattr(kit, "tried", lambda path, record, kind: record)


@pytest.mark.usefixtures("untried")
def test_a_kit_holds_the_file_its_labels_and_how_images_become_its_input(tmp_path: Path) -> None:
    file = network(tmp_path / "a.onnx", labels=LABELS)
    made = write_kit(file, "python", tmp_path / "kit")
    assert made.files == ("README.md", "classify.py", "model.json", "model.onnx", "network.py", "requirements.txt")
    assert (tmp_path / "kit" / "model.onnx").read_bytes() == file.read_bytes()
    told = json.loads((tmp_path / "kit" / "model.json").read_text(encoding="utf-8"))
    assert tuple(told["labels"]) == LABELS
    assert (told["runtime"], told["size"], told["output"]) == ("onnx", [16, 16], "logits")
    assert told["preprocessing"]["interpolation"] == "bicubic"
    readme = (tmp_path / "kit" / "README.md").read_text(encoding="utf-8")
    assert "resize the short side to 18" in readme
    assert "random: the network was not trained" in readme
    assert not PLACEHOLDER.search(readme)


@pytest.mark.usefixtures("untried")
def test_only_a_kit_is_replaced_and_only_if_asked(tmp_path: Path) -> None:
    file, out = network(tmp_path / "a.onnx"), tmp_path / "kit"
    out.mkdir()
    write_kit(file, "python", out)
    (out / "mine.txt").write_text("kept")
    with pytest.raises(ConfigError, match="holds a kit already, which is kept: --overwrite replaces it"):
        write_kit(file, "python", out)
    assert (out / "mine.txt").read_text() == "kept"
    write_kit(file, "python", out, overwrite=True)
    assert not (out / "mine.txt").exists()
    (out / MARK).unlink()
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="holds other files and is no kit"):
            write_kit(file, "python", out, overwrite=overwrite)
    (tmp_path / "file").write_text("x")
    with pytest.raises(MobilezooError, match="is a file: name a folder"):
        write_kit(file, "python", tmp_path / "file", overwrite=True)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("a.pte", "python", r"'a\.pte': a python kit runs \.tflite and \.onnx; no kit runs this file, or export with"),
        ("a.txt", "python", r"'a\.txt' is no exported file \(\.onnx, .*make one with `mobilezoo export`"),
        ("a.onnx", "pyton", r"unknown kit 'pyton': did you mean python\?"),
        ("missing.onnx", "python", r"file not found: .*missing\.onnx"),
    ],
)
def test_what_no_kit_can_be_made_of_is_one_line(name: str, kind: str, message: str, tmp_path: Path) -> None:
    if "missing" not in name:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(MobilezooError, match=message) as error:
        write_kit(tmp_path / name, kind, tmp_path / "kit")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "kit").exists()


def test_a_changed_file_gives_no_kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = network(tmp_path / "a.onnx")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(SystemExit) as done:
        main(["kit", str(file), "--for", "python", "--out", str(tmp_path / "kit")])
    assert done.value.code == 2
    assert "changed since its record was written" in capsys.readouterr().err
    assert not (tmp_path / "kit").exists()


@pytest.mark.slow
def test_a_damaged_file_and_labels_that_are_too_few_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no file of ONNX")
    recorded(tmp_path / "a.onnx", "onnx")
    with pytest.raises(MobilezooError, match=r"a\.onnx") as error:
        write_kit(tmp_path / "a.onnx", "python", tmp_path / "kit")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="10 outputs and 2 labels"):
        write_kit(network(tmp_path / "b.onnx", labels=("a", "b")), "python", tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


@pytest.mark.slow
def test_a_file_whose_weights_lie_in_a_second_file_gives_no_kit(tmp_path: Path) -> None:
    whole, split = onnx.load(network(tmp_path / "a.onnx")), tmp_path / "b.onnx"
    onnx.save(whole, split, save_as_external_data=True, location="b.bin", size_threshold=0)
    with pytest.raises(MobilezooError, match=r"b\.onnx.*b\.bin") as error:
        write_kit(recorded(split, "onnx"), "python", tmp_path / "kit")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "kit").exists()


@pytest.mark.usefixtures("untried")
def test_the_command_names_folder_files_and_what_is_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = network(tmp_path / "a.onnx", labels=())
    with pytest.raises(SystemExit) as done:
        main(["kit", str(file), "--for", "python"])
    out = capsys.readouterr()
    assert done.value.code == 0
    assert f"{tmp_path / 'a-python'}: README.md, classify.py" in out.out
    assert "a.onnx has no labels: the kit shows classes by their number (--labels)" in out.err


def test_every_template_is_used_and_every_placeholder_known(tmp_path: Path) -> None:
    record = Artifact.model_validate_json(
        (network(tmp_path / "a.onnx").with_name("a.onnx.json")).read_text(encoding="utf-8")
    )
    known: dict[str, Any] = {**placeholders(tmp_path / "a.onnx", record, "model.onnx"), "facts": "", **DENSE["detect"]}
    for name, kind in KINDS.items():
        parts = (kind.files, *kind.tasks.values(), *(how.files for how in kind.runs.values()))
        listed = {template for files in parts for template in files}
        there = {p.relative_to(TEMPLATES / name).as_posix() for p in (TEMPLATES / name).rglob("*") if p.is_file()}
        assert there == {template for template in listed if not template.startswith("../")}
        assert all((TEMPLATES / name / template).is_file() for template in listed)
    for page in TEMPLATES.rglob("*.md"):
        assert set(PLACEHOLDER.findall(page.read_text(encoding="utf-8"))) <= set(known), page
    values = [header_values(read_record_of(Artifact, make(tmp_path / "b.onnx")), "b") for make in (detector, segmenter)]
    headers = [(TEMPLATES / "cpp" / name).read_text(encoding="utf-8") for name in FILLED_HEADERS]
    assert set(PLACEHOLDER.findall("".join(headers))) == {name for known in values for name in known}


def test_values_are_neither_markdown_nor_templates() -> None:
    assert filled("{{a}} {{b}}", {"a": "{{b}}", "b": "$x"}) == "{{b}} $x"
    assert code("a`b|c\nd") == "`` a`b\\|c d ``"
    assert c_string('a "b" \\ 猫\n1') == '"a \\"b\\" \\\\ 猫\\0121"'


def test_a_python_kit_turns_photographs_as_evaluation_does_whatever_their_exif_data(tmp_path: Path) -> None:
    read = runpy.run_path(str(TEMPLATES / "python" / "network.py"))["read"]
    pixels, path = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8), tmp_path / "a.jpg"
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.fromarray(pixels).save(path, exif=exif)
        assert np.array_equal(np.asarray(read(str(path), 3)), np.asarray(Pixels().read(path))), turn
        exif[0x010F] = "maker"
        wrong = exif.tobytes().replace(b"\x01\x0f\0\2", b"\x01\x0f\0\5") + bytes(64)  # the maker as fractions
        Image.fromarray(pixels).save(path, exif=wrong)
        assert np.array_equal(np.asarray(read(str(path), 3)), np.asarray(Pixels().read(path))), turn


@pytest.mark.parametrize("kind", ["cpp", "android", "ios"])
@pytest.mark.usefixtures("untried")
def test_kits_of_every_language_hold_the_network_where_their_code_looks_for_it(kind: str, tmp_path: Path) -> None:
    target, suffix = {"cpp": ("onnx", "onnx"), "android": ("litert", "tflite"), "ios": ("coreml", "mlpackage")}[kind]
    file = network(tmp_path / "a.onnx").rename(tmp_path / f"a.{suffix}")
    recorded(file, target, labels=LABELS)
    made = write_kit(file, kind, tmp_path / "kit")
    home = {"cpp": "", "android": "app/src/main/assets/", "ios": "Sources/Classify/Network/"}[kind]
    assert {"README.md", f"{home}model.{suffix}", f"{home}model.json"} <= set(made.files)
    assert json.loads((tmp_path / "kit" / home / "model.json").read_text(encoding="utf-8"))["file"] == f"model.{suffix}"
    untested = "ntested" in (tmp_path / "kit" / "README.md").read_text(encoding="utf-8")
    assert untested == (kind != "cpp")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "cpp",
            {"input": InputSpec(shape=(1, 3, 16, 16), dtype="float16")},
            "takes float16, and a cpp kit gives only float32.*: make a file with float32 there, .* --for python$",
        ),
        (
            "cpp",
            {"preprocessing": Preprocessing(mean=(0.5,) * 4, std=(0.5,) * 4)},
            "images of 4 channels, and a cpp kit",
        ),
        ("ios", {}, r"an ios kit runs \.mlpackage; this file runs with --for python or --for web or --for cpp"),
    ],
)
def test_what_a_kit_does_not_handle_is_one_line(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_kit(network(tmp_path / "a.onnx", **changes), kind, tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


def test_the_server_that_a_web_kits_readme_starts_is_for_this_machine_alone() -> None:
    lines = [line for page in TEMPLATES.rglob("*.md") for line in page.read_text(encoding="utf-8").splitlines()]
    servers = [line for line in lines if "http.server" in line]
    assert servers
    assert all("--bind 127.0.0.1" in line for line in servers)


def test_a_web_kit_without_the_runtimes_names_the_command_that_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBILEZOO_BROWSER", str(tmp_path / "none"))
    with pytest.raises(DeviceError, match="device setup browser"):
        write_kit(network(tmp_path / "a.onnx"), "web", tmp_path / "kit")
