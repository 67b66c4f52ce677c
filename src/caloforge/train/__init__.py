"""Training: settings, the loop, checkpoints, run folders."""

import sys

import caloforge
from caloforge.train.folder import RunFolder, held_out_showers
from caloforge.train.run import train
from caloforge.train.settings import TrainConfig

__all__ = ["RunFolder", "TrainConfig", "held_out_showers", "train"]

sys.modules[__name__].__class__ = caloforge.VerbPackage
