"""Feed-forward parts on feature maps."""

from torch import Tensor, nn


class MapMlp(nn.Module):
    """1×1 → GELU → 1×1 on [b, dim, H, W]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))
