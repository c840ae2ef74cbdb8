"""Print the five best classes of images, by the network beside this file.

python classify.py photo.jpg more.png
"""

import sys
from typing import Any

import numpy as np
from network import BAD_IMAGE, Network, read


class Classifier(Network):
    """The network, whose answer is a score for each class."""

    def best(self, path: str, count: int = 5) -> list[tuple[int, float]]:
        """(class, probability) of the most probable classes of an image file."""
        scores = self.answer(read(path, len(self.model["preprocessing"]["mean"])))
        shares = probabilities(scores, self.model)
        return [(int(i), float(shares[i])) for i in np.argsort(-shares, kind="stable")[:count]]


def probabilities(scores: np.ndarray, model: dict[str, Any]) -> np.ndarray:
    """Scores as a probability for each class."""
    if model["output"] == "logits":
        powers = np.exp(scores - scores.max())
        return np.asarray(powers / powers.sum())
    return scores / 100 if model["output"] == "percent" else scores


def main(paths: list[str]) -> int:
    if not paths:
        print("usage: python classify.py IMAGE ...", file=sys.stderr)
        return 2
    classifier, code = Classifier(), 0
    if not classifier.labels:
        print("no names of classes in model.json: they are shown by their number", file=sys.stderr)
    for path in paths:
        try:
            best = classifier.best(path)
        except BAD_IMAGE as error:
            print(f"{path}: {' '.join(str(error).split())}", file=sys.stderr)
            code = 2
            continue
        print(path)
        for index, share in best:
            print(f"  {100 * share:6.2f} %  {index:4d}  {classifier.name(index)}".rstrip())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
