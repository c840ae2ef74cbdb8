"""A detector and a segmenter on the feature maps of any backbone: a pyramid down to one map, and a head on it.

The pyramid is torchvision's (Feature Pyramid Networks, arXiv:1612.03144), the detector's head is anchor-free as in FCOS
(arXiv:1904.01355) but on one map and without its centerness, the segmenter is that of Panoptic FPN (arXiv:1901.02446,
section 3) on one map. The output is a single one of a fixed layout, decoded inside the network.

Shape letters: B batch, H W height and width of the image, h w of the map, N = h w places, K classes.
"""

from collections import OrderedDict

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from mobilezoo.errors import ConfigError
from mobilezoo.resolution import Size, as_size

COARSEST = 32
"""Largest stride of a feature map that is read, where the backbone has a finer one."""
START_LOGIT, START_DISTANCE = -4.0, -2.0
"""Biases before training: scores of 2 %, and sides at 12 % of the image from the place's center."""


class Neck(nn.Module):
    """The feature map nearest to a stride, with what the coarser ones add to it."""

    def __init__(self, backbone: str, stride: int, channels: int, **kwargs: object) -> None:
        """`kwargs` go to `timm.create_model`."""
        super().__init__()
        strides = _feature_strides(backbone, kwargs)
        first = min(range(len(strides)), key=lambda i: abs(strides[i] - stride))
        taken = [i for i, one in enumerate(strides) if i == first or (i > first and one <= COARSEST)]
        self.backbone = timm.create_model(backbone, features_only=True, out_indices=tuple(taken), **kwargs)
        self.stride = strides[first]
        self.in_chans = int(kwargs.get("in_chans", 3))  # type: ignore[call-overload]
        self.widths = list(self.backbone.feature_info.channels())
        self.pyramid = FeaturePyramidNetwork(self.widths, channels, norm_layer=nn.BatchNorm2d)
        for unused in list(self.pyramid.layer_blocks)[1:]:
            for parameter in unused.parameters():
                parameter.requires_grad_(False)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """[B, channels, h, w]."""
        maps = OrderedDict((str(i), one) for i, one in enumerate(self.backbone(x_bchw)))
        found = [one.shape[1] for one in maps.values()]
        if found != self.widths:
            raise ConfigError(f"the backbone's maps are not [B, C, h, w]: {self.widths} channels, {found} on that axis")
        finest: Tensor = self.pyramid(maps)["0"]
        return F.relu(finest)


class Detector(nn.Module):
    """Boxes at every place of a feature map.

    Output [B, N, 4 + K]: left, top, right and bottom as shares 0..1 of the image's sides, then the probability of each
    class, independent of the others. All are within 0..1, so that one 8-bit scale fits them.
    """

    places: Tensor
    """Centers (x, y) of the places [N, 2]."""
    stride: tuple[float, float]
    """(x, y) distance of neighbouring places, in shares of the image."""

    def __init__(self, backbone: str, classes: int, size: int | Size, channels: int = 64, **kwargs: object) -> None:
        """A network for images of one size.

        Args:
            backbone: any name that `timm.create_model` takes.
            classes: number of classes, K.
            size: (height, width) of the images, or the side of square ones.
            channels: width of the pyramid and of the head.
            kwargs: arguments of `timm.create_model`.

        Raises:
            ConfigError: the backbone is unknown or gives no feature maps.
        """
        super().__init__()
        self.features = Neck(backbone, 8, channels, **kwargs)
        self.classes = nn.Sequential(_conv(channels), nn.Conv2d(channels, classes, 1))
        self.sides = nn.Sequential(_conv(channels), nn.Conv2d(channels, 4, 1))
        for branch, start in ((self.classes, START_LOGIT), (self.sides, START_DISTANCE)):
            nn.init.constant_(branch[-1].bias, start)  # type: ignore[arg-type]
        rows, columns = _map_size(self.features, as_size(size))
        self.stride = 1 / columns, 1 / rows
        self.register_buffer("places", _centers(rows, columns), persistent=False)

    def raw(self, x_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [B, N, 4] that may reach beyond the image, and logits [B, N, K]: what the loss is computed on."""
        map_bchw = self.features(x_bchw)
        sides = self.sides(map_bchw).flatten(2).transpose(1, 2).sigmoid()
        logits = self.classes(map_bchw).flatten(2).transpose(1, 2)
        return torch.cat((self.places - sides[..., :2], self.places + sides[..., 2:]), -1), logits

    def forward(self, x_bchw: Tensor) -> Tensor:
        """[B, N, 4 + K]."""
        boxes, logits = self.raw(x_bchw)
        return torch.cat((boxes.clamp(0, 1), logits.sigmoid()), -1)


class Segmenter(nn.Module):
    """The class of every pixel. Output [B, H, W, K]: logits, with the classes of a pixel side by side."""

    def __init__(self, backbone: str, classes: int, channels: int = 64, **kwargs: object) -> None:
        """A network for images of any size.

        Args:
            backbone: any name that `timm.create_model` takes.
            classes: number of classes, K; the first is the background.
            channels: width of the pyramid and of the head.
            kwargs: arguments of `timm.create_model`.

        Raises:
            ConfigError: the backbone is unknown or gives no feature maps.
        """
        super().__init__()
        self.features = Neck(backbone, 4, channels, **kwargs)
        self.classes = nn.Sequential(_conv(channels), nn.Conv2d(channels, classes, 1))

    def forward(self, x_bchw: Tensor) -> Tensor:
        """[B, H, W, K]."""
        logits = self.classes(self.features(x_bchw))
        return F.interpolate(logits, x_bchw.shape[2:], mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


def _conv(channels: int) -> nn.Sequential:
    """A depthwise and a pointwise convolution."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


def _feature_strides(backbone: str, kwargs: dict[str, object]) -> list[int]:
    """Strides of a backbone's feature maps, finest first. Raises ConfigError."""
    try:
        found: list[int] = timm.create_model(backbone, features_only=True, **kwargs).feature_info.reduction()
    except (RuntimeError, AttributeError, AssertionError, NotImplementedError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"backbone {backbone!r} gives no feature maps: {reason}; `mobilezoo recommend --task dense` names some"
        ) from None
    return found


def _map_size(features: Neck, size: Size) -> tuple[int, int]:
    """Rows and columns of the map of an image."""
    with torch.no_grad():
        rows, columns = features.eval()(torch.zeros(1, features.in_chans, *size)).shape[2:]
    features.train()
    return rows, columns


def _centers(rows: int, columns: int) -> Tensor:
    """Centers (x, y) of a map's places [N, 2], row by row, as shares 0..1 of the image."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), -1)
