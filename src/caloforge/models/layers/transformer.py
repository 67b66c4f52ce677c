"""A transformer over tokens, modulated by conditions and time (DiT), with few weights.

Each block is attention with normalised queries and keys, then a gated MLP (SwiGLU); scales, shifts and gates come from the
conditions through one layer that all blocks share and a table for each block (as in PixArt-alpha), since most
weights of a DiT would otherwise sit there. A stack may be run through several times with the same weights.

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

__all__ = ["TimeEmbedding", "Transformer"]

_CHUNKS = 6


class TimeEmbedding(nn.Module):
    """Time in [0, 1] as sines and cosines through a small network.

    Arguments:
        width: Numbers that come out.
        frequencies: Sines and cosines each.
    """

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
    """Blocks on tokens.

    Arguments:
        width: Width of the tokens.
        blocks: Blocks with their own weights.
        repeats: Times that the stack is run through.
        heads: Attention heads.
        ratio: Hidden width of the MLP in units of the width (before the gate's 2/3).
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
