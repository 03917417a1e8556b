"""How each stage is trained, by how many processes, and what is kept meanwhile."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.settings.base import Settings


class CheckpointSettings(Settings):
    """What is kept of an unfinished stage."""

    every: int = Field(50, ge=1, description="steps between checkpoints")
    keep: int = Field(2, ge=2, description="newest ones kept, so that a damaged one is not the only one")
    keep_best: bool = Field(True, description="also keep the one with the lowest validation loss")
    validation_windows: int = Field(
        16,
        ge=0,
        description="windows whose loss is computed with each checkpoint of a final training; 0: none",
    )
    asynchronous: bool | None = Field(
        None, description="write while training goes on; none: where the device is a GPU"
    )


class ParallelSettings(Settings):
    """How the processes of one training share the work; none of it changes a result beyond rounding."""

    sharding: Literal["auto", "ddp", "fsdp", "hsdp"] = Field(
        "auto",
        description="ddp: every rank holds the whole model; fsdp: a part of it; hsdp: a part among the ranks "
        "of one machine, copies across machines; auto: fsdp on one machine, hsdp on several",
    )
    shard_size: int | None = Field(
        None, ge=1, description="hsdp: ranks that hold one copy together; none: those of one machine"
    )
    accumulate: int = Field(1, ge=1, description="micro-batches per rank and step, to save memory")
    recompute: bool = Field(False, description="activation checkpointing: recompute blocks, to save memory")
    compile: bool = Field(False, description="torch.compile each block")
    prefetch: int = Field(2, ge=0, description="steps whose windows are read ahead; 0: none")
    readers: int = Field(2, ge=1, description="threads that read ahead")


class TrainingSettings(Settings):
    """How each stage is trained."""

    mean_steps: int = Field(400, ge=1)
    residual_steps: int = Field(600, ge=1)
    batch: int = Field(8, ge=1, description="windows per step, all ranks together")
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(500, ge=0, description="linear warm-up; a cosine to zero follows")
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights that sampling uses")
    augment: bool = Field(
        False,
        description="turn and mirror training windows at random; the direction of motion is then lost",
    )
    sampling: Literal["uniform", "wet"] = Field(
        "uniform",
        description="wet: wet windows come more often, and count the less, so that the expected loss stays; "
        "with probability in proportion to sampling_floor + mean(1 - exp(-x / data.saturation))",
    )
    sampling_floor: float = Field(0.1, gt=0, description="sampling = wet: what a dry window has")
    shuffle_gib: float = Field(
        4.0,
        ge=0,
        description="an epoch of a training split up to this size is shuffled as a whole; of a larger one, "
        "within pool_gib at a time",
    )
    pool_gib: float = Field(
        0.5, gt=0, description="chunks that the windows of an epoch are mixed over at a time"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the networks' arithmetic; auto: bfloat16 on a GPU, else float32"
    )
    weights: Literal["last", "best"] = Field(
        "last",
        description="which averaged weights a stage ends with; best: by the loss on validation windows",
    )
    report_every: int = Field(50, ge=1, description="steps between reports")
    checkpoints: CheckpointSettings = CheckpointSettings()
    parallel: ParallelSettings = ParallelSettings()

    @model_validator(mode="after")
    def _best_can_be_told(self) -> TrainingSettings:
        kept = self.checkpoints
        if self.weights == "best" and not (kept.validation_windows and kept.keep_best):
            raise ValueError(
                "weights = best needs a validation loss: set training.checkpoints.validation_windows to 1 or "
                "more"
            )
        return self

    def deciding(self) -> dict[str, Any]:
        """Give what decides a result, for names that tell results apart."""
        settings = self.model_dump(mode="json", exclude={"report_every", "checkpoints", "parallel"})
        if self.weights == "best":  # of those that were kept
            settings["checkpoints"] = self.checkpoints.model_dump(mode="json", exclude={"asynchronous"})
        return settings
