"""Our files against the plain vendor path on the same network: operators, transposes, partitions, size, latency.

    python benchmarks/export.py --work /tmp/export                    # one variant of each family, fp32 and int8
    python benchmarks/export.py --work /tmp/export --set timm         # networks outside the zoo, LiteRT, ExecuTorch
    python benchmarks/export.py shvit_s1 --work /tmp/export --targets litert --precisions fp32
    python benchmarks/export.py --work /tmp/export --time             # latency of all files made so far
    python benchmarks/export.py --work /tmp/export --device cortex_a76 --precisions fp32,fp16,int8   # cycles of a core

Counts of an emulated core (`mobilezoo device setup emulator`) are exact and can be had beside other work. Making files
is slow and may happen beside other work; a file that exists is not made again. Timing needs a quiet machine: one
thread, both files of a pair in one process, in turn, the ratio of their medians over several rounds. Networks are fresh
with random norms (zero gammas would be folded away). The tables go to benchmarks/results/.
"""

import argparse
import copy
import functools
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mobilezoo.artifacts import Preprocessing
from mobilezoo.errors import MobilezooError, first_line
from mobilezoo.models.base import IMAGENET_MEAN, IMAGENET_STD
from mobilezoo.models.randomize import randomize_norms
from mobilezoo_export import ExportOptions, ExportSpec, load_exporter, load_runner
from mobilezoo_export.coverage import coverage
from mobilezoo_export.images import sample_images
from mobilezoo_export.prepare import prepare
from mobilezoo_export.quantize.litert import quantize
from mobilezoo_export.quiet import quiet

RESULTS = Path(__file__).parent / "results"
CORE = (
    "mobilenetv2_ca_100",
    "ghostnetv2_100",
    "shvit_s1",
    "cas_vit_xs",
    "emo2_1m",
    "mobilemamba_t2",
    "mnasnet_a1",
    "mobilenext_100",
)
TIMM = (
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "efficientnet_lite0",
    "fastvit_t8",
    "repvit_m0_9",
    "efficientvit_m0",
    "efficientvit_b0",
    "edgenext_xx_small",
    "mobileone_s0",
    "starnet_s1",
    "swiftformer_xs",
    "tiny_vit_5m_224",
    "mobilevit_s",
    "mobilevitv2_050",
    "mobilenetv2_100",
    "lcnet_050",
    "tinynet_a",
    "mixnet_s",
    "ghostnet_100",
    "fbnetc_100",
    "hardcorenas_a",
    "regnety_002",
)
NEW = (
    "agent_deit_t",
    "inline_deit_t",
    "care_s0",
    "fastvit_t8",
    "focalnet_3m",
    "iformer_t",
    "smt_t",
    "moat_tiny_0",
    "dsm_3m",
    "efficientmod_xxs",
    "ffnet_1",
    "affnet_et",
    "ravlt_t",
    "favit_b0",
    "nat_3m",
    "dinat_mini",
    "illama_t",
    "moh_transnext_4m",
    "davit_3m",
    "halonet_3m",
    "lightnet_deit_t",
    "loope_deit_t",
)
SETS = {"core": CORE, "new": NEW, "timm": tuple(f"timm:{name}" for name in TIMM)}
TARGETS = ("litert", "onnx", "executorch")
PRECISIONS = ("fp32", "fp16", "int8")
Convert = Callable[[nn.Module, torch.Tensor, str, list[np.ndarray], Path], None]


@functools.lru_cache(1)
def network(name: str) -> nn.Module:
    """A zoo name, or any timm model as `timm:NAME`."""
    torch.manual_seed(0)
    if name.startswith("timm:"):
        import timm

        return randomize_norms(timm.create_model(name.removeprefix("timm:"))).eval()
    from mobilezoo.models.registry import create_model

    return randomize_norms(create_model(name)).eval()


