"""What is done to cells before they are kept, and what tells one job from another."""

from __future__ import annotations

import dataclasses
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_engines import ToyEngine

from caloforge.errors import InputError
from caloforge.geometry import Detector
from caloforge.simulate.job import FULL_MANTISSA, Job, round_mantissa


def slow_round(value: float, bits: int) -> float:
    """Round one number through its mantissa in [0.5, 1)."""
    mantissa, exponent = math.frexp(value)
    scale = 2 ** (bits + 1)
    return math.ldexp(math.floor(mantissa * scale + 0.5) / scale, exponent)


@given(st.floats(2.0**-100, 2.0**100, width=32), st.integers(1, FULL_MANTISSA))
def test_rounding_is_that_of_the_mantissa(value: float, bits: int) -> None:
    rounded = round_mantissa(np.array([value], np.float32), bits)[0]
    assert rounded == np.float32(slow_round(value, bits))
    assert abs(rounded - value) <= value * 2.0 ** -(bits + 1) * (1 + 1e-6)


def test_rounding_keeps_zero_and_shape() -> None:
    assert (round_mantissa(np.zeros((2, 3), np.float32), 4) == np.zeros((2, 3))).all()


def test_small_cells_become_zero_and_the_rest_is_rounded(tiny: Detector) -> None:
    raw = Job(ToyEngine(), tiny, tiny.beam, seed=1, threshold=0.0, mantissa_bits=FULL_MANTISSA).run(0, 5)
    kept = Job(ToyEngine(), tiny, tiny.beam, seed=1, threshold=0.7, mantissa_bits=6).run(0, 5)
    assert ((kept.cells == 0) == (raw.cells < np.float32(0.7))).all()
    hit = kept.cells > 0
    assert kept.cells[hit] == pytest.approx(raw.cells[hit], rel=2**-7)
    assert kept.attributes["cpu_seconds"] >= 0


def test_angles_are_kept_unless_all_are_right_angles(tiny: Detector) -> None:
    for theta, angled in (("90", False), ("60", True), ("60-90", True)):
        showers = Job(ToyEngine(), tiny, tiny.beam.replace(theta=theta), seed=1).run(0, 2)
        assert showers.has_theta == angled


def test_the_fingerprint_tells_jobs_apart(tiny: Detector) -> None:
    job = Job(ToyEngine(), tiny, tiny.beam, seed=1)
    others = [
        dataclasses.replace(job, seed=2),
        dataclasses.replace(job, beam=tiny.beam.replace(energy="3GeV")),
        dataclasses.replace(job, threshold=0.0),
        dataclasses.replace(job, detector=dataclasses.replace(tiny, stack=tiny.stack[:-1])),
    ]
    prints = [job.fingerprint(), *(other.fingerprint() for other in others)]
    assert all(a != b for i, a in enumerate(prints) for b in prints[:i])
    assert pickle.loads(pickle.dumps(job)).fingerprint() == job.fingerprint()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"seed": -1}, "seed is -1; expected a whole number from 0"),
        ({"threshold": -1.0}, "out of range"),
        ({"mantissa_bits": 0}, "out of range"),
        ({"mantissa_bits": 24}, "out of range"),
    ],
)
def test_numbers_out_of_range(tiny: Detector, wrong: dict[str, float], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Job(**({"engine": ToyEngine(), "detector": tiny, "beam": tiny.beam, "seed": 1} | wrong))
