"""Networks of the flow: transformers over patches of cells, modulated by conditions and time (DiT).

Each block is attention with normalised queries and keys, then a gated MLP (SwiGLU); scales, shifts and gates come from the
conditions through one layer that all blocks share and a table for each block (as in PixArt-alpha), since most
weights of a DiT would otherwise be there. A stack may be applied several times with the same weights.

Cells are cut into patches, the tokens: a grid into boxes, the last ones padded; a regular mesh into whole rings of some layers, each ring
with its own maps to tokens and back, since the angular bins of the innermost share a disc; every other detector layer by layer into
pieces of rows along the layer's longer side. All patches have the same number of places.

References:
    W. Peebles, S. Xie, "Scalable diffusion models with transformers", arXiv:2212.09748.
    J. Chen et al., "PixArt-alpha", arXiv:2310.00426, section 2.3 (one modulation for all blocks).
    N. Shazeer, "GLU variants improve transformer", arXiv:2002.05202.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from caloforge.models.flow.feedback import LayerFeedback, LayerMoments
from caloforge.models.flow.patches import CellPatches, PatchLinear
from caloforge.models.flow.path import EMPTY, LayerBalance, SpikeSlab, preconditioned

__all__ = [
    "CellNetwork",
    "LocalNetwork",
    "SummaryNetwork",
    "TermsEmbedding",
    "TimeEmbedding",
    "Transformer",
]


_CHUNKS = 6


class TimeEmbedding(nn.Module):
    """Time in [0, 1] as sines and cosines through a small network."""

    rates: Tensor

    def __init__(self, width: int, frequencies: int = 64) -> None:
        super().__init__()
        rates = torch.exp(torch.linspace(0.0, math.log(1000.0), frequencies))
        self.register_buffer("rates", rates, persistent=False)
        self.net = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        """Return (B, width) of times (B,)."""
        angle = time[:, None] * self.rates
        found: Tensor = self.net(torch.cat([angle.cos(), angle.sin()], 1))
        return found


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.heads = heads
        hidden = max(16, round(width * ratio * 2 / 3 / 16) * 16)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.gate = nn.Linear(width, 2 * hidden)
        self.down = nn.Linear(hidden, width)
        self.norm_q = nn.RMSNorm(width // heads, eps=1e-6)
        self.norm_k = nn.RMSNorm(width // heads, eps=1e-6)
        self.table = nn.Parameter(torch.randn(_CHUNKS, width) / width**0.5)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (modulation + self.table).unbind(1)
        width = x.shape[-1]
        h = functional.layer_norm(x, (width,), eps=1e-6) * (1 + scale_a[:, None]) + shift_a[:, None]
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(h).chunk(3, dim=-1)
        )
        h = functional.scaled_dot_product_attention(_normed(q, self.norm_q), _normed(k, self.norm_k), v)
        x = x + (1 + gate_a[:, None]) * self.out(h.transpose(1, 2).flatten(2))
        h = functional.layer_norm(x, (width,), eps=1e-6) * (1 + scale_m[:, None]) + shift_m[:, None]
        a, b = self.gate(h).chunk(2, dim=-1)
        found: Tensor = x + (1 + gate_m[:, None]) * self.down(functional.silu(a) * b)
        return found


def _normed(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    """Return normalised queries or keys; weight and input of one type, for which there is one fused kernel."""
    return functional.rms_norm(x, (x.shape[-1],), norm.weight.to(x.dtype), norm.eps)


class Transformer(nn.Module):
    """Blocks on tokens with their own weights, the stack of them applied several times.

    The hidden width of the MLPs is ``ratio`` times that of the tokens, before the gate's 2/3.
    """

    def __init__(self, width: int, blocks: int, repeats: int, heads: int, ratio: float = 4.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, heads, ratio) for _ in range(blocks))
        self.repeats = repeats
        self.modulation = nn.Linear(width, _CHUNKS * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Return tokens (B, T, width) of tokens and conditions (B, width)."""
        modulation = self.modulation(functional.silu(condition)).unflatten(1, (_CHUNKS, -1))
        for _ in range(self.repeats):
            for block in self.blocks:
                tokens = block(tokens, modulation)
        return tokens


