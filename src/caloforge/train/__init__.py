"""Training: settings, the loop, checkpoints, run folders."""

from caloforge.train.folder import RunFolder
from caloforge.train.run import held_out_showers, train
from caloforge.train.settings import TrainConfig
from caloforge.verbs import make_callable

__all__ = ["RunFolder", "TrainConfig", "held_out_showers", "train"]

make_callable(__name__)
