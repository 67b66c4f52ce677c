"""The log of a training: a CSV of named values by epoch, and TensorBoard's when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caloforge.extras import require

__all__ = ["MetricLog"]

_HEADER = "training,stage,epoch,name,value\n"


class MetricLog:
    """Rows (training, stage, epoch, name, value).

    Arguments:
        path: CSV file.
        rows: Rows to keep of an earlier part of the run; what follows them is done again.
        tensorboard: Write TensorBoard's files beside it.
    """

    def __init__(self, path: Path, rows: int = 0, tensorboard: bool = False) -> None:
        self.path = path
        kept = path.read_text().splitlines(keepends=True)[1 : rows + 1] if rows and path.exists() else []
        path.write_text(_HEADER + "".join(kept))
        self.rows = len(kept)
        self._board: Any = None
        if tensorboard:
            require("tensorboard", "track")
            self._board = require("torch.utils.tensorboard", "track").SummaryWriter(
                str(path.parent / "tensorboard")
            )

    def add(self, training: int, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Append values of one epoch."""
        with self.path.open("a") as handle:
            for name, value in values.items():
                handle.write(f"{training},{stage},{epoch},{name},{value!r}\n")
                if self._board is not None:
                    self._board.add_scalar(f"{training}/{stage}/{name}", value, epoch)
        self.rows += len(values)

    def close(self) -> None:
        """Finish the files."""
        if self._board is not None:
            self._board.close()
