"""Settings of a supernet's training and scoring, part of a search config."""

from pydantic import Field

from mobilezoo.config import Record


class SupernetSettings(Record):
    """The group `supernet` of a search config; used where `accuracy` is supernet or predictor."""

    checkpoint: str | None = Field(
        default=None, description="best.safetensors of a supernet trained before; null trains one by the recipe first"
    )
    random: int = Field(default=2, ge=0, description="networks per batch besides the largest and the smallest")
    calibration_batches: int = Field(
        default=8, gt=0, description="training batches from which a network's BatchNorm statistics are estimated anew"
    )
    eval_images: int | None = Field(
        default=None, gt=0, description="held-out images, evenly spread, that score a network; null takes all"
    )
    predictor_samples: int = Field(
        default=150, ge=20, description="networks scored by the supernet for `accuracy: predictor` to learn from"
    )
