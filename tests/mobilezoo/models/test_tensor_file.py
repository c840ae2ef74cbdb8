"""The reader of tensors: what torch.save writes comes back equal, what no honest file declares is one line."""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mobilezoo.errors import CheckpointError
from mobilezoo.models import tensor_pickle, weights
from mobilezoo.models.tensor_file import read_content
from mobilezoo.models.weights import tensors_of
from mobilezoo.train.checkpoints import latest_checkpoint

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.bool),
    *(torch.complex64, torch.complex128),
]
LAYOUTS = {"archive": True, "row of pickles": False}


def saved(path: Path, content: Any, layout: str = "archive", protocol: int = 2) -> Path:
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=LAYOUTS[layout])
    return path


def same_bytes(a: Tensor, b: Tensor) -> bool:
    flat = [t.detach().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8) for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*flat)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_saves_comes_back_equal(tmp_path: Path, layout: str, protocol: int) -> None:
    base = torch.arange(24.0)
    content = {
        **{str(dtype): torch.ones(2, 3).to(dtype) for dtype in DTYPES},
        "scalar": torch.tensor(3.0),
        "empty": torch.ones(0, 3),
        "turned": base.view(4, 6).t(),
        "expanded": torch.ones(1).expand(1000),
        "part": base[5:9],
        "parameter": nn.Parameter(torch.ones(2)),
    }
    read = read_content(saved(tmp_path / "x.pth", content, layout, protocol))
    assert list(read) == list(content)
    assert [key for key in content if not same_bytes(content[key], read[key])] == []
    assert read["part"].untyped_storage().data_ptr() == read["turned"].untyped_storage().data_ptr()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_that_are_no_weights_keep_their_size_alone(tmp_path: Path, layout: str) -> None:
    dense = torch.eye(4)
    content = {
        "sparse": dense.to_sparse(),
        "rows": dense.to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8),
        "meta": dense.to("meta"),
    }
    read = read_content(saved(tmp_path / "x.pth", content, layout))
    sizes = {key: tuple(value.shape) for key, value in read.items() if value.is_meta}
    assert sizes == dict.fromkeys(content, (4, 4))


def test_plain_values_beside_the_weights_come_back_and_others_are_empty(tmp_path: Path) -> None:
    plain = {"epoch": 3, "lr": [0.1, -1], "name": "é", "on": True, "none": None, "pair": (1, "x"), 7: {"deep": [{}]}}
    odd = {"set": {1}, "array": np.ones(3), "path": Path("x"), "scalar": np.float64(3), "size": torch.Size([2])}
    read = read_content(saved(tmp_path / "x.pth", OrderedDict({**plain, **odd})))
    assert {key: read[key] for key in plain} == plain
    assert read["size"] == (2,)
    assert {type(read[key]) for key in ("set", "array", "path", "scalar")} == {tensor_pickle.Opaque}


