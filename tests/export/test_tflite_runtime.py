"""Our LiteRT files in tflite-runtime 2.14, the last of its line, in an environment of its own (it needs NumPy 1)."""

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilezoo.testing.targets import export_files
from mobilezoo_export import ExportSpec, load_runner
from mobilezoo_export.images import sample_images

pytestmark = pytest.mark.nightly

SCRIPT = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
model, images, out = sys.argv[1:]
interpreter = Interpreter(model_path=model)
interpreter.allocate_tensors()
entry, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
rows = []
for image in np.load(images):
    interpreter.set_tensor(entry["index"], image[None])
    interpreter.invoke()
    rows.append(interpreter.get_tensor(answer["index"])[0])
np.save(out, np.stack(rows))
"""


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with tflite-runtime 2.14."""
    if sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime 2.14 has no wheel for Python 3.12 and newer: run `make PYTHON=python3.11`")
    folder = tmp_path_factory.mktemp("tflite")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "tflite-runtime==2.14.0", "numpy<2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"tflite-runtime 2.14 cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return python


@pytest.mark.parametrize(("name", "precision"), [("mnasnet_small", "int8"), ("shvit_s1", "fp32")])
def test_the_last_tflite_runtime_computes_what_litert_computes(
    old_python: Path, tmp_path: Path, name: str, precision: str
) -> None:
    from mobilezoo.models import create_model, load_model_config
    from mobilezoo.models.randomize import randomize_norms

    torch.manual_seed(0)
    network = randomize_norms(create_model(name), torch.Generator().manual_seed(0))
    spec = ExportSpec(model=name, resolution=(96, 96), preprocessing=load_model_config(name).preprocessing())
    images = sample_images(spec, 32, seed=1)
    (result,) = export_files(network, spec, ["litert"], [precision], tmp_path, calibration=[images])
    assert result.path is not None, result.reason
    np.save(tmp_path / "images.npy", images.transpose(0, 2, 3, 1))
    command = [str(old_python), "-c", SCRIPT, result.path, str(tmp_path / "images.npy"), str(tmp_path / "out.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    ours, theirs = load_runner(result.path).run(images), np.load(tmp_path / "out.npy")
    if precision == "fp32":
        assert np.abs(ours - theirs).max() / ours.std() < 1e-4
    else:  # integer kernels round in other places
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.98
