"""Every network of the zoo and 40 of timm's counted on emulated phone cores: `mobilezoo/models/latency.json`.

    python benchmarks/zoo_latency.py                              # all of it: days of CPU; stop it, start it again
    python benchmarks/zoo_latency.py --max-gmacs 0.4 --limit 20   # the twenty smallest that are not counted yet
    python benchmarks/zoo_latency.py --only 'shvit*' --cores cortex_a76 --precisions fp32
    python benchmarks/zoo_latency.py --table                      # the table of what is counted so far, nothing more
    python benchmarks/zoo_latency.py --peers results-imagenet.csv # timm's peers anew, with timm's own list of scores

Needs `mobilezoo device setup emulator`. Cells are kept in --work: one of each network's files, one of each file on each
core; rows of --out that the same versions of all tools made are not counted again, unless `export` has learned since to
write the file otherwise (`revision`). Networks are fresh with random norms
(zero gammas would be folded away), one thread, batch 1. In steps of twofold MACs: networks of the zoo with a published
score, then timm's, then the rest; the first core before the second.

XNNPACK picks kernels by the core's part number, so one trace cannot price both cores: of MnasNet-A1-0.35's instructions
on the A76 only 11% (fp32), 37% (fp16) and 51% (int8) are executed on the A55 too (`--same-kernels FILE...`). Where a
core's calibration has no memory term, its caches are not simulated, which saves time.
"""

import argparse
import csv
import fnmatch
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from common import Kept, Row, export_unproven

from mobilezoo.errors import MobilezooError
from mobilezoo.files import versions, write_text
from mobilezoo.models.base import TIMM
from mobilezoo.models.latency_table import REVISION, TABLE, CoreFacts, LatencyRow, LatencyTable, Peer
from mobilezoo.models.table import read_table
from mobilezoo_latency import load_device
from mobilezoo_latency.emulator.counting import count_blocks
from mobilezoo_latency.emulator.device import EmulatedDevice
from mobilezoo_latency.emulator.layout import find_emulator
from mobilezoo_latency.emulator.pricing import cycles_of

