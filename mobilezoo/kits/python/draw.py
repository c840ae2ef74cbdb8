"""Draw the boxes or the mask that the network beside this file finds: photo.jpg gives photo.found.png in this folder.

python draw.py photo.jpg more.png
"""

import colorsys
import sys
from pathlib import Path

import numpy as np
from network import BAD_IMAGE, Network, read, resized_size, start
from PIL import Image, ImageDraw, ImageFont

MOST = 100
"""Boxes of an image."""
Sides = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class Finder(Network):
    """The network, whose answer is boxes (task detect) or the class of every pixel (task segment)."""

    def boxes(self, image: Image.Image) -> list[tuple[int, float, Sides]]:
        """(class, probability, sides in pixels of the image), most probable first."""
        left, top, width, height = self.placement(image)
        answer = self.answer(image).reshape(self.model["output_shape"])
        return [
            (index, score, (left + a * width, top + b * height, left + c * width, top + d * height))
            for index, score, (a, b, c, d) in best_boxes(answer, **self.model["boxes"])
        ]

    def mask(self, image: Image.Image) -> np.ndarray:
        """The class of every pixel of the crop that the network sees; `placement` has where it lies in the image."""
        return np.asarray(self.answer(image).reshape(self.model["output_shape"]).argmax(-1))

    def placement(self, image: Image.Image) -> tuple[float, float, float, float]:
        """Left, top, width and height of the crop in pixels of the image; it may reach beyond it."""
        size = self.model["size"]
        height, width = resized_size(image.height, image.width, size, self.model["preprocessing"])
        x, y = image.width / width, image.height / height
        return start(width, size[1]) * x, start(height, size[0]) * y, size[1] * x, size[0] * y

    def draw(self, image: Image.Image) -> tuple[Image.Image, list[str]]:
        """The image with what was found in it, and a line of text for each of it."""
        if self.model["task"] == "detect":
            found = self.boxes(image)
            return draw_boxes(image, found, self), [self.line(i, p, f"  {_numbers(sides)}") for i, p, sides in found]
        mask = self.mask(image)
        shares = np.bincount(mask.ravel()) / mask.size
        largest = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] > 0]
        return draw_mask(image, mask, self.placement(image)), [self.line(i, shares[i]) for i in largest]

    def line(self, index: int, share: float, more: str = "") -> str:
        """One line of text: probability or share, number and name of a class."""
        return f"  {100 * share:6.2f} %  {index:4d}  {self.name(index)}{more}".rstrip()


def best_boxes(answer: np.ndarray, score: float, overlap: float) -> list[tuple[int, float, Sides]]:
    """Boxes of rows [left, top, right, bottom, probability of each class], without those that cover a better one."""
    best = answer[:, 4:].argmax(1)
    scores = answer[np.arange(len(answer)), 4 + best]
    scores = np.where((answer[:, 2:4] > answer[:, :2]).all(1), scores, 0)  # without an area it is no box
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] < score or len(kept) == MOST:
            break
        if all(best[i] != best[j] or covered(answer[i, :4], answer[j, :4]) <= overlap for j in kept):
            kept.append(int(i))
    return [(int(best[i]), float(scores[i]), sides_of(answer[i])) for i in kept]


def sides_of(row: np.ndarray) -> Sides:
    """Left, top, right and bottom."""
    left, top, right, bottom = map(float, row[:4])
    return left, top, right, bottom


def covered(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = max(0.0, float(width)) * max(0.0, float(height))
    either = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - both
    return both / either if either > 0 else 0.0


def color(index: int) -> tuple[int, int, int]:
    """A color for each class, far from those of its neighbours."""
    red, green, blue = colorsys.hls_to_rgb(index * 0.381966 % 1, 0.55, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(image: Image.Image, found: list[tuple[int, float, Sides]], finder: Finder) -> Image.Image:
    """A copy of the image with boxes, each with its class."""
    drawn = image.convert("RGB")
    pen, wide = ImageDraw.Draw(drawn), max(1, round(max(image.size) / 250))
    tall = max(10, 6 * wide)
    font = ImageFont.load_default(tall)
    for index, share, sides in reversed(found):
        text = f"{finder.name(index) or index} {100 * share:.0f} %"
        pen.rectangle(sides, outline=color(index), width=wide)
        corner = max(0.0, sides[0]), max(0.0, sides[1] - tall - 2 * wide)
        pen.rectangle(pen.textbbox(corner, text, font=font), fill=color(index))
        pen.text(corner, text, fill="black", font=font)
    return drawn


def draw_mask(image: Image.Image, mask: np.ndarray, place: tuple[float, float, float, float]) -> Image.Image:
    """A copy of the image with the classes of a mask in color; the first one, the background, stays clear."""
    colors = np.array([color(index) for index in range(int(mask.max()) + 1)], np.uint8)[mask]
    opacity = np.where(mask > 0, 160, 0).astype(np.uint8)
    left, top, width, height = (round(value) for value in place)
    layer = Image.fromarray(np.dstack((colors, opacity))).resize((width, height), Image.Resampling.NEAREST)
    drawn = image.convert("RGB")
    drawn.paste(layer.convert("RGB"), (left, top), layer.getchannel("A"))
    return drawn


def _numbers(sides: Sides) -> str:
    return " ".join(f"{side:.1f}" for side in sides)


def main(paths: list[str]) -> int:
    if not paths:
        print("usage: python draw.py IMAGE ...", file=sys.stderr)
        return 2
    finder, code = Finder(), 0
    written = set[Path]()
    for path in paths:
        out = Path(f"{Path(path).stem}.found.png")
        try:
            if out in written:
                raise ValueError(f"{out} is the picture of another image of this name: draw it by itself")
            drawn, lines = finder.draw(read(path, len(finder.model["preprocessing"]["mean"])))
            part = out.with_suffix(".part")
            drawn.save(part, format="PNG")
            part.replace(out)
        except BAD_IMAGE as error:
            print(f"{path}: {' '.join(str(error).split())}", file=sys.stderr)
            code = 2
            continue
        written.add(out)
        print(f"{path} -> {out}")
        print("\n".join(lines or ["  nothing found"]))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