class Call:
    """Pickled, it is a call of a function with arguments."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Row:
    """Pickled, it refers to a storage."""

    def __init__(self, elements: Any = 4, key: Any = "0", kind: Any = torch.FloatStorage) -> None:
        self.id = ("storage", kind, key, "cpu", elements)


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.id if isinstance(value, Row) else None


def pickled(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    out = io.BytesIO()
    _Pickler(out, 2).dump(content)
    return out.getvalue()


def archive(path: Path, content: Any, *, data: bytes = bytes(16), packing: int = zipfile.ZIP_STORED) -> Path:
    """As torch.save lays it out, with any pickle and one storage "0"."""
    with zipfile.ZipFile(path, "w", packing) as file:
        for name, entry in {"data.pkl": pickled(content), "byteorder": b"little", "data/0": data}.items():
            file.writestr(f"x/{name}", entry)
    return path


def tensor(size: Any, stride: Any, offset: Any = 0, row: Row | None = None) -> Call:
    rebuild: Callable[..., Any] = torch._utils._rebuild_tensor_v2
    return Call(rebuild, row or Row(), offset, size, stride, False, OrderedDict())


def _nested_key() -> dict[Any, int]:
    """A key whose hash takes 2^60 steps; as a list of pairs, so that making it takes none."""
    key: Any = ()
    for _ in range(60):
        key = (key, key)
    return Call(OrderedDict, [(key, 1)])  # type: ignore[return-value]


HOSTILE = {
    "elements repeated": (tensor((10**6, 10**6), (0, 0)), "1,000,000,000,000 elements in a storage of 4"),
    "overlapping rows": (tensor((2**12, 2**12), (0, 0)), "elements in a storage of 4"),
    "beyond the storage": (tensor((10**12,), (1,)), "ends at element 1,000,000,000,000 of a storage of 4"),
    "offset beyond": (tensor((1,), (1,), 9), "ends at element 10 of a storage of 4"),
    "negative size": (tensor((-1,), (1,)), "no whole number, or negative"),
    "negative stride": (tensor((2,), (-1,), 3), "no whole number, or negative"),
    "a size that is no number": (tensor(("3",), (1,)), "no whole number"),
    "a size of 200 bits": (tensor((2**200,), (1,)), "beyond any memory"),
    "many dimensions": (tensor((2**40,) * 5000, (1,) * 5000), "more than 64 dimensions"),
    "fewer strides than sizes": (tensor((2, 2), (1,)), "damaged"),
    "storage beyond the file": (tensor((4,), (1,), row=Row(10**12)), "declares 1,000,000,000,000 elements"),
    "storage that is not there": (tensor((4,), (1,), row=Row(4, "1")), "data/1"),
    "key that is no text": (tensor((4,), (1,), row=Row(4, ("0",))), "no known kind"),
    "half an element": (tensor((2,), (1,), row=Row(16, kind=torch.UntypedStorage)), "size is not that of its elements"),
    "a key that is slow to hash": (_nested_key(), "key of type tuple"),
    "a large memo": (b"\x80\x02Nr\xff\xff\xff\xff.", "no state dict"),
    "a string longer than the file": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b".", "damaged"),
    "the state of a tensor": (b"\x80\x02ctorch\nTensor\nK\x05\x85R(Rb.", "damaged"),
    "a call of text": (b"\x80\x02X\x01\x00\x00\x00a)R.", "calls something that is no function"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_honest_file_declares_is_one_line(tmp_path: Path, what: str) -> None:
    content, said = HOSTILE[what]
    path = archive(tmp_path / "x.pth", content if isinstance(content, bytes) else {"a": content})
    with pytest.raises(CheckpointError, match=said) as caught:
        tensors_of(path)
    assert str(caught.value).isprintable()


def test_a_pickle_of_more_steps_or_bytes_than_any_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_pickle, "MAX_STEPS", 1000)
    monkeypatch.setattr(tensor_pickle, "MAX_BYTES", 3000)
    for content in (b"\x80\x02]" + b"2" * 1000 + b".", b"\x80\x02X" + struct.pack("<I", 3000) + b"a" * 3000 + b"."):
        with pytest.raises(CheckpointError, match=r"a pickle of more than .* steps"):
            tensors_of(archive(tmp_path / "x.pth", content))


def test_memory_is_asked_for_by_no_name_in_a_pickle(tmp_path: Path) -> None:
    for function, size in ((torch.Tensor, 10**12), (torch.FloatStorage, 10**12), (bytearray, 10**12)):
        path = archive(tmp_path / "x.pth", {"a": Call(function, size), "b": tensor((4,), (1,))})
        with suppress(CheckpointError):
            assert list(tensors_of(path)) == ["b"]


@pytest.mark.parametrize("sums", ['{"/dev/zero": ""}', '{"state.pt": 3}', "[]", '{"a": {"b": NaN}}', "{}"])
def test_a_runs_checkpoint_whose_list_of_files_is_hostile_is_passed_over(tmp_path: Path, sums: str) -> None:
    folder = tmp_path / "epoch-0001"
    folder.mkdir()
    saved(folder / "state.pt", {"epoch": 1, "no field": 2})
    save_file({"a": torch.ones(1)}, folder / "model.safetensors")
    (folder / "sums.json").write_text(sums)
    state, lines = latest_checkpoint(tmp_path)
    assert state is None
    assert [line.startswith(f"{folder} is damaged") and line.isprintable() for line in lines] == [True]


def test_an_archive_that_grows_when_unpacked_is_refused(tmp_path: Path) -> None:
    content = {"a": tensor((10**6,), (1,), row=Row(10**6))}
    path = archive(tmp_path / "x.pth", content, data=bytes(4 * 10**6), packing=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="in it is compressed"):
        tensors_of(path)
    whole = archive(tmp_path / "y.pth", content, data=bytes(4 * 10**6))
    assert tensors_of(whole)["a"].shape == (10**6,)
    entries = whole.read_bytes()
    directory = entries.index(b"PK\1\2")
    overlapping = entries[:directory] + entries[directory:].replace(b"x/byteorder", b"x/data/0000")
    (tmp_path / "z.pth").write_bytes(overlapping.replace(struct.pack("<I", 6), struct.pack("<I", 4 * 10**6)))
    with pytest.raises(CheckpointError, match="is damaged"):
        tensors_of(tmp_path / "z.pth")


def test_other_archives_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")
    for name, said in (("arrays.npz", "torch.save did not write"), ("script.pt", "TorchScript program")):
        with pytest.raises(CheckpointError, match=said):
            tensors_of(tmp_path / name)


@pytest.mark.parametrize("elements", [5, 10**12, 2**62])
def test_a_row_of_pickles_with_storages_beyond_the_file_is_refused(tmp_path: Path, elements: int) -> None:
    whole = saved(tmp_path / "x.pth", {"a": torch.ones(4)}, "row of pickles").read_bytes()
    at = whole.index(b"K\x04N")  # elements, and no view
    damaged = whole[:at] + b"\x8a\x08" + struct.pack("<q", elements) + whole[at + 2 :]
    (tmp_path / "x.pth").write_bytes(damaged)
    with pytest.raises(CheckpointError, match="damaged"):
        tensors_of(tmp_path / "x.pth")


def safetensors(path: Path, header: bytes, data: bytes = bytes(16), length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def _described(**fields: Any) -> bytes:
    return json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **fields}}).encode()


@pytest.mark.parametrize(
    "header",
    [
        _described(data_offsets=[0, 32]),
        _described(data_offsets=[8, 24]),
        _described(data_offsets=[16, 0]),
        _described(data_offsets=[0, 8]),
        _described(data_offsets=[-16, 0]),
        _described(shape=[2**62, 4]),
        _described(shape=[-4]),
        _described(dtype="F4"),
        _described(dtype="F9"),
        _described()[:-1] + b',"b":' + _described()[5:],
        b"[" * 100_000,
        b"{}",
        b"",
    ],
)
def test_a_safetensors_header_that_does_not_fit_its_bytes_is_one_line(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(CheckpointError) as caught:
        tensors_of(safetensors(tmp_path / "x.safetensors", header))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("length", [1 << 25, 1 << 63, 100])
def test_a_safetensors_header_longer_than_any_or_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    path = safetensors(tmp_path / "x.safetensors", b"{}", length=length)
    with pytest.raises(CheckpointError, match="a header of"):
        tensors_of(path)


def test_one_name_with_a_million_dots_or_copies_ends_quickly(tmp_path: Path) -> None:
    long = "x" * (1 << 20)
    torch.save({long: [torch.ones(1)] * 1000}, tmp_path / "long.pth")
    with pytest.raises(CheckpointError, match="names in one file"):
        tensors_of(tmp_path / "long.pth")
    assert len(list(weights._parts({"." * (1 << 20) + "a": torch.ones(1)}, 1))) < 100
