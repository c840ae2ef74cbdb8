"""Put a network of timm on a phone: a LiteRT file, its operators and partitions, and where its milliseconds go.

python examples/timm_to_phone.py mobilenetv4_conv_small            # weights are random unless you name a checkpoint
python examples/timm_to_phone.py resnet18 --checkpoint finetuned.pth
"""

import argparse

import mobilezoo


def main(arguments: list[str] | None = None) -> None:
    """Export, look into the file, time it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network")
    parser.add_argument("--checkpoint")
    args = parser.parse_args(arguments)
    weights = {"checkpoint": args.checkpoint} if args.checkpoint else {}
    (file,) = mobilezoo.export(f"timm:{args.network}", to="litert", out="runs/timm", **weights)
    if file.path is None:
        raise SystemExit(file.reason)
    coverage = file.artifact.coverage
    print(f"{file.path}: {sum(coverage.ops.values())} operators, {coverage.partitions} XNNPACK partitions")
    print(mobilezoo.profile(file.path).samples_ms[:5], "ms")


if __name__ == "__main__":
    main()