CORES, PRECISIONS = ("cortex_a76", "cortex_a55"), ("fp32", "fp16", "int8")
PEERS = (
    "mobilenetv1_100.ra4_e3600_r224_in1k",
    "mobilenetv2_050.lamb_in1k",
    "mobilenetv2_100.ra_in1k",
    "mobilenetv2_140.ra_in1k",
    "mobilenetv3_small_050.lamb_in1k",
    "mobilenetv3_small_100.lamb_in1k",
    "mobilenetv3_large_100.ra_in1k",
    "mobilenetv4_conv_small_050.e3000_r224_in1k",
    "mobilenetv4_conv_small.e2400_r224_in1k",
    "mobilenetv4_conv_medium.e500_r224_in1k",
    "efficientnet_lite0.ra_in1k",
    "efficientnet_b0.ra_in1k",
    "repvit_m0_9.dist_450e_in1k",
    "repvit_m1_0.dist_450e_in1k",
    "efficientvit_m0.r224_in1k",
    "efficientvit_m3.r224_in1k",
    "efficientvit_m5.r224_in1k",
    "efficientvit_b0.r224_in1k",
    "efficientvit_b1.r224_in1k",
    "edgenext_xx_small.in1k",
    "mobileone_s1.apple_in1k",
    "starnet_s1.in1k",
    "starnet_s4.in1k",
    "swiftformer_xs.dist_in1k",
    "tiny_vit_5m_224.in1k",
    "mobilevit_xxs.cvnets_in1k",
    "mobilevit_s.cvnets_in1k",
    "mobilevitv2_050.cvnets_in1k",
    "lcnet_050.ra2_in1k",
    "lcnet_100.ra2_in1k",
    "tinynet_e.in1k",
    "tinynet_a.in1k",
    "mixnet_s.ft_in1k",
    "fbnetc_100.rmsp_in1k",
    "spnasnet_100.rmsp_in1k",
    "hardcorenas_a.miil_green_in1k",
    "regnety_002.pycls_in1k",
    "rexnet_100.nav_in1k",
    "repghostnet_100.in1k",
    "efficientformerv2_s0.snap_dist_in1k",
)
PEERS_FACTS = Path(__file__).with_name("zoo_peers.json")
PEERS_SOURCE = "huggingface/pytorch-image-models@aa4b5850c1:results/results-imagenet.csv"
IMAGES = 8
"""For calibration, and to compare each file with PyTorch."""
SEED = 0
PROTOCOL = (
    "LiteRT file with XNNPACK, batch 1, one thread, one warm run after one warm-up run; instructions counted under "
    "QEMU, priced by llvm-mca, converted to milliseconds by the core's calibration; weights and norms random (seed 0), "
    f"int8 calibrated on at least {IMAGES} photographs"
)
TOOLS = ("mobilezoo", "torch", "timm", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")


class Network(NamedTuple):
    """A network to count."""

    name: str
    group: int
    """0: of the zoo, with a published score; 1: timm's; 2: of the zoo, without."""
    macs: int

    @property
    def octave(self) -> int:
        """Doublings of MACs."""
        return math.floor(math.log2(self.macs))


def peers() -> list[Peer]:
    """timm's networks that the zoo is compared with, smallest first."""
    return [Peer.parse(facts, PEERS_FACTS.name) for facts in json.loads(PEERS_FACTS.read_text(encoding="utf-8"))]


def networks() -> list[Network]:
    """All of them, in the order they are counted."""
    zoo = []
    for row in read_table():
        scored = row["top1"] is not None or row["top1_distilled"] is not None
        zoo.append(Network(row["name"], 0 if scored else 2, row["macs"]))
    every = zoo + [Network(peer.name, 1, peer.macs) for peer in peers()]
    return sorted(every, key=lambda n: (n.octave, n.group, n.macs))


def jobs(chosen: Sequence[Network], cores: Sequence[str]) -> Iterator[tuple[Network, str]]:
    """(network, core): octave by octave, the first core before the second."""
    for octave in sorted({network.octave for network in chosen}):
        for core in cores:
            for network in chosen:
                if network.octave == octave:
                    yield network, core


def make_files(name: str, work: Path, converters: Any) -> Row:
    """LiteRT files of one network in every precision; what could not be made has its reason."""
    import torch

    from mobilezoo.models.randomize import as_if_trained
    from mobilezoo.workflows.export import spec_of
    from mobilezoo.workflows.load_model import load_model
    from mobilezoo_export import ExportConfig, ProofImages, export_model
    from mobilezoo_export.images import SAMPLE_NAME, sample_images

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    loaded = load_model(name)
    spec = spec_of(loaded)
    images = sample_images(spec, IMAGES)
    as_if_trained(loaded.network, torch.from_numpy(images), SEED)
    config = ExportConfig(targets=("litert",), precisions=PRECISIONS, parity_images=IMAGES)
    proof = ProofImages(images, f"{IMAGES} {SAMPLE_NAME}", images)
    made: Row = {}
    for result in export_model(loaded.network, spec, config, work, images=proof, isolate=converters):
        if result.path is None or result.artifact is None:
            made[result.precision] = {"reason": result.reason}
            if result.status == "failed" and result.precision == "int8":
                made[result.precision] = _unproven(loaded.network, config.spec(spec, "int8"), images, work)
            continue
        found = result.artifact.coverage
        made[result.precision] = {
            "file": Path(result.path).name,
            "size_bytes": result.artifact.size_bytes,
            "partitions": found.partitions if found else None,
            "zero_gammas": len(result.artifact.zero_gammas),
            "note": "; ".join(text for text in result.warnings if "computes in float32" in text),
        }
    return made


def _unproven(network: Any, spec: Any, images: Any, work: Path) -> Row:
    """An int8 file out of tolerance, which is counted all the same; its reason where it cannot be made."""
    from mobilezoo_export import load_exporter
    from mobilezoo_export.coverage import coverage

    try:
        path, zero_gammas = export_unproven(network, spec, images, work)
    except MobilezooError as error:
        return {"reason": str(error)}
    found = coverage(load_exporter("litert"), path)
    return {
        "file": path.name,
        "size_bytes": path.stat().st_size,
        "partitions": found.partitions if found else None,
        "zero_gammas": len(zero_gammas),
        "note": "int8 is out of tolerance with these random weights",
    }


def strides(name: str) -> Row:
    """Input pixels per pixel of each feature map; none for networks that give no maps."""
    import timm

    from mobilezoo.models import create_model

    create: Any = timm.create_model if name.startswith(TIMM) else create_model
    try:
        network = create(name.removeprefix(TIMM), features_only=True)
    except (RuntimeError, AttributeError):  # timm's ways to say that a network gives none
        return {"strides": []}
    return {"strides": list(network.feature_info.reduction())}


def count(path: Path, core: str) -> Row:
    """Cycles and estimated milliseconds of one file on one core; a refusal has its reason."""
    from mobilezoo.latency_report import Counts

    device, emulator = load_device(core), find_emulator()
    assert isinstance(device, EmulatedDevice)
    calibration = device.config.conversion
    assert calibration is not None, core
    if not path.is_file():  # no reason of the network's: it would be kept
        raise SystemExit(f"{str(path)!r} is gone: remove its network's lines from the kept cells")
    try:
        counted = count_blocks(emulator, device.config, path, memory=calibration.dram_cycles > 0)
    except MobilezooError as error:
        return {"reason": str(error)}
    counts = Counts(
        instructions=counted.instructions,
        cycles=cycles_of(emulator, device.config, counted.blocks),
        dram_lines=counted.misses[-1] if counted.misses else None,
    )
    estimate = device.estimate(counts, emulator.installed.llvm)  # in ms: the same for every precision
    if estimate is None:
        raise SystemExit(f"{core}: its calibration is of another LLVM version than {emulator.installed.llvm}")
    figures = counts.model_dump(exclude={"macs"}) | {"cycles": round(counts.cycles)}
    return {"latency_ms": round(estimate.latency_ms, 4), **figures}


def shipped_rows(out: Path) -> LatencyTable | None:
    """The table that is there; None if other versions of the tools made it."""
    if not out.is_file():
        return None
    shipped = LatencyTable.load(out)
    return shipped if (shipped.tools, shipped.protocol) == (tools(), PROTOCOL) else None


def run(args: argparse.Namespace, kept: Kept, shipped: LatencyTable | None) -> None:
    """Count what is asked for and not counted yet."""
    from mobilezoo_export.convert import Converters

    wanted = [n for n in networks() if fnmatch.fnmatch(n.name, args.only) and n.macs <= args.max_gmacs * 1e9]
    precisions = args.precisions.split(",")
    rows = shipped.rows if shipped else ()
    known = {cell_of(row.model, row.precision, row.device) for row in rows if row.revision == REVISION}
    new: set[str] = set()
    with ExitStack() as held:
        converters = held.enter_context(Converters())
        for network, core in jobs(wanted, args.cores.split(",")):
            cells = {p: cell_of(network.name, p, core) for p in precisions}
            if all(cell in kept.rows or cell in known for cell in cells.values()):
                continue
            if network.name not in new and len(new) == args.limit:
                continue
            new.add(network.name)
            kept(f"{network.name}/strides", partial(strides, network.name))
            files = kept(f"{network.name}/files", partial(make_files, network.name, args.work, converters))
            for precision, cell in cells.items():
                made = files[precision]
                if "file" not in made:
                    kept(cell, partial(dict, reason=made["reason"]))
                elif made["zero_gammas"]:
                    kept(cell, partial(dict, reason="norm weights are all zero: branches would be folded away"))
                else:
                    kept(cell, partial(count, args.work / made["file"], core))
        kept(f"workers/{len(kept.rows)}", lambda: held.close() or {})  # their CPU time is known when they end


def cell_of(model: str, precision: str, core: str) -> str:
    """Key of a count."""
    return f"{model}/{precision}/{core}"


def tools() -> dict[str, str]:
    """Versions that the counts rest on."""
    installed = find_emulator().installed
    return {**versions(TOOLS), "qemu": installed.qemu, "llvm": installed.llvm}


def table(kept: Kept, shipped: LatencyTable | None) -> LatencyTable:
    """What is counted so far, those of the shipped table included."""
    known = {cell_of(row.model, row.precision, row.device): row for row in (shipped.rows if shipped else ())}
    rows, old = [], 0
    for name, core, precision in ((n.name, core, p) for n in networks() for core in CORES for p in PRECISIONS):
        cell = cell_of(name, precision, core)
        if cell in kept.rows:
            rows.append(row_of(kept, name, core, precision))
        elif cell in known:
            rows.append(known[cell])
            old += 1
    strides_of = {row.model: tuple(one["strides"]) for row in rows if (one := kept.rows.get(f"{row.model}/strides"))}
    hours = sum(map(cpu_s, kept.rows.values())) / 3600
    if shipped and old:
        hours += shipped.cpu_hours * old / len(shipped.rows)
        strides_of = {**shipped.strides, **strides_of}
    return LatencyTable(
        protocol=PROTOCOL,
        tools=tools(),
        cores={core: core_facts(core) for core in CORES},
        cpu_hours=round(hours, 2),
        peers=tuple(peers()),
        strides=strides_of,
        rows=tuple(rows),
    )


def cpu_s(row: Row) -> float:
    """CPU seconds of a cell; those of a stopped one are part of the finished one's."""
    return 0.0 if row["cell"].endswith("/interrupted") else float(row["cpu_s"])


def row_of(kept: Kept, name: str, core: str, precision: str) -> LatencyRow:
    """One kept count as a row."""
    found = {**kept.rows[f"{name}/files"][precision], **kept.rows[f"{name}/{precision}/{core}"]}
    known = {key: value for key, value in found.items() if key in LatencyRow.model_fields}
    facts = {"model": name, "device": core, "precision": precision, "revision": REVISION}
    return LatencyRow.parse({**facts, **known}, name)


def core_facts(core: str) -> CoreFacts:
    """What a core's estimates rest on."""
    device = load_device(core)
    assert isinstance(device, EmulatedDevice)
    info, calibration = device.describe(), device.config.conversion
    assert calibration is not None
    return CoreFacts(
        description=device.config.description,
        cpu=info.cpu,
        runtime=info.runtime,
        held_out=dict(calibration.held_out),
        **calibration.model_dump(include={"error_percent", "low_ratio", "high_ratio", "basis"}),
    )


def same_kernels(paths: Sequence[Path]) -> None:
    """Print the share of each file's executed instructions in blocks of equal code on both cores."""
    emulator = find_emulator()
    for path in paths:
        found = []
        for core in CORES:
            device = load_device(core)
            assert isinstance(device, EmulatedDevice)
            found.append(count_blocks(emulator, device.config, path, memory=False))
        a, b = ({block.code: block.executions for block in one.blocks} for one in found)
        same = sum(min(n, b.get(code, 0)) * len(code) // 8 for code, n in a.items())
        shares = [same / one.instructions for one in found]
        print(
            f"{path.name}: {shares[0]:.1%} of {CORES[0]}'s instructions, {shares[1]:.1%} of {CORES[1]}'s are the same"
        )


def write_new_rows(kept: Kept, work: Path, path: Path) -> None:
    """The files' rows in the export matrix, for networks that have none of LiteRT there."""
    from mobilezoo.artifacts import Artifact, load_record_of
    from mobilezoo.workflows.matrix_table import write_matrix
    from mobilezoo_export import ExportResult

    there = path.read_text(encoding="utf-8")
    results = []
    for network in networks():
        if network.group == 1 or f"| {network.name} | litert |" in there or f"{network.name}/files" not in kept.rows:
            continue
        for precision in PRECISIONS:
            file = work / f"{network.name}.{precision}.tflite"
            reason = kept.rows[f"{network.name}/files"][precision].get("reason", "")
            if not reason and not file.with_name(file.name + ".json").is_file():
                continue  # out of tolerance, and so without a record
            record = None if reason else load_record_of(Artifact, file)
            status = "failed" if reason else "exported"
            facts = {"target": "litert", "precision": precision, "status": status, "reason": reason, "artifact": record}
            results.append((network.name, ExportResult(**facts)))
    write_matrix(results, path)


def write_peers(results: Path) -> None:
    """zoo_peers.json anew: each network at its own size, with timm's score at that size."""
    import timm

    from mobilezoo.models.macs import count as count_macs
    from mobilezoo.resolution import as_size

    with results.open(newline="", encoding="utf-8") as file:
        scores = {(row["model"], int(row["img_size"])): float(row["top1"]) for row in csv.DictReader(file)}
    facts = []
    for name in PEERS:
        known = timm.get_pretrained_cfg(name)
        assert known is not None, name
        size = as_size(known.input_size[-1])
        counted = count_macs(timm.create_model(name).eval(), size)
        score = {"top1": scores[name, size[0]], "license": known.license or "none stated (timm: Apache-2.0)"}
        facts.append({"name": f"timm:{name}", "resolution": size[0], **counted, **score, "source": PEERS_SOURCE})
    facts.sort(key=lambda row: row["macs"])
    write_text(PEERS_FACTS, json.dumps(facts, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/bench/zoo_latency"), help="files and kept cells")
    parser.add_argument("--only", default="*", help="shell pattern of names; timm's begin with timm:")
    parser.add_argument("--max-gmacs", type=float, default=math.inf)
    parser.add_argument("--limit", type=int, help="most networks of this call")
    parser.add_argument("--cores", default=",".join(CORES))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--table", action="store_true", help="write the table and stop")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--same-kernels", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--matrix", type=Path, metavar="MD", help="add rows to the export matrix and stop")
    parser.add_argument("--peers", type=Path, metavar="CSV")
    args = parser.parse_args()
    if args.peers:
        write_peers(args.peers)
    elif args.same_kernels:
        same_kernels(args.same_kernels)
    else:
        kept = Kept(args.work / f"cells-{REVISION}.jsonl")
        if args.matrix:
            write_new_rows(kept, args.work, args.matrix)
            return
        shipped = shipped_rows(args.out)
        if not args.table:
            run(args, kept, shipped)
        table(kept, shipped).save(args.out)


if __name__ == "__main__":
    main()
