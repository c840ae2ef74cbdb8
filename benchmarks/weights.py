"""Every address of published weights fetched, and every published top-1 measured.

    python benchmarks/weights.py                                 # addresses alone: fetched, checked, loaded
    python benchmarks/weights.py --data folder:/data/imagenet    # and scored on the validation split
    python benchmarks/weights.py --only 'shvit*'

Needs the network, and room for the cache (MOBILEZOO_CACHE). Files that only a browser can have are listed as such. A
table is written after every file; what is in it is not done again.
"""

import argparse
import csv
from pathlib import Path

from mobilezoo.errors import MobilezooError
from mobilezoo.models.published.choose import Published, all_published
from mobilezoo.models.published.fetch import fetch
from mobilezoo.workflows.evaluate import evaluate
from mobilezoo.workflows.load_model import load_model
from mobilezoo.workflows.model_options import ModelOptions

COLUMNS = ("name", "access", "address", "state", "sha256", "published_top1", "measured_top1", "reason")


def check(one: Published, data: str | None) -> dict[str, object]:
    """Fetch, load and (with data) score one file; what went wrong is in the row's reason."""
    row: dict[str, object] = {
        "name": one.name,
        "access": one.file.access,
        "address": one.file.address,
        "published_top1": one.file.top1,
    }
    options = ModelOptions(pretrained=one.tag)
    try:
        row["sha256"] = fetch(one).sha256
        row["state"] = "fetched"
        load_model(one.config.name, options)
        row["state"] = "loaded"
        if data is not None:
            row["measured_top1"] = round(evaluate(one.config.name, data, options, classes="imagenet-1k").top1, 3)
            row["state"] = "scored"
    except MobilezooError as error:
        row["reason"] = str(error)
        row.setdefault("state", "not fetched")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="shell pattern of networks, with or without a tag")
    parser.add_argument("--data", help="ImageNet-1k in folders: folder:PATH")
    parser.add_argument("--out", type=Path, default=Path("runs/weights.csv"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done: set[str] = set()
    if args.out.is_file():
        with args.out.open(newline="", encoding="utf-8") as file:
            done = {
                row["name"] for row in csv.DictReader(file) if row["state"] == ("scored" if args.data else "loaded")
            }
    for one in all_published(args.only):
        if one.name in done:
            continue
        row = check(one, args.data)
        new = not args.out.is_file()
        with args.out.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(f"{row['state']:12} {one.name} {row.get('measured_top1', '')} {row.get('reason', '')}")


if __name__ == "__main__":
    main()
