"""Search a small space for networks that are accurate on digits and fast in LiteRT, and train the best one in full.

python examples/search_small.py            # some minutes on 2 CPU cores; run again, it goes on
"""

import mobilezoo


def main() -> None:
    """Search, print the front, train the best network's YAML."""
    hooks = mobilezoo.Hooks(on_message=print)
    found = mobilezoo.search("digits", "trials=6", "check_target=false", out="runs/example-search", hooks=hooks)
    for number in found.front:
        trial = found.trial(number)
        print(f"trial {number}: top-1 {trial.top1:.2f}% at {trial.latency.ms:.3f} ms")
    best = mobilezoo.train("digits", f"model={found.best_yaml}", out="runs/example-best")
    print(f"{best.path}: top-1 {best.top1:.2f}%")


if __name__ == "__main__":
    main()
