"""Train a segmentation head on any backbone of the zoo: find the ink of scanned digits that lie on photographs.

The backbone comes from timm's registry with `features_only=True` (two feature maps: about stride 4, and the last), the
head is torchvision's LR-ASPP (MobileNetV3, arXiv:1905.02244, section 6.4). Images are scikit-learn's two bundled
photographs, or yours; on every crop lie three of its 1,797 real scanned digits, whose ink is the label.
Training and validation share neither digits nor photograph regions.

    python examples/segment_backbone.py                                  # two to four minutes on 2 CPU cores
    python examples/segment_backbone.py --model shvit_s1 --photos ~/Pictures --picture result.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn
from torchvision.models.segmentation.lraspp import LRASPP

import mobilezoo

CLASSES = 2
"""Photograph, ink."""
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class TwoMaps(nn.Module):
    """A `features_only` backbone as LR-ASPP wants it: a dict of a low and a high feature map."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x_bchw: Tensor) -> dict[str, Tensor]:
        low, high = self.backbone(x_bchw)
        return {"low": low, "high": high}


def build(name: str) -> LRASPP:
    """LR-ASPP on the feature map nearest to stride 4 and the last one of a backbone."""
    strides = timm.create_model(name, features_only=True).feature_info.reduction()
    low = min(range(len(strides) - 1), key=lambda i: abs(strides[i] - 4))
    backbone = timm.create_model(name, features_only=True, out_indices=(low, len(strides) - 1))
    low_chs, high_chs = backbone.feature_info.channels()
    return LRASPP(TwoMaps(backbone), low_chs, high_chs, CLASSES, inter_channels=64)


class DigitsOnPhotos:
    """Crops of photographs with scanned digits on them, and the class of every pixel."""

    def __init__(self, photos: Sequence[np.ndarray], train: bool, size: int, seed: int = 0) -> None:
        digits = load_digits()
        keep = slice(None, 1400) if train else slice(1400, None)
        self.scans = torch.tensor(digits.images[keep] / 16.0, dtype=torch.float32)
        self.photos = [_side(torch.tensor(p).permute(2, 0, 1).float() / 255, train) for p in photos]
        self.size = size
        self.generator = np.random.default_rng(seed)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """(normalised images [B, 3, S, S], classes [B, S, S])."""
        images, masks = zip(*(self._one() for _ in range(count)), strict=True)
        return torch.stack(images), torch.stack(masks)

    def _one(self) -> tuple[Tensor, Tensor]:
        draw, size = self.generator, self.size
        photo = self.photos[draw.integers(len(self.photos))]
        top, left = (int(draw.integers(n - size + 1)) for n in photo.shape[1:])
        image = photo[:, top : top + size, left : left + size].clone()
        mask = torch.zeros(size, size, dtype=torch.long)
        for _ in range(3):
            index, side = draw.integers(len(self.scans)), int(draw.integers(size // 4, size // 2))
            scan = F.interpolate(self.scans[None, None, index], size=side, mode="bilinear")[0, 0]
            y, x = (int(v) for v in draw.integers(size - side + 1, size=2))
            ink = scan > 0.4
            color = torch.tensor(draw.random(3), dtype=torch.float32).view(3, 1, 1)
            image[:, y : y + side, x : x + side] += (color - image[:, y : y + side, x : x + side]) * ink
            mask[y : y + side, x : x + side][ink] = 1
        return (image - MEAN) / STD, mask


def _side(photo: Tensor, train: bool) -> Tensor:
    """The left two thirds of a photograph for training, the right third for validation."""
    cut = photo.shape[2] * 2 // 3
    return photo[:, :, :cut] if train else photo[:, :, cut:]


def load_photos(folder: Path | None, size: int) -> list[np.ndarray]:
    """RGB photographs [H, W, 3] uint8: scikit-learn's two, or those of a folder that are large enough."""
    if folder is None:
        return list(load_sample_images().images)
    paths = sorted(p for p in folder.expanduser().rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    photos = [np.asarray(Image.open(p).convert("RGB")) for p in paths[:200]]
    photos = [p for p in photos if p.shape[0] >= size and p.shape[1] >= 3 * size]
    if not photos:
        raise SystemExit(f"no photograph in {str(folder)!r} is at least {3 * size} wide and {size} high")
    return photos


def train(model: nn.Module, data: DigitsOnPhotos, steps: int, batch_size: int = 8, lr: float = 2e-3) -> list[float]:
    """One AdamW step per batch on the pixels' cross entropy; returns the losses. Ink is rare, so it weighs more."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    weight = torch.tensor([0.3, 1.0])
    losses = []
    model.train()
    for step in range(steps):
        x, y = data.batch(batch_size)
        loss = F.cross_entropy(model(x)["out"], y, weight)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step:4d}  loss {losses[-1]:.3f}")
    return losses


@torch.no_grad()
def ink_iou(model: nn.Module, data: DigitsOnPhotos, batches: int = 8) -> float:
    """Intersection over union of found and true ink."""
    model.eval()
    both = either = 0
    for _ in range(batches):
        x, y = data.batch(8)
        found = model(x)["out"].argmax(1)
        both += int(((found > 0) & (y > 0)).sum())
        either += int(((found > 0) | (y > 0)).sum())
    return both / max(1, either)


@torch.no_grad()
def save_picture(model: nn.Module, data: DigitsOnPhotos, path: Path) -> None:
    """A PNG of four validation crops: image, true ink, found ink, one row each."""
    x, y = data.batch(4)
    found = model.eval()(x)["out"].argmax(1)
    palette = torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8)
    shown = ((x * STD + MEAN).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1)
    rows = [torch.cat([a, palette[b], palette[c]], 1) for a, b, c in zip(shown, y, found, strict=True)]
    Image.fromarray(torch.cat(rows).numpy()).save(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train LR-ASPP on a backbone of the zoo.")
    parser.add_argument("--model", default="mobilenetv2_ca_100", help="any name timm.create_model knows")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--size", type=int, default=128, help="pixels per side of a crop")
    parser.add_argument("--photos", type=Path, help="folder of photographs; default: scikit-learn's two")
    parser.add_argument("--picture", type=Path, help="write some results as a PNG")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    photos = load_photos(args.photos, args.size)
    model = build(args.model)
    held_out = DigitsOnPhotos(photos, train=False, size=args.size, seed=1)
    train(model, DigitsOnPhotos(photos, train=True, size=args.size), args.steps)
    model.backbone.backbone = mobilezoo.fuse(model.backbone.backbone)
    print(f"held out: IoU of the ink {ink_iou(model, held_out):.2f}")
    if args.picture:
        save_picture(model, held_out, args.picture)


if __name__ == "__main__":
    main()
