"""The transformer: attention against a slow one, modulation, time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from caloforge.models.flow.networks import TimeEmbedding, Transformer

WIDTH, HEADS, TOKENS = 16, 4, 5


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _awake(blocks: int = 2, repeats: int = 1) -> Transformer:
    """A transformer whose weights have all left their zeros."""
    torch.manual_seed(0)
    body = Transformer(WIDTH, blocks, repeats, HEADS)
    with torch.no_grad():
        for p in body.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return body


def _norm(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()


def _slow_block(body: Transformer, number: int, x: Tensor, condition: Tensor) -> Tensor:
    """One shower, (T, width), head by head and token by token."""
    block = body.blocks[number]
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (
        body.modulation(condition * torch.sigmoid(condition)).view(6, WIDTH) + block.table
    )
    h = _norm(x) * (1 + scale_a) + shift_a
    q, k, v = block.qkv(h).split(WIDTH, 1)
    size, heads = WIDTH // HEADS, []
    for head in range(HEADS):
        where = slice(head * size, (head + 1) * size)
        normed = [
            part[:, where] / (part[:, where].square().mean(1, keepdim=True) + 1e-6).sqrt() * norm.weight
            for part, norm in ((q, block.norm_q), (k, block.norm_k))
        ]
        rows = []
        for one in normed[0]:
            weights = torch.softmax(torch.stack([one @ other for other in normed[1]]) / math.sqrt(size), 0)
            rows.append(weights @ v[:, where])
        heads.append(torch.stack(rows))
    x = x + (1 + gate_a) * block.out(torch.cat(heads, 1))
    h = _norm(x) * (1 + scale_m) + shift_m
    a, b = block.gate(h).chunk(2, 1)
    return x + (1 + gate_m) * block.down(a * torch.sigmoid(a) * b)


@pytest.mark.parametrize("repeats", [1, 3])
def test_it_is_the_slow_one(repeats: int) -> None:
    body = _awake(2, repeats)
    tokens, condition = _normal(3, TOKENS, WIDTH), _normal(3, WIDTH, seed=1)
    with torch.no_grad():
        found = body(tokens, condition)
        for row in range(3):
            x = tokens[row]
            for _ in range(repeats):
                for number in range(2):
                    x = _slow_block(body, number, x, condition[row])
            torch.testing.assert_close(found[row], x, rtol=1e-4, atol=1e-4)


def test_at_first_no_token_sees_another() -> None:
    """Outputs of attention and MLP begin at zero weights: all tokens are moved alike."""
    body, tokens = Transformer(WIDTH, 3, 2, HEADS), _normal(2, TOKENS, WIDTH)
    with torch.no_grad():
        moved = body(tokens, _normal(2, WIDTH)) - tokens
    torch.testing.assert_close(moved, moved[:1, :1].expand_as(moved))


def test_tokens_may_come_in_any_order() -> None:
    """Positions come from outside: exchanged tokens give exchanged results."""
    body, tokens, condition = _awake(), _normal(2, TOKENS, WIDTH), _normal(2, WIDTH, seed=1)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(body(tokens[:, order], condition), body(tokens, condition)[:, order])


def test_repeats_cost_no_weights() -> None:
    once, thrice = (Transformer(WIDTH, 2, repeats, HEADS) for repeats in (1, 3))
    assert sum(p.numel() for p in once.parameters()) == sum(p.numel() for p in thrice.parameters())


def test_conditions_and_all_tokens_matter() -> None:
    body = _awake()
    tokens = _normal(1, TOKENS, WIDTH).requires_grad_()
    condition = _normal(1, WIDTH, seed=1).requires_grad_()
    body(tokens, condition)[0, 0].square().sum().backward()
    assert (tokens.grad.abs().sum(2) > 0).all()
    assert (condition.grad != 0).all()
    assert all((p.grad != 0).any() for p in body.parameters())


def test_times_are_told_apart_at_all_scales() -> None:
    torch.manual_seed(0)
    embed = TimeEmbedding(8, 16)
    time = torch.tensor([0.0, 1e-3, 0.3, 0.301, 1.0])
    found = embed(time)
    assert found.shape == (5, 8)
    assert (torch.cdist(found, found) + torch.eye(5)).min() > 1e-3
    assert embed.rates[[0, -1]].tolist() == pytest.approx([1.0, 1000.0], rel=1e-4)
    slow = torch.cat([torch.cos(embed.rates * 0.3), torch.sin(embed.rates * 0.3)])
    torch.testing.assert_close(found[2], embed.net(slow))
