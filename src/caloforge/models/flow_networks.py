"""The two networks of the flow: one over the rows of a shower's summary, one over the patches of its cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.models.layers.cell_patches import CellPatches
from caloforge.models.layers.jump_posterior import JumpPosterior
from caloforge.models.layers.patch_embedding import PatchLinear
from caloforge.models.layers.precondition import Precondition
from caloforge.models.layers.spike_slab import SpikeSlab
from caloforge.models.layers.transformer import TimeEmbedding, Transformer

__all__ = ["CellNetwork", "SummaryNetwork"]


class _Head(nn.Module):
    """Normalise, modulate by the condition, and map tokens to numbers."""

    def __init__(self, tokens: int, width: int, outputs: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.out = PatchLinear(tokens, width, outputs, zero=True)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(functional.silu(condition))[:, None].chunk(2, dim=-1)
        normed = functional.layer_norm(tokens, (tokens.shape[-1],), eps=1e-6)
        found: Tensor = self.out(normed * (1 + scale) + shift)
        return found


class SummaryNetwork(nn.Module):
    """Estimate the summary (B, R, K) from a noisy one.

    Arguments:
        rows: Rows R.
        kinds: Numbers K in a row.
        conditions: Encoded conditions.
        width: Width of the tokens.
        blocks: Blocks of the transformer.
        heads: Attention heads.
    """

    def __init__(self, rows: int, kinds: int, conditions: int, width: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.embed = PatchLinear(rows, kinds, width)
        self.position = nn.Parameter(0.5 * torch.randn(rows, width))
        self.time = TimeEmbedding(width)
        self.condition = nn.Sequential(nn.Linear(conditions, width), nn.SiLU(), nn.Linear(width, width))
        self.body = Transformer(width, blocks, 1, heads)
        self.head = _Head(rows, width, kinds)
        self.precondition = Precondition(rows, kinds)

    def forward(self, x: Tensor, time: Tensor, encoded: Tensor) -> Tensor:
        """Return the estimate (B, R, K) of x (B, R, K) at times (B,) and encoded conditions (B, k)."""
        condition = self.time(time) + self.condition(encoded)
        tokens = self.body(self.embed(x) + self.position, condition)
        found: Tensor = self.precondition(x, time, self.head(tokens, condition).float())
        return found


class CellNetwork(nn.Module):
    """Estimate the values of all cells from noisy ones and the shower's summary.

    Each token takes the values of its patch, the rows of the summary that belong to its layers, and its position; the
    whole summary and the encoded conditions modulate every block. For each cell it says how probably it is filled, and with
    what (:mod:`~caloforge.models.layers.spike_slab`).

    Arguments:
        patches: The patches.
        rows: Rows of the summary, the last one the shower's.
        kinds: Numbers in a row.
        conditions: Encoded conditions.
        width: Width of the tokens.
        blocks: Blocks with their own weights.
        repeats: Times that they are run through.
        heads: Attention heads.
        posterior: What makes estimates of the network's numbers; a new :class:`SpikeSlab` by default.
    """

    def __init__(
        self,
        patches: CellPatches,
        rows: int,
        kinds: int,
        conditions: int,
        width: int,
        blocks: int,
        repeats: int,
        heads: int,
        posterior: SpikeSlab | JumpPosterior | None = None,
    ) -> None:
        super().__init__()
        self.posterior = SpikeSlab(patches.n_cells) if posterior is None else posterior
        self.patches = patches
        n, places, layers = patches.n_patches, patches.places, patches.layers.shape[1]
        self.embed = PatchLinear(n, places, width)
        self.position = nn.Parameter(0.5 * torch.randn(n, width))
        self.rows = nn.Linear(layers * kinds, width)
        self.time = TimeEmbedding(width)
        self.condition = nn.Sequential(
            nn.Linear(conditions + rows * kinds, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.body = Transformer(width, blocks, repeats, heads)
        self.head = _Head(n, width, self.posterior.outputs * places)

    def forward(self, x: Tensor, time: Tensor, encoded: Tensor, summary: Tensor) -> Tensor:
        """Return the estimate (B, n_cells).

        Arguments:
            x: Values (B, n_cells).
            time: (B,).
            encoded: Encoded conditions (B, k).
            summary: (B, rows, kinds) normal numbers.
        """
        outputs = self.outputs(self.patches(x), time, encoded, summary)
        found: Tensor = self.posterior(x, time, self.patches.parts(outputs, self.posterior.outputs))
        return found

    def outputs(self, patches: Tensor, time: Tensor, encoded: Tensor, summary: Tensor) -> Tensor:
        """Return the numbers for the posterior (B, n_patches, n x places) of patches (B, n_patches, places)."""
        condition = self.time(time) + self.condition(torch.cat([encoded, summary.flatten(1)], 1))
        own = summary.index_select(1, self.patches.layers.flatten()).view(
            len(patches), self.patches.n_patches, -1
        )
        tokens = self.embed(patches) + self.rows(own) + self.position
        found: Tensor = self.head(self.body(tokens, condition), condition).float()
        return found
