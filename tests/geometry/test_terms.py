"""Detectors in the terms of shower theory."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import gamma

from caloforge.errors import IncompatibleError
from caloforge.geometry import Detector, detector_from_definition, get_detector, get_material
from caloforge.geometry.terms import SCATTERING, layer_terms, mean_profile


def _stack(absorber: str = "G4_Pb", mm: float = 5.0, pitch: float = 10.0, **more: Any) -> Detector:
    layer = {"repeat": 4, "absorber": absorber, "absorber_mm": mm, "active": "G4_Si", "active_mm": 0.5} | more
    return detector_from_definition(
        json.dumps({"name": "own", "nx": 5, "ny": 5, "pitch": pitch, "layers": [layer]})
    )


def test_terms_of_a_stack_by_hand() -> None:
    lead, silicon = get_material("G4_Pb"), get_material("G4_Si")
    terms = layer_terms(_stack())
    x = 5.0 / lead.x0 + 0.5 / silicon.x0
    critical = (5.0 / lead.x0 * lead.critical_energy + 0.5 / silicon.x0 * silicon.critical_energy) / x
    np.testing.assert_allclose(terms[:-1, 0], x * (np.arange(4) + 0.5))
    np.testing.assert_allclose(terms[:, 1], np.log(x))
    np.testing.assert_allclose(terms[2, 3], np.log(10.0 / (5.5 / x * SCATTERING / critical)))
    np.testing.assert_allclose(terms[2, 4:], np.log([critical, silicon.mip_energy(0.5)]))
    np.testing.assert_allclose(terms[-1, 0], 4 * x)


def test_the_sampling_fraction_is_the_detectors_estimate() -> None:
    detector = _stack()
    np.testing.assert_allclose(np.exp(layer_terms(detector)[:, 2]), detector.sampling_fraction, rtol=1e-9)
    both = _stack(units=2)
    np.testing.assert_allclose(np.exp(layer_terms(both)[:, 2]), both.sampling_fraction, rtol=1e-9)
    np.testing.assert_allclose(layer_terms(both)[0, 5], layer_terms(detector)[0, 5] + np.log(2.0))


def test_terms_see_materials_thicknesses_and_pitches() -> None:
    first = layer_terms(_stack())
    others = [_stack("G4_W"), _stack(mm=6.0), _stack(pitch=12.0), _stack(active_mm=0.3), _stack(gap_mm=2.0)]
    assert all(np.abs(layer_terms(other) - first).max() > 0.01 for other in others)


def test_a_detector_without_plates_has_no_terms() -> None:
    with pytest.raises(IncompatibleError, match=r"calogan.*known plates"):
        layer_terms(get_detector("calogan"))


def test_the_mean_profile_is_the_gamma_distribution_of_the_layers() -> None:
    terms = layer_terms(_stack(repeat=20))
    energy = 5_000.0
    found = mean_profile(terms, np.array([energy]))[0]
    scaled = np.log(energy) - terms[-1, 4]
    edges = np.append(0.0, np.cumsum(np.exp(terms[:-1, 1])))
    logs, totals = [], []
    for quantile in (np.arange(16) + 0.5) / 16:
        top = (scaled - 0.5) * np.exp(ndtri(quantile) / (1.26 * scaled - 1.4))
        parts = np.diff(gamma.cdf(edges, 1.0 + 0.5 * top, scale=2.0)) * np.exp(terms[0, 2])
        logs.append(np.log(parts / parts.sum()))
        totals.append(np.log(parts.sum()))
    np.testing.assert_allclose(found[:-1], np.mean(logs, 0), rtol=1e-9)
    np.testing.assert_allclose(found[-1], np.mean(totals), rtol=1e-9)