def vendor_litert(
    model: nn.Module, example: torch.Tensor, precision: str, images: list[np.ndarray], path: Path
) -> None:
    import litert_torch

    plain = path.with_name(path.name.replace(f".{precision}.", ".fp32."))
    if not plain.is_file():
        litert_torch.convert(model, (example,)).export(str(plain))
    if precision == "fp16":
        quantize(plain, path, precision)  # ai_edge_quantizer's recipe for float16 weights, nothing of ours
    elif precision == "int8":
        from ai_edge_quantizer import quantizer, recipe

        engine = quantizer.Quantizer(str(plain), recipe.static_wi8_ai8())
        ranges = engine.calibrate({"serving_default": [{"args_0": image} for image in images]})
        made = path.with_suffix(".int8")
        engine.quantize(ranges).export_model(made)
        made.replace(path)


def vendor_onnx(model: nn.Module, example: torch.Tensor, precision: str, images: list[np.ndarray], path: Path) -> None:
    program = torch.onnx.export(model, (example,), dynamo=True, external_data=False, verbose=False)
    assert program is not None
    program.save(str(path))
    if precision == "int8":
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

        class Reader(CalibrationDataReader):
            left = iter(images)

            def get_next(self) -> dict[str, np.ndarray] | None:
                image = next(self.left, None)
                return None if image is None else {program.model.graph.inputs[0].name: image}

        made = path.with_suffix(".int8")
        quantize_static(str(path), str(made), Reader(), per_channel=True, activation_type=QuantType.QUInt8)
        made.replace(path)


