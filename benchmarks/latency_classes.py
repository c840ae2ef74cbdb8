"""Error of an emulated core's milliseconds by class of network: plain, squeeze and excite, hybrid, int8.

The calibration is fitted to fp32 CNNs, as in latency_emulator.py; each one is left out of the fit that estimates it.
Hybrids and int8 files are estimated by that fit, and by one of their own, again left out. Needs what
latency_emulator.py needs, and shares its folder.

    python benchmarks/latency_classes.py --phones ../shared/phones --board pixel4 --cores 1large
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from latency_emulator import BOARDS, MAX_GMACS, equal_networks, spearman

from mobilezoo.artifacts import Preprocessing
from mobilezoo.files import write_text
from mobilezoo_latency import Store, profile
from mobilezoo_latency.emulator.calibration import MIN_NETWORKS, Known, fit, left_out_ms
from mobilezoo_latency.emulator.device import estimate_of
from mobilezoo_latency.emulator.layout import find_emulator

HYBRIDS = {
    # the table's name: timm's, resolution, 10^9 multiply-adds; equal once the products of attention are counted
    "mobilevit-xx-small": ("mobilevit_xxs", 256, 0.41),
    "mobilevit-x-small": ("mobilevit_xs", 256, 1.03),
    "deit-tiny-distilled-patch16-224": ("deit_tiny_distilled_patch16_224", 224, 1.26),
    "efficientformer-l1-300": ("efficientformer_l1", 224, 1.30),
    "mobilevit-small": ("mobilevit_s", 256, 2.00),
    "swin-tiny-patch4-window7-224": ("swin_tiny_patch4_window7_224", 224, 4.49),
    "deit-small-distilled-patch16-224": ("deit_small_distilled_patch16_224", 224, 4.63),
}
SQUEEZED = ("mobilenetv3", "mnasnet_a1", "ghostnet", "seresnet")
IMAGES = 8
Times = dict[tuple[str, str], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--phones", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/emulator"))
    parser.add_argument("--max-gmacs", type=float, default=MAX_GMACS)
    parser.add_argument("--board", default="pixel4")
    parser.add_argument("--cores", default="1large")
    parser.add_argument("--only-made", action="store_true", help="export nothing: take the files that are in --out")
    parser.add_argument("--result", type=Path, help="a second place for the table, such as benchmarks/results/...")
    args = parser.parse_args()
    core, times = BOARDS[args.board, args.cores], board_times(args.phones, args.board, args.cores)
    cnns = {name: (timm_name, 224) for name, (timm_name, _) in equal_networks(args.phones, args.max_gmacs).items()}
    hybrids = {name: (timm, size) for name, (timm, size, gmacs) in HYBRIDS.items() if gmacs <= args.max_gmacs}
    store = Store(args.out / "latency.db")
    known: dict[str, list[Known]] = {"fp32": [], "int8": []}
    for name, (timm_name, size) in (cnns | hybrids).items():
        for precision, of in known.items():
            path = file_of(timm_name, size, precision, args.out, made=args.only_made)
            counts = profile(path, core, store=store).counts if path else None
            if counts is not None and (precision, name) in times:
                of.append(Known(name, counts, times[precision, name]))
    text = "\n".join(class_lines(known, f"{args.board} {args.cores}", core)) + "\n"
    write_text(args.out / f"classes_{args.board}_{args.cores}.md", text)
    if args.result:
        write_text(args.result, text)
    print(text)


def board_times(phones: Path, board: str, cores: str) -> Times:
    """(precision, table name) to milliseconds on one board."""
    with (phones / "mobile_ml_benchmark.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if (row["device"], row["cores"]) == (board, cores)]
    return {(row["precision"], row["model"]): float(row["mean_ms"]) for row in rows}


def file_of(name: str, size: int, precision: str, out: Path, *, made: bool) -> Path | None:
    """The LiteRT file of a timm (or `tv:` torchvision) network; None where a precision cannot be made."""
    stem = name.removeprefix("tv:")
    path = out / f"{stem}.{precision}.tflite"
    if path.with_name(path.name + ".json").is_file() or made:
        return path if path.is_file() else None
    import timm
    import torch
    import torchvision

    from mobilezoo.models.randomize import randomize_norms
    from mobilezoo_export import ExportConfig, ModelSpec, ProofImages, export_model
    from mobilezoo_export.images import SAMPLE_NAME, sample_images

    torch.set_num_threads(1)
    torch.manual_seed(0)
    create = getattr(torchvision.models, stem)(weights=None) if name != stem else timm.create_model(name)
    network = randomize_norms(create.eval(), torch.Generator().manual_seed(0))
    plain = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    spec = ModelSpec(model=stem, resolution=(size, size), preprocessing=plain)
    images = sample_images(spec, IMAGES)
    config = ExportConfig(targets=("litert",), precisions=(precision,), parity_images=IMAGES)
    proof = ProofImages(images, f"{IMAGES} {SAMPLE_NAME}", images)
    (result,) = export_model(network, spec, config, out, images=proof)
    if result.path is None:
        print(f"{name} {precision}: {result.reason}")
    return Path(result.path) if result.path else None


def class_of(name: str) -> str:
    """Class of a network by its name in the table."""
    if "-" in name:
        return "hybrid"
    return "squeeze and excite" if name.startswith(SQUEEZED) else "plain"


def class_lines(known: dict[str, list[Known]], board: str, core: str) -> list[str]:
    """The table of one board."""
    llvm = find_emulator().installed.llvm
    cnns = [k for k in known["fp32"] if class_of(k.name) != "hybrid"]
    found = fit(cnns, basis=board, llvm=llvm)
    lines = [
        f"{board}, {core}: {found.ms_per_megacycle:.4f} ms/Mcycle, {found.dram_cycles:.0f} cycles per line "
        f"from {len(cnns)} fp32 CNNs",
        "",
        "| precision | class | fit | networks | Spearman | error | by network |",
        "|---|---|---|---|---|---|---|",
    ]
    left_out = [left_out_ms(cnns, i) for i in range(len(cnns))]
    lines.append(row_of("fp32", "all CNNs", "fp32 CNNs, left out", cnns, left_out))
    for kind in ("plain", "squeeze and excite"):
        chosen = [i for i, k in enumerate(cnns) if class_of(k.name) == kind]
        lines.append(
            row_of("fp32", kind, "fp32 CNNs, left out", [cnns[i] for i in chosen], [left_out[i] for i in chosen])
        )
    for precision in ("fp32", "int8"):
        kinds = ("hybrid",) if precision == "fp32" else ("plain", "squeeze and excite", "hybrid")
        for kind in kinds:
            of = [k for k in known[precision] if class_of(k.name) == kind]
            lines.append(
                row_of(precision, kind, "fp32 CNNs", of, [estimate_of(found, k.counts).latency_ms for k in of])
            )
    for precision, kind in (("fp32", "hybrid"), ("int8", "CNN"), ("int8", "hybrid")):
        of = [k for k in known[precision] if (class_of(k.name) == "hybrid") == (kind == "hybrid")]
        if len(of) >= MIN_NETWORKS:
            own = [left_out_ms(of, i) for i in range(len(of))]
            lines.append(row_of(precision, kind, "its own, left out", of, own))
    return lines


def row_of(precision: str, kind: str, by: str, known: Sequence[Known], guess: Sequence[float]) -> str:
    """One row; a rank correlation needs three networks."""
    errors = [g / k.real_ms - 1 for g, k in zip(guess, known, strict=True)]
    rank = f"{spearman(list(guess), [k.real_ms for k in known]):.3f}" if len(known) >= MIN_NETWORKS else ""
    single = ", ".join(f"{k.name} {e:+.1%}" for k, e in zip(known, errors, strict=True))
    error = f"{fmean(map(abs, errors)):.1%}" if errors else ""
    return f"| {' | '.join([precision, kind, by, str(len(known)), rank, error, single])} |"


if __name__ == "__main__":
    main()
