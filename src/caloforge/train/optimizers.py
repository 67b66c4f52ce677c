"""Optimisers and learning rates from settings.

The rate is a function of the stage's step alone, so that nothing of it needs to be kept in a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.optim import Optimizer

from caloforge.models.config import OptimizerSettings
from caloforge.models.stage import OptimizerSpec

__all__ = ["build_optimizer", "learning_rate"]


def build_optimizer(spec: OptimizerSpec, fused: bool) -> Optimizer:
    """Return torch's optimiser.

    Arguments:
        spec: Parameters and settings.
        fused: Use the fused kernels of Adam and AdamW.
    """
    s = spec.settings
    parameters = list(spec.parameters)
    builders: dict[str, Callable[[], Optimizer]] = {
        "adam": lambda: torch.optim.Adam(
            parameters, lr=s.lr, betas=s.betas, weight_decay=s.weight_decay, fused=fused
        ),
        "adamw": lambda: torch.optim.AdamW(
            parameters, lr=s.lr, betas=s.betas, weight_decay=s.weight_decay, fused=fused
        ),
        "rmsprop": lambda: torch.optim.RMSprop(
            parameters, lr=s.lr, alpha=s.alpha, weight_decay=s.weight_decay
        ),
        "sgd": lambda: torch.optim.SGD(parameters, lr=s.lr, weight_decay=s.weight_decay),
    }
    return builders[s.kind]()


def learning_rate(settings: OptimizerSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return the rate at a step of a stage.

    Arguments:
        settings: Rate and schedule.
        step: Steps done.
        steps: Steps of the whole stage.
        steps_per_epoch: Steps of one epoch.
    """
    rate = settings.lr
    if settings.schedule == "cosine":
        part = min(1.0, step / max(1, steps))
        rate *= settings.final + (1.0 - settings.final) * 0.5 * (1.0 + math.cos(math.pi * part))
    elif settings.schedule == "exponential":
        rate *= settings.gamma ** (step // max(1, steps_per_epoch))
    return rate * min(1.0, (step + 1) / settings.warmup) if settings.warmup else rate
