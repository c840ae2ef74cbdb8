"""Train a backbone on scanned digits, write files for three phone runtimes, and score each in its own runtime.

python examples/train_and_export.py            # two to three minutes on 2 CPU cores
"""

import mobilezoo


def main() -> None:
    """Train, export, score."""
    best = mobilezoo.train("digits", "train.epochs=4", out="runs/example")
    print(f"{best.path}: top-1 {best.top1:.2f}%")
    for file in mobilezoo.export(best.path, to=["onnx", "litert"], precision=["fp32", "int8"]):
        if file.path is None:
            print(f"{file.target} {file.precision}: {file.reason}")
            continue
        scores = mobilezoo.evaluate(file.path, workers=0)
        print(f"{file.path}: top-1 {scores.top1:.2f}%, {file.artifact.size_bytes / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
