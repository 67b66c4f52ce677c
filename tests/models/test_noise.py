"""Counted noise of any device: the integers of NumPy, bit for bit, and its normal numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from caloforge.models.noise import counted_integers, counted_noise, device_normals
from caloforge.random import key_words, normals

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
CASES = [
    (0, "noise", 0, 3, 7),
    (5, "other", 17, 4, 1),
    (2**40, "noise", 10**9, 2, 1030),
    (3, "noise", 123, 5, 514),
]


def numpy_integers(seed: int, stream: str, start: int, n: int, draws: int) -> NDArray[np.int64]:
    """Return what NumPy's generator makes, one word after the other."""
    steps = -(-draws // 4)
    low, high = key_words(seed, stream)
    bits = np.random.Philox(key=low + (high << 64))
    bits.advance(start * steps)
    return bits.random_raw(4 * n * steps).reshape(n, -1)[:, :draws].view(np.int64)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**63),
    stream=st.text("abc", max_size=3),
    start=st.integers(0, 2**40),
    n=st.integers(1, 5),
    draws=st.integers(1, 70),
)
def test_integers_are_numpys(device: str, seed: int, stream: str, start: int, n: int, draws: int) -> None:
    found = counted_integers(seed, stream, start, n, draws, device)
    np.testing.assert_array_equal(found.cpu().numpy(), numpy_integers(seed, stream, start, n, draws))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_normal_numbers_are_those_of_the_cpu(device: str, case: tuple[int, str, int, int, int]) -> None:
    expected = normals(*case)
    for made in (device_normals(*case, device), counted_noise(*case[:1], *case[2:], device, case[1])):
        assert made.dtype == torch.float32
        np.testing.assert_allclose(made.cpu().numpy(), expected, rtol=0, atol=1e-6)


def test_showers_have_their_numbers_whatever_is_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = device_normals(1, "noise", 0, 9, 33)
    monkeypatch.setattr("caloforge.models.noise._AT_ONCE", 70)
    torch.testing.assert_close(device_normals(1, "noise", 0, 9, 33), whole, rtol=0, atol=0)
    torch.testing.assert_close(device_normals(1, "noise", 4, 3, 33), whole[4:7], rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_kernel_is_used_on_a_gpu_that_has_triton() -> None:
    from caloforge.models.noise import _kernel

    pytest.importorskip("triton", reason="triton is not installed")
    assert _kernel(torch.device("cuda")) is not None


INTERPRETED = """
import sys
import numpy as np
import torch
from caloforge.models.noise import _key, _steps, counted_integers
from caloforge.models.noise_kernel import fill, integers
from caloforge.random import normals
for seed, stream, start, n, size in eval(sys.argv[1]):
    key = _key(seed, stream)
    made = torch.empty(n, size, dtype=torch.int64)
    integers(made, key, start)
    assert torch.equal(made, counted_integers(seed, stream, start, n, size))
    noise = torch.full((n, size), torch.nan)
    fill(noise, key, start)
    assert np.abs(noise.numpy() - normals(seed, stream, start, n, size)).max() < 1e-6
print("equal")
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_the_kernel_in_tritons_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED, repr(CASES)],
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "equal\n", done.stderr