def vendor_executorch(
    model: nn.Module, example: torch.Tensor, precision: str, images: list[np.ndarray], path: Path
) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    if precision == "int8":
        from mobilezoo_export.quantize.executorch import to_int8

        model = to_int8(model, example, images)  # PT2E with XNNPACK's quantiser, as its documentation shows
    elif precision == "fp16":
        model, example = copy.deepcopy(model).half(), example.half()
    lowered = to_edge_transform_and_lower(torch.export.export(model, (example,)), partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


VENDOR: dict[str, Convert] = {"litert": vendor_litert, "onnx": vendor_onnx, "executorch": vendor_executorch}


def make(name: str, target: str, precision: str, work: Path) -> dict[str, Any]:
    """Both files of one pair, with what is in them; a side that fails tells why."""
    model, label = network(name), name.replace(":", "_")
    size = getattr(model, "default_cfg", {}).get("input_size", (3, 224, 224))[1:]
    preprocessing = Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    options = ExportOptions(onnx_activations="uint8")  # what x86 CPUs need; both sides
    spec = ExportSpec(model=label, resolution=size, preprocessing=preprocessing, precision=precision, options=options)
    exporter = load_exporter(target)
    images = sample_images(spec, 16)
    single = [images[i : i + 1] for i in range(len(images))]
    with torch.no_grad():
        reference = model(torch.from_numpy(images)).numpy()
    row: dict[str, Any] = {"model": name, "target": target, "precision": precision, "resolution": size[0]}
    for who in ("ours", "vendor"):
        path = work / f"{label}.{precision}.{who}{exporter.suffix}"
        try:
            with quiet():
                if path.is_file():
                    pass
                elif who == "ours":
                    exporter.export(_graph(name, size), spec, path, [images])
                else:
                    VENDOR[target](model, torch.zeros(spec.shape), precision, single, path)
            runner = load_runner(path)
            logits = np.concatenate([_output(runner, image) for image in single])
            row[who] = {
                "file": path.name,
                "bytes": path.stat().st_size,
                "relative": float(abs(logits - reference).max() / reference.std()),
                **_counts(target, path),
            }
        except Exception as error:
            row[who] = {"error": f"{type(error).__name__}: {first_line(error, 120)}"}
    return row


@functools.lru_cache(1)
def _graph(name: str, size: tuple[int, int]) -> nn.Module:
    """Prepared once for all precisions, which then start from one conversion."""
    preprocessing = Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    spec = ExportSpec(model=name.replace(":", "_"), resolution=size, preprocessing=preprocessing, precision="fp32")
    return prepare(network(name), spec).graph


def _output(runner: Any, image: np.ndarray) -> np.ndarray:
    runner.prepare(image)
    runner.invoke()
    return np.array(runner.output())


def _counts(target: str, path: Path) -> dict[str, int | None]:
    found = coverage(load_exporter(target), path)
    assert found is not None
    ops = Counter({name: count for name, count in found.ops.items() if name != "DELEGATE"})
    outside = None if found.outside is None else sum(found.outside.values())
    return {
        "ops": ops.total(),
        "transposes": sum(count for name, count in ops.items() if name.lower() == "transpose"),
        "partitions": found.partitions,
        "outside": outside,
    }


def timed(row: dict[str, Any], work: Path, rounds: int = 5, seconds: float = 0.6) -> list[float]:
    """Vendor's median latency over ours, for each of several rounds of interleaved runs."""
    runners = [load_runner(work / row[who]["file"]) for who in ("ours", "vendor")]
    size = row["resolution"]
    image = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
    for runner in runners:
        runner.prepare(image)
        for _ in range(3):
            runner.invoke()
    ratios = []
    for _ in range(rounds):
        samples: tuple[list[float], list[float]] = ([], [])
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(samples[1]) < 5:
            for runner, kept in zip(runners, samples, strict=True):
                start = time.perf_counter()
                runner.invoke()
                kept.append((time.perf_counter() - start) * 1e3)
        row["ours"]["ms"], row["vendor"]["ms"] = (round(statistics.median(kept), 3) for kept in samples)
        ratios.append(row["vendor"]["ms"] / row["ours"]["ms"])
    return [round(ratio, 3) for ratio in ratios]


def counted(row: dict[str, Any], work: Path, core: str) -> None:
    """Adds both files' cycles on an emulated core, memory included where its calibration prices it."""
    from mobilezoo_latency import load_device
    from mobilezoo_latency.emulator.counting import count_blocks
    from mobilezoo_latency.emulator.device import EmulatedDevice
    from mobilezoo_latency.emulator.layout import find_emulator
    from mobilezoo_latency.emulator.pricing import cycles_of

    device, emulator = load_device(core), find_emulator()
    assert isinstance(device, EmulatedDevice)
    line_cycles = device.config.conversion.dram_cycles if device.config.conversion else 0.0
    for who in ("ours", "vendor"):
        if "error" in row[who] or core in row[who]:
            continue
        try:
            counts = count_blocks(emulator, device.config, work / row[who]["file"], target=row["target"])
        except MobilezooError as error:
            row[who][core] = None
            row[who]["refused"] = first_line(error, 120)
            continue
        lines = counts.misses[-1] if counts.misses else 0
        row[who][core] = cycles_of(emulator, device.config, counts.blocks) + line_cycles * lines


def cycles_table(rows: Sequence[dict[str, Any]], core: str, chosen: str) -> str:
    """Markdown: megacycles of both files of each pair, then the geometric means."""
    lines = [
        f"# Exported files against the vendors' plain path: cycles of an emulated {core}",
        "",
        f"`python benchmarks/export.py --set {chosen} --device {core} --precisions fp32,fp16,int8",
        "--targets litert,executorch`.",
        "Same network, fresh with random norms; megacycles of one warm inference, memory included where the core's",
        "calibration prices it; counts, not times. The vendor's fp16: LiteRT's quantizer with float16 weights, which",
        "compute in float32;",
        "ExecuTorch of `model.half()`. Ratio: vendor's cycles over ours.",
        "",
        "| model | target | precision | ours | vendor | ratio | ours against own fp32 |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    ratios: dict[tuple[str, str], list[float]] = {}
    floats = {(r["model"], r["target"]): r["ours"].get(core) for r in rows if r["precision"] == "fp32"}
    for row in rows:
        if not any(core in row[who] or "error" in row[who] for who in ("ours", "vendor")):
            continue
        ours, theirs = (row[who].get(core) for who in ("ours", "vendor"))
        cells = [row["model"], row["target"], row["precision"]]
        cells += [
            f"{cycles / 1e6:.1f}" if cycles else row[who].get("error", row[who].get("refused", ""))
            for who, cycles in (("ours", ours), ("vendor", theirs))
        ]
        if ours and theirs:
            ratios.setdefault((row["target"], row["precision"]), []).append(theirs / ours)
        own = floats.get((row["model"], row["target"]))
        cells += [f"{theirs / ours:.2f}" if ours and theirs else "", f"{own / ours:.2f}" if ours and own else ""]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines += [
        f"- {target} {precision}: geometric mean {statistics.geometric_mean(found):.2f} over {len(found)} networks, "
        f"lowest {min(found):.2f}"
        for (target, precision), found in ratios.items()
    ]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: one line per pair, then the geometric means."""
    lines = [
        "# Exported files against the vendors' plain path",
        "",
        "`python benchmarks/export.py`. Same network, fresh with random norms; a pair is ours / vendor's.",
        "Outside: operators that XNNPACK leaves. Difference from PyTorch: largest over 16 photographs, over the",
        "deviation of the logits. Speed: vendor's median latency over ours, one thread on an x86 host, median of",
        "five interleaved rounds [lowest, highest]. int8 ONNX has unsigned activations, as such a host wants.",
        "",
        "| model | target | precision | operators | transposes | partitions | outside | MB | difference | speed |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        ours, theirs = row["ours"], row["vendor"]
        if "error" in ours:
            lines.append(f"| {row['model']} | {row['target']} | {row['precision']} | {ours['error']} |||||||")
            continue

        def pair(key: str, how: Callable[[Any], str] = str, ours: Any = ours, theirs: Any = theirs) -> str:
            left, right = ours.get(key), theirs.get(key)
            return "" if left is None else f"{how(left)} / {'fails' if right is None else how(right)}"

        ratios = row.get("speed")
        speed = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else ""
        cells = (
            row["model"], row["target"], row["precision"], pair("ops"), pair("transposes"), pair("partitions"),
            pair("outside"), pair("bytes", lambda size: f"{size / 1e6:.1f}"), pair("relative", lambda r: f"{r:.0e}"),
            speed,
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for target in TARGETS:
        for precision in ("fp32", "int8"):
            timed_rows = [r for r in rows if r["target"] == target and r["precision"] == precision and "speed" in r]
            if timed_rows:
                speeds = [statistics.median(r["speed"]) for r in timed_rows]
                lines.append(
                    f"- {target} {precision}: geometric mean {statistics.geometric_mean(speeds):.2f} over "
                    f"{len(speeds)} networks, slowest {min(speeds):.2f}"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--set", choices=tuple(SETS), default="core")
    parser.add_argument("--targets", help="default: litert,onnx,executorch, for the timm set litert,executorch")
    parser.add_argument("--precisions", help="default: fp32,int8, for the timm set fp32")
    parser.add_argument("--work", type=Path, required=True, help="folder for the files and what is known of them")
    parser.add_argument("--time", action="store_true", help="time the files made so far")
    parser.add_argument("--device", help="an emulated core: count all files there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    names = args.models or SETS[args.set]
    precisions = (args.precisions or ("fp32" if args.set == "timm" else "fp32,int8")).split(",")
    # ONNX Runtime takes the whole graph whatever its shape, so outside the zoo only the other two are compared.
    targets = tuple(args.targets.split(",")) if args.targets else TARGETS if args.set == "core" else TARGETS[::2]
    for name in names:
        for target in targets:
            for precision in precisions:
                known = args.work / _kept_name(name, target, precision)
                if args.time and not known.is_file():
                    continue
                row = json.loads(known.read_text()) if known.is_file() else make(name, target, precision, args.work)
                if args.time and "speed" not in row and all("error" not in row[who] for who in ("ours", "vendor")):
                    row["speed"] = timed(row, args.work)
                if args.device:
                    counted(row, args.work, args.device)
                known.write_text(json.dumps(row))
                print(json.dumps(row), flush=True)
                if args.device:
                    whole = cycles_table(kept_rows(args.work, args.set, names), args.device, args.set)
                    (RESULTS / f"export_{args.set}_{args.device}.md").write_text(whole, encoding="utf-8")
    if not args.device and not args.models:
        whole = table([row for row in kept_rows(args.work, args.set) if row["target"] in targets])
        (RESULTS / f"export_{args.set}.md").write_text(whole, encoding="utf-8")


def _kept_name(model: str, target: str, precision: str) -> str:
    return f"{model.replace(':', '_')}.{target}.{precision}.json"


def kept_rows(work: Path, chosen: str, others: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What is known so far of a set's networks and of others, ordered by target, precision and network."""
    names = tuple(dict.fromkeys((*SETS[chosen], *others)))
    kept = (
        work / _kept_name(name, target, precision) for target in TARGETS for precision in PRECISIONS for name in names
    )
    return [json.loads(path.read_text()) for path in kept if path.is_file()]


if __name__ == "__main__":
    main()
