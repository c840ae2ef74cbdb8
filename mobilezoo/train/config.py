"""A training run as data: model, images, optimizer, schedule, losses, averaging, hardware."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mobilezoo.config import Record
from mobilezoo.data.config import DataConfig
from mobilezoo.preprocessing import COLORS
from mobilezoo.resolution import Resolution

MOST_EPOCHS, MOST_RATE = 100_000, 1e6
"""Beyond these, a typing error is likelier than a training."""
NOT_ARGS = {
    "num_classes": "the data has the classes",
    "pretrained": "write pretrained=true",
    "checkpoint_path": "write checkpoint=PATH",
    "features_only": "a classifier is trained",
    "out_indices": "a classifier is trained",
}
"""Arguments of timm's that are not for `model_args`, and why."""
Beta = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Optimizer(Record):
    """Passed to timm's `create_optimizer_v2`."""

    name: str = Field(default="adamw", description="any of timm's: adamw, sgd, rmsproptf, lion, ...")
    lr: float = Field(default=1e-3, gt=0, le=MOST_RATE, description="learning rate at `lr_batch` images per step")
    lr_batch: int | None = Field(
        default=None, gt=0, le=1 << 24, description="scale lr linearly by batch / lr_batch; null keeps it"
    )
    weight_decay: float = Field(
        default=0.05, ge=0, le=100, description="of weights; of biases and norms with decay_norms"
    )
    decay_norms: bool = Field(default=False, description="weight decay on biases and norms too")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of optimizers that have one")
    eps: float | None = Field(default=None, gt=0, le=1, description="null takes the optimizer's own")
    betas: tuple[Beta, Beta] | None = Field(default=None, description="null takes the optimizer's own")
    fused: bool | None = Field(
        default=None, description="one kernel per step; null takes it where torch has it: adam, adamw, sgd"
    )
    layer_decay: float | None = Field(
        default=None, gt=0, le=1, description="learning rate factor per layer from the top"
    )
    clip: float | None = Field(default=None, gt=0, le=1e6, description="gradient clipping threshold")
    clip_mode: Literal["norm", "value", "agc"] = "norm"


class Schedule(Record):
    """Passed to timm's `create_scheduler_v2`; stepped every update."""

    name: Literal["cosine", "step", "multistep", "poly", "constant"] = "cosine"
    warmup_epochs: int = Field(
        default=5, ge=0, le=MOST_EPOCHS, description="epochs of rising learning rate, part of `epochs`"
    )
    warmup_lr: float = Field(default=1e-6, ge=0, le=MOST_RATE, description="learning rate that the warm-up begins with")
    min_lr: float = Field(default=1e-5, ge=0, le=MOST_RATE, description="learning rate at the end")
    cooldown_epochs: int = Field(default=0, ge=0, le=MOST_EPOCHS, description="epochs at min_lr after the others")
    decay_epochs: float | None = Field(default=None, gt=0, le=MOST_EPOCHS, description="step: epochs between decays")
    decay_rate: float = Field(
        default=0.1, gt=0, le=1, description="step, multistep: factor of a decay; poly: its power"
    )
    noise: tuple[Share, Share] | None = Field(default=None, description="share of the run with learning rate noise")


class Ema(Record):
    """Exponential moving average of the weights (timm's ModelEmaV3)."""

    decay: float = Field(default=0.9999, gt=0, lt=1, description="share of the average that stays, per update")
    warmup: bool = Field(default=True, description="smaller decay in the first steps")


class Distill(Record):
    """Learn from a teacher as well: loss + weight × (KL(teacher ‖ student) × T², CE(teacher's class) or feature loss).

    A student with two heads learns the labels with the first and the teacher with the second.
    """

    teacher: str = Field(description="timm model name, its pretrained weights unless a checkpoint is named")
    checkpoint: str | None = Field(default=None, description="the teacher's weights; null takes timm's pretrained ones")
    weight: float = Field(default=1.0, gt=0, le=1e6, description="for kind=feature the paper takes 3000")
    temperature: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="softmax temperature of kind=soft; higher values expose the teacher's ranking of unlikely classes",
    )
    kind: Literal["soft", "hard", "feature"] = Field(
        default="soft", description="hard: the teacher's class is the target; feature: which images are alike to it"
    )
    resolution: Resolution | None = Field(
        default=None, description="teacher's input, 224 or 192x256 (height x width); null feeds the student's"
    )
    normalized: bool = Field(default=True, description="false: the teacher wants plain 0..1 pixels")


