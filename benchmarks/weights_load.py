"""`create_model(NAME, pretrained=True)` from a warm cache, against the same file loaded by hand.

    python benchmarks/weights_load.py                       # files of 21 and 100 MB
    python benchmarks/weights_load.py --pairs 15 shvit_s1

By hand: `create_model`, `torch.load(weights_only=True)` and `load_state_dict`. Both ways run in turns in one process;
the ratio is taken within each pair. CPU time is the figure, as nothing here waits for anything but the processor. Peak
memory is that of a fresh process for each way.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

WAYS = ("ours", "hand")


def prepare(name: str, folder: Path) -> Path:
    """A file as authors publish it, fetched into the cache as if it had been downloaded by hand."""
    import torch

    from mobilezoo.models import create_model
    from mobilezoo.models.randomize import randomize_norms

    path = folder / f"{name}.pth"
    if not path.exists():
        torch.manual_seed(0)
        torch.save({"model": randomize_norms(create_model(name)).state_dict()}, path)
    return path


def load(way: str, name: str, path: Path) -> None:
    """Build the network with the file's weights."""
    import torch

    from mobilezoo.models import create_model, load_model_config
    from mobilezoo.models.published.cache import place_of
    from mobilezoo.models.published.choose import Published
    from mobilezoo.models.published.fetch import fetch
    from mobilezoo.models.weight_file import WeightFile

    if way == "hand":
        create_model(name).load_state_dict(torch.load(path, weights_only=True)["model"])
        return
    file = WeightFile(url="https://example.org/x.pth", license="none stated", source="benchmark", key=("model",))
    config = load_model_config(name).model_copy(update={"weights": {"in1k": file}})
    one = Published(config, "in1k", file)
    if not place_of(one).is_file():
        fetch(one, given=path)
        return
    create_model(config, pretrained=True)


def pairs(name: str, path: Path, count: int) -> list[dict[str, float]]:
    """CPU and wall seconds of each way, in turns."""
    found = []
    for number in range(count + 2):
        row = {}
        for way in WAYS if number % 2 else WAYS[::-1]:
            cpu, wall = time.process_time(), time.perf_counter()
            load(way, name, path)
            row[way], row[f"{way}_wall"] = time.process_time() - cpu, time.perf_counter() - wall
        found.append(row)
    return found[2:]


def peak_mb(way: str, name: str, path: Path) -> float:
    """Peak memory of a process that loads once, in MB."""
    code = (
        "import sys, resource; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import weights_load as b;"
        "import torch, timm, mobilezoo.models.factory;"
        "b.load(sys.argv[2], sys.argv[3], Path(sys.argv[4]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, here, way, name, str(path)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["ghostnet_100", "iformer_l2"])
    parser.add_argument("--pairs", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MOBILEZOO_CACHE"] = f"{folder}/cache"
        for name in args.models:
            path = prepare(name, Path(folder))
            load("ours", name, path)
            time.sleep(3)  # a file that was just written is compared once more
            rows = pairs(name, path, args.pairs)
            ratios = [row["ours"] / row["hand"] for row in rows]
            low, _, high = quantiles(ratios, n=4)
            size = path.stat().st_size / 1e6
            cpu = [f"{1e3 * median(row[way] for row in rows):.0f} ms" for way in WAYS]
            memory = [f"{peak_mb(way, name, path):.0f} MB" for way in WAYS]
            spread = f"quartiles {low:.2f} to {high:.2f}, range {min(ratios):.2f} to {max(ratios):.2f}"
            print(f"{name}, {size:.0f} MB, {args.pairs} pairs: CPU {cpu[0]}, by hand {cpu[1]}", flush=True)
            print(f"  ratio {median(ratios):.2f} ({spread}); peak memory {memory[0]}, by hand {memory[1]}", flush=True)


if __name__ == "__main__":
    main()
