"""Training: settings, the loop, checkpoints, run folders."""

import sys

import caloforge
from caloforge.train.folder import RunFolder
from caloforge.train.run import held_out_showers, train
from caloforge.train.settings import TrainConfig

__all__ = ["RunFolder", "TrainConfig", "held_out_showers", "train"]

sys.modules[__name__].__class__ = caloforge.VerbPackage
