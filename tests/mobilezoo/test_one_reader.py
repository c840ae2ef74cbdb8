"""Every format that others write has one reader; a call of its parser anywhere else is listed here, with its reason."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARSERS = {
    *("json.load", "json.loads", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads"),
    *("torch.load", "torch.jit.load", "torch.export.load", "torch.hub.load", "torch.hub.load_state_dict_from_url"),
    *("np.load", "np.fromfile", "np.loadtxt", "np.genfromtxt", "numpy.load", "joblib.load", "shelve.open"),
    *(
        "load_file",
        "safe_open",
        "zipfile.ZipFile",
        "ZipFile",
        "tarfile.open",
        "tarfile.TarFile",
        "shutil.unpack_archive",
    ),
    *("YAML", "yaml.load", "yaml.safe_load", "eval", "exec", "ast.literal_eval", "literal_eval"),
    *("onnx.load", "onnx.load_model", "ct.utils.load_spec", "Image.open", "gzip.open", "ElementTree.parse"),
}
READERS = {
    "mobilezoo/reading.py": {"json.loads", "YAML", "yaml.load"},
    "mobilezoo/models/tensor_file.py": {"load_file", "zipfile.ZipFile"},
    "mobilezoo/data/tars.py": {"tarfile.open"},
    "mobilezoo/models/published/tensorflow.py": {"tarfile.open"},
    "mobilezoo/data/pixels.py": {"Image.open"},
    "mobilezoo/data/jpeg.py": {"Image.open"},
    "mobilezoo/data/cache.py": {"Image.open"},
}
"""Where the format's reader is."""
OWN = {
    "mobilezoo/config.py": {"json.loads", "YAML"},  # writes: plain data made of JSON that was made a line before
    "mobilezoo/workers.py": {"json.loads"},  # a pipe between two processes of ours
    "mobilezoo/models/table.py": {"json.loads"},  # a table of this repository
    "mobilezoo/testing/references.py": {"json.loads", "np.load"},  # reference arrays of this repository
    "export/mobilezoo_export/apart.py": {"np.load"},  # arrays in a scratch folder of ours
    "export/mobilezoo_export/convert.py": {"np.load", "torch.export.load"},  # the same
    "export/mobilezoo_export/packs.py": {"zipfile.ZipFile"},  # in that process too; sizes are compared before reading
    "export/mobilezoo_export/tflite_metadata.py": {"zipfile.ZipFile"},  # appends to a file that was just made
    "export/mobilezoo_export/profilers/onnx.py": {"json.loads"},  # what the runtime's own profiler wrote
    "mobilezoo/kits/python/network.py": {"Image.open", "json.loads"},  # runs without us, on its own model.json
    "latency/mobilezoo_latency/browser/assets.py": {"tarfile.open"},  # an archive of a pinned SHA-512
    "latency/mobilezoo_latency/emulator/packages.py": {"zipfile.ZipFile"},  # a wheel that pip has checked
    "latency/mobilezoo_latency/emulator/runner.py": {"np.fromfile"},  # numbers in a scratch folder of ours
    "export/mobilezoo_export/unit_runner.py": {"np.load"},  # the same
    "latency/mobilezoo_latency/gpu/worker.py": {"np.load"},  # the same
    "export/mobilezoo_export/htp/worker.py": {"np.load", "json.loads"},  # the same, and a pipe between two processes
}
"""What is read there was written by ourselves."""
TOOLCHAINS = {"onnx.load", "onnx.load_model", "ct.utils.load_spec"}
"""Of exported files: called in `export/` alone, whose files of others are opened in a process of their own."""


def _calls(file: Path) -> set[str]:
    """Parsers that a file calls, also under the name alone."""
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return {name for name in (ast.unparse(call.func) for call in calls) if name in PARSERS}


def test_parsers_are_called_by_the_readers_alone() -> None:
    files = [p for top in ("mobilezoo", "export", "latency") for p in (ROOT / top).rglob("*.py")]
    found = {p.relative_to(ROOT).as_posix(): _calls(p) for p in files}
    found = {name: calls - TOOLCHAINS if name.startswith("export/") else calls for name, calls in found.items()}
    assert {name: calls for name, calls in found.items() if calls} == {**READERS, **OWN}
