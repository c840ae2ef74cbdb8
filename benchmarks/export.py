"""Our files against the plain vendor path on the same network: operators, transposes, partitions, latency.

    python benchmarks/export.py shvit_s1 timm:mobilevit_xs --resolution 224

Networks are fresh with random norms (zero gammas would be folded away). Latency is one thread, both files interleaved
in one process, the ratio of their medians. A conversion takes about half a minute.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mobilezoo.artifacts import Preprocessing
from mobilezoo.models.base import IMAGENET_MEAN, IMAGENET_STD
from mobilezoo.models.randomize import randomize_norms
from mobilezoo_export import ExportSpec, load_exporter, load_runner
from mobilezoo_export.images import sample_images
from mobilezoo_export.prepare import prepare
from mobilezoo_export.quiet import quiet


def network(name: str) -> nn.Module:
    """A zoo name, or any timm model as `timm:NAME`."""
    torch.manual_seed(0)
    if name.startswith("timm:"):
        import timm

        return randomize_norms(timm.create_model(name.removeprefix("timm:"))).eval()
    from mobilezoo.models.registry import create_model

    return randomize_norms(create_model(name)).eval()


def vendor_litert(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    import litert_torch

    litert_torch.convert(model, (example,)).export(str(path))


def vendor_onnx(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    program = torch.onnx.export(model, (example,), dynamo=True, external_data=False, verbose=False)
    assert program is not None
    program.save(str(path))


def vendor_executorch(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(model, (example,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


VENDOR: dict[str, Callable[[nn.Module, torch.Tensor, Path], None]] = {
    "litert": vendor_litert,
    "onnx": vendor_onnx,
    "executorch": vendor_executorch,
}


def shape_of_file(target: str, path: Path) -> dict[str, int]:
    """Counts that say how much a phone's delegate will like the file."""
    if target == "litert":
        details = load_runner(path).interpreter._get_ops_details()  # type: ignore[attr-defined]
        ops = Counter(str(detail["op_name"]) for detail in details)
        partitions = ops.pop("DELEGATE", 0)
        return {"ops": ops.total(), "transposes": ops["TRANSPOSE"], "partitions": partitions}
    if target == "onnx":
        import onnx

        ops = Counter(node.op_type for node in onnx.load(path).graph.node)
        return {"ops": ops.total(), "transposes": ops["Transpose"]}
    from executorch.exir._serialize._program import deserialize_pte_binary

    plan = deserialize_pte_binary(path.read_bytes()).program.execution_plan[0]
    kinds = Counter(type(i.instr_args).__name__ for chain in plan.chains for i in chain.instructions)
    return {"partitions": kinds["DelegateCall"], "outside": kinds["KernelCall"]}


def interleaved_ms(first: Any, second: Any, seconds: float = 3.0) -> tuple[float, float]:
    """Median latency of two prepared runners, run in turn."""
    samples: tuple[list[float], list[float]] = ([], [])
    for runner in (first, second):
        for _ in range(5):
            runner.invoke()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples[0]) < 20:
        for runner, kept in zip((first, second), samples, strict=True):
            start = time.perf_counter()
            runner.invoke()
            kept.append((time.perf_counter() - start) * 1e3)
    return statistics.median(samples[0]), statistics.median(samples[1])


def compare(name: str, target: str, resolution: int, folder: Path) -> dict[str, Any]:
    model, label = network(name), name.replace(":", "_")
    preprocessing = Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    spec = ExportSpec(model=label, resolution=(resolution, resolution), preprocessing=preprocessing)
    exporter = load_exporter(target)
    ours, theirs = (folder / f"{label}.{who}{exporter.suffix}" for who in ("ours", "vendor"))
    with quiet():
        exporter.export(prepare(model, spec).graph, spec, ours)
        VENDOR[target](model, torch.zeros(spec.shape), theirs)
    image = sample_images(spec, 1)
    runners = load_runner(ours), load_runner(theirs)
    for runner in runners:
        runner.prepare(image)
    ours_ms, vendor_ms = interleaved_ms(*runners)
    with torch.no_grad():
        reference = model(torch.from_numpy(image)).numpy()
    differences = [float(abs(runner.output() - reference).max() / reference.std()) for runner in runners]
    return {
        "model": name,
        "target": target,
        "ours": {**shape_of_file(target, ours), "ms": round(ours_ms, 3), "relative": differences[0]},
        "vendor": {**shape_of_file(target, theirs), "ms": round(vendor_ms, 3), "relative": differences[1]},
        "speedup": round(vendor_ms / ours_ms, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--targets", default="litert,onnx,executorch")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--out", type=Path, help="append one JSON line per comparison")
    args = parser.parse_args()
    torch.set_num_threads(1)
    speedups: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            for target in args.targets.split(","):
                row = compare(name, target, args.resolution, Path(folder))
                speedups.setdefault(target, []).append(row["speedup"])
                print(json.dumps(row), flush=True)
                if args.out:
                    with args.out.open("a", encoding="utf-8") as handle:
                        handle.write(json.dumps(row) + "\n")
    for target, ratios in speedups.items():
        print(f"{target}: geometric mean speed-up {statistics.geometric_mean(ratios):.3f} over {len(ratios)} models")


if __name__ == "__main__":
    main()