class _Head(nn.Module):
    """Normalise, modulate by the condition, and map tokens to numbers."""

    def __init__(self, tokens: int, width: int, outputs: int, kinds: int = 1) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.out = PatchLinear(tokens, width, outputs, zero=True, kinds=kinds)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(functional.silu(condition))[:, None].chunk(2, dim=-1)
        normed = functional.layer_norm(tokens, (tokens.shape[-1],), eps=1e-6)
        found: Tensor = self.out(normed * (1 + scale) + shift)
        return found


_REACH = 3  # cells that three layers see to either side


class LocalNetwork(nn.Module):
    """Convolutions over the neighbours of each cell of a grid or mesh, which see structures smaller than a patch or across its faces.

    The inputs of each cell are its noisy value, a first estimate of it, and ``features`` numbers from the token of its patch, which know
    time, conditions and the rest of the shower; the outputs change those of the token. Three layers see seven cells along each axis.

    Arguments:
        shape: Cells along the three axes.
        channels: Channels of the hidden layers.
        outputs: Numbers of each cell.
        ring: Whether the last cell along the second axis is a neighbour of the first, as on a mesh.
    """

    features = 4

    def __init__(self, shape: tuple[int, ...], channels: int, outputs: int, ring: bool = False) -> None:
        super().__init__()
        self.shape, self.ring = shape, ring and shape[1] >= _REACH
        self.net = nn.Sequential(
            nn.Conv3d(2 + self.features, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(channels, outputs, 3, padding=1),
        )
        last = self.net[-1]
        assert isinstance(last, nn.Conv3d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, outputs, n_cells) of inputs (B, 2 + features, n_cells)."""
        grid = inputs.view(*inputs.shape[:2], *self.shape)
        if self.ring:
            grid = torch.cat([grid[:, :, :, -_REACH:], grid, grid[:, :, :, :_REACH]], 3)
        found: Tensor = self.net(grid.contiguous(memory_format=torch.channels_last_3d))
        return (found[:, :, :, _REACH:-_REACH] if self.ring else found).flatten(2)


class TermsEmbedding(nn.Module):
    """What a detector's layers are to a shower, for the tokens of a network: 0 before the training.

    Arguments:
        rows: Layers and the whole detector.
        terms: Numbers of each.
        width: Width of the tokens.
    """

    table: Tensor  # (rows, terms) of the present detector, standardised

    def __init__(self, rows: int, terms: int, width: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(rows, terms), persistent=False)
        self.net = nn.Sequential(nn.Linear(terms, width), nn.SiLU(), nn.Linear(width, width))
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self) -> Tensor:
        """Return (rows, width)."""
        found: Tensor = self.net(self.table)
        return found


class SummaryNetwork(nn.Module):
    """Estimate the summary (B, rows, kinds) from a noisy one, with ``terms`` numbers of each row of the detector."""

    def __init__(
        self, rows: int, kinds: int, conditions: int, width: int, blocks: int, heads: int, terms: int = 0
    ) -> None:
        super().__init__()
        self.embed = PatchLinear(rows, kinds, width)
        self.position = nn.Parameter(0.5 * torch.randn(rows, width))
        self.time = TimeEmbedding(width)
        self.condition = nn.Sequential(nn.Linear(conditions, width), nn.SiLU(), nn.Linear(width, width))
        self.body = Transformer(width, blocks, 1, heads)
        self.head = _Head(rows, width, kinds)
        self.terms = TermsEmbedding(rows, terms, width) if terms else None

    def forward(self, x: Tensor, time: Tensor, encoded: Tensor) -> Tensor:
        """Return the estimate (B, rows, kinds) of x of that shape at times (B,) and encoded conditions (B, k)."""
        condition = self.time(time) + self.condition(encoded)
        tokens = self.embed(x) + self.position
        if self.terms is not None:
            tokens = tokens + self.terms()
        tokens = self.body(tokens, condition)
        return preconditioned(x, time, self.head(tokens, condition).float())


class CellNetwork(nn.Module):
    """Estimate the values of all cells from noisy ones and the shower's summary (B, rows, kinds).

    Each token takes the values of its patch, the rows of the summary that belong to its layers, and its position; the
    whole summary and the encoded conditions modulate every block. The outputs are the probability of each cell to be filled and
    its value, from which ``posterior`` makes estimates (:mod:`~caloforge.models.flow.path`). With ``feedback`` the tokens see by
    how much their layers miss the summary so far (:mod:`~caloforge.models.flow.feedback`); with ``terms`` numbers of each row of the
    detector what their layers are.
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
        posterior: SpikeSlab | None = None,
        local: LocalNetwork | None = None,
        balance: LayerBalance | None = None,
        feedback: LayerFeedback | None = None,
        terms: int = 0,
    ) -> None:
        super().__init__()
        self.posterior = SpikeSlab(patches.n_cells) if posterior is None else posterior
        self.local, self.balance = local, balance
        self.feedback = feedback
        self.patches = patches
        n, places, layers = patches.n_patches, patches.places, patches.layers.shape[1]
        self.embed = PatchLinear(n, places, width, kinds=patches.kinds)
        self.position = nn.Parameter(0.5 * torch.randn(n, width))
        self.rows = nn.Linear(layers * kinds, width)
        self.misses = None if feedback is None else nn.Linear(layers * feedback.kinds, width)
        self.time = TimeEmbedding(width)
        self.condition = nn.Sequential(
            nn.Linear(conditions + rows * kinds, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.body = Transformer(width, blocks, repeats, heads)
        self.numbers = self.posterior.outputs + (0 if local is None else local.features)  # of each cell
        self.head = _Head(n, width, self.numbers * places, patches.kinds)
        self.terms = TermsEmbedding(rows, terms, width) if terms else None

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        encoded: Tensor,
        summary: Tensor,
        to: LayerMoments | None = None,
        data: Tensor | None = None,
    ) -> Tensor:
        """Return the estimate (B, n_cells) of x at times (B,), or the loss of the posterior at the data (B, n_cells), one number.

        Arguments:
            x: Noisy values (B, n_cells).
            time: (B,).
            encoded: Encoded conditions (B, k).
            summary: Summaries (B, rows, kinds).
            to: What they say of the layers, needed by a network with feedback.
            data: Values without noise; missing: the estimate is returned.
        """
        numbers = self.predicted(x, time, encoded, summary, to)
        if data is None:
            estimate: Tensor = self.posterior(x, time, numbers)
            return estimate
        return self.posterior.loss(x, time, numbers, data)

    def predicted(
        self, x: Tensor, time: Tensor, encoded: Tensor, summary: Tensor, to: LayerMoments | None = None
    ) -> tuple[Tensor, ...]:
        """Return the inputs of the posterior, (B, n_cells) each."""
        posterior, feedback, misses = self.posterior, self.feedback, None
        if feedback is not None:
            assert to is not None
            misses = feedback.misses(posterior, x, time, to)
        outputs = self.outputs(self.patches(x), time, encoded, summary, misses)
        parts = self.patches.parts(outputs, self.numbers)
        numbers, features = parts[: posterior.outputs], parts[posterior.outputs :]
        if self.local is None:
            return numbers
        found = posterior(x, time, numbers)
        changes = self.local(torch.stack([x, found - EMPTY, *features], 1)).float()
        return tuple(a + b for a, b in zip(numbers, changes.unbind(1), strict=True))

    def outputs(
        self, patches: Tensor, time: Tensor, encoded: Tensor, summary: Tensor, misses: Tensor | None = None
    ) -> Tensor:
        """Return the inputs of the posterior (B, n_patches, n x places) for patches (B, n_patches, places)."""
        condition = self.time(time) + self.condition(torch.cat([encoded, summary.flatten(1)], 1))
        tokens = self.embed(patches) + self.rows(self._of_tokens(summary)) + self.position
        if self.misses is not None and misses is not None:
            tokens = tokens + self.misses(self._of_tokens(misses))
        if self.terms is not None:
            of_rows = self.terms()
            tokens = tokens + of_rows[self.patches.layers].mean(1) + of_rows[-1]
        found: Tensor = self.head(self.body(tokens, condition), condition).float()
        return found

    def _of_tokens(self, rows: Tensor) -> Tensor:
        """Return the rows of each token's layers (B, n_patches, k) of rows (B, at least n_layers, kinds)."""
        own = rows.index_select(1, self.patches.layers.flatten())
        return own.view(rows.shape[0], self.patches.n_patches, -1)