class TrainSettings(Record):
    """Length, batch, losses, averaging and hardware of a run."""

    epochs: int = Field(default=300, gt=0, le=MOST_EPOCHS, description="passes over the training images")
    seed: int = Field(default=0, ge=0, lt=1 << 32, description="of weights, order and augmentation")
    resolution: Resolution | None = Field(
        default=None, description="input in pixels, 224 or 192x256 (height x width); null takes the model's own"
    )
    accumulate: int = Field(default=1, gt=0, le=1 << 16, description="batches per optimizer step")
    loss: Literal["ce", "bce"] = "ce"
    smoothing: float = Field(default=0.1, ge=0, lt=1, description="label smoothing")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    amp: Literal["none", "bf16", "fp16"] = "none"
    channels_last: bool = Field(default=True, description="NHWC in memory: faster convolutions on CPUs and GPUs")
    compile: bool = Field(
        default=False, description="torch.compile; where it fails the run goes on without, with a warning"
    )
    cuda_graphs: bool = Field(default=False, description="torch.compile with CUDA graphs: pays for small batches")
    wandb: str | None = Field(default=None, description="Weights & Biases project to log to, beside TensorBoard")
    checkpoint_activations: bool = Field(default=False, description="recompute activations: less memory, slower")
    on_out_of_memory: Literal["stop", "accumulate"] = Field(
        default="accumulate", description="a batch that does not fit ends the run, or is halved and accumulated"
    )
    sync_bn: bool = Field(default=False, description="batch statistics over all GPUs of a torchrun run")
    save_every_min: float | None = Field(
        default=15.0, gt=0, le=1e6, description="minutes between checkpoints inside an epoch"
    )
    save_every_steps: int | None = Field(
        default=None, gt=0, le=1 << 30, description="updates between checkpoints inside an epoch"
    )
    keep: int = Field(default=2, gt=0, le=10_000, description="how many last checkpoints stay")
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    ema: Ema | None = None
    distill: Distill | None = None
    qat: bool = Field(
        default=False, description="fake quantization (PT2E); ends in int8 files, start from a checkpoint"
    )
    export_every: int | None = Field(
        default=None, gt=0, le=MOST_EPOCHS, description="epochs between exported and scored files"
    )
    export_to: tuple[str, ...] = Field(default=("litert",), description="targets of export_every")
    export_precision: tuple[str, ...] = Field(default=("fp32",), description="precisions of export_every")

    @model_validator(mode="after")
    def _trains_quantized(self) -> "TrainSettings":
        clash = {"ema": self.ema, "distill": self.distill, "compile": self.compile, "amp": self.amp != "none",
                 "checkpoint_activations": self.checkpoint_activations}  # fmt: skip
        named = [key for key, value in clash.items() if value]
        if self.qat and named:
            raise ValueError(f"qat without {', '.join(named)}: fake quantization trains the plain network in float32")
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> "TrainSettings":
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs ({self.schedule.warmup_epochs}) below epochs ({self.epochs}): "
                "for a short run add train.schedule.warmup_epochs=0"
            )
        return self


class TrainConfig(Record):
    """One YAML in configs/train/."""

    model: str = Field(description="zoo name, official alias, path of a model YAML, or timm:NAME")
    model_args: dict[str, Any] = Field(default={}, description="timm arguments: drop_rate, drop_path_rate, ...")
    checkpoint: str | None = Field(default=None, description="start from these weights instead of random ones")
    checkpoint_key: str | None = Field(default=None, description="where in that file they are, if several would fit")
    pretrained: bool | str = Field(
        default=False, description="start from published weights: true for a network's first, or their tag"
    )
    reset_head: bool = Field(default=False, description="new classifier where the checkpoint's classes differ")
    data: DataConfig
    train: TrainSettings = TrainSettings()
    tune: Literal["all", "linear", "probe"] = Field(
        default="all",
        description="linear: only the classifier learns (linear probing); probe: learned queries pool the feature map "
        "before it (efficient probing); the rest stays as it is in `checkpoint`",
    )
    probe_queries: int = Field(
        default=4, gt=0, le=1024, description="queries of tune=probe; divides the feature map's channels"
    )
    name: str | None = Field(default=None, description="run folder below `runs/`; null takes the model's name")

    @property
    def in_chans(self) -> int:
        """Channels of the network's input: 1 is grey, 3 RGB, 4 RGBA."""
        channels: int = self.model_args.get("in_chans", 3)
        return channels

    @model_validator(mode="after")
    def _reads_images(self) -> "TrainConfig":
        if isinstance(self.in_chans, bool) or self.in_chans not in COLORS:
            raise ValueError(f"model_args.in_chans of 1 (grey), 3 (RGB) or 4 (RGBA), got {self.in_chans!r}")
        return self

    @model_validator(mode="after")
    def _args_are_a_classifiers(self) -> "TrainConfig":
        for key, value in self.model_args.items():
            if key in NOT_ARGS:
                raise ValueError(f"model_args without {key}: {NOT_ARGS[key]}")
            is_share = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1
            if key.endswith("_rate") and value is not None and not is_share:
                raise ValueError(f"model_args.{key} of at least 0 and below 1, got {value!r}")
        return self

    @model_validator(mode="after")
    def _probes_something(self) -> "TrainConfig":
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("checkpoint=PATH or pretrained=true, not both")
        if self.tune != "all" and self.checkpoint is None and not self.pretrained:
            raise ValueError(
                f"checkpoint=PATH or pretrained=true with tune={self.tune}: the part that does not learn must come "
                "from somewhere"
            )
        return self
