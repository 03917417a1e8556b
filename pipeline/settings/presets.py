"""Three sizes of everything, as one table: `tiny` for tests, `small` for a laptop, `paper` as published.

A preset only fills what it names; the defaults of `pipeline.config` hold for the rest.
"""

from __future__ import annotations

from typing import Any

_COLUMNS = ("tiny", "small", "paper")

_TABLE: dict[str, tuple[Any, Any, Any]] = {
    # key                               tiny       small              paper
    "data.patch":                      (24,        48,                100),
    "data.synthetic.frames":           (64,        240,               2000),
    "data.synthetic.height":           (48,        192,               400),
    "data.synthetic.width":            (48,        192,               400),
    "model.mean_widths":               ((8, 16),   (12, 16, 32),      (16, 32, 64, 128, 256)),
    "model.mean_kernels":              ((3, 1),    (1, 3, 1),         (3, 3, 1, 1, 1)),
    "model.mean_context_at":           ("full",    "half",            "full"),
    "model.mean_through_conservation": (False,     False,             True),
    "model.denoiser_widths":           ((8, 16),   (12, 24, 48),      (64, 128, 256, 512)),
    "model.denoiser_kernels":          ((3, 1),    (1, 1, 3),         (3, 3, 1, 1)),
    "model.heads":                     (2,         4,                 4),
    "model.token_width":               (8,         32,                128),
    "training.mean_steps":             (12,        300,               60_000),
    "training.residual_steps":         (12,        200,               60_000),
    "training.batch":                  (4,         4,                 8),
    "training.learning_rate":          (4e-3,      4e-3,              1e-4),
    "training.warmup_steps":           (2,         40,                500),
    "training.ema":                    (0.5,       0.95,              0.999),
    "training.report_every":           (6,         50,                250),
    "training.checkpoints.every":      (6,         50,                250),
    "sampling.members":                (4,         8,                 16),
    "scoring.windows":                 (4,         32,                512),
    "scoring.test_windows":            (4,         64,                2048),
    "scoring.batch":                   (4,         4,                 16),
    "tuning.pruning.windows":          (2,         8,                 64),
    "tuning.gpus_per_trial":           (0.0,       0.0,               1.0),
    "train.gpus_per_worker":           (0.0,       0.0,               1.0),
    "tuning.max_context":              (4,         6,                 16),
}  # fmt: skip


def _column(index: int) -> dict[str, Any]:
    preset: dict[str, Any] = {}
    for key, values in _TABLE.items():
        *parents, last = key.split(".")
        branch = preset
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = values[index]
    return preset


PRESETS: dict[str, dict[str, Any]] = {name: _column(index) for index, name in enumerate(_COLUMNS)}
