from __future__ import annotations

import numpy as np
import pytest
import torch
from adversaries import images

from caloforge.models.image_gan.vae_gan import OBSERVABLES, ImageHistograms


def test_the_observables_are_those_of_a_loop() -> None:
    showers = images(6)
    histograms = ImageHistograms(showers.detector)
    visible, peak, pixels, x, y = histograms.values(torch.from_numpy(showers.cells))
    logs = []
    for i, image in enumerate(showers.grid()[..., 0]):
        total, moment_x, moment_y = 0.0, 0.0, 0.0
        for ix in range(10):
            for iy in range(10):
                e = float(image[ix, iy])
                if e > 0.1:
                    total, moment_x, moment_y = (
                        total + e,
                        moment_x + (ix - 4.5) * 15 * e,
                        moment_y + (iy - 4.5) * 15 * e,
                    )
                if e > 5.0:
                    logs.append(np.log(e))
        assert visible[i].item() == pytest.approx(total, rel=1e-5)
        assert peak[i].item() == pytest.approx(image.max())
        assert (x[i].item(), y[i].item()) == pytest.approx((moment_x / total, moment_y / total), abs=1e-3)
    assert sorted(pixels.tolist()) == pytest.approx(sorted(logs), rel=1e-5)


def test_training_images_have_no_distance_and_others_a_known_one() -> None:
    cells = torch.from_numpy(images(300).cells)
    histograms = ImageHistograms(images(1).detector)
    histograms.fit(cells)
    assert torch.allclose(histograms.reference.sum(1), torch.ones(5))
    assert max(histograms.distance(cells).values()) < 1e-12
    far = histograms.distance(1.5 * cells)
    assert far["histogram_E_vis"] > 0.9
    assert far["histogram_CG_x"] == pytest.approx(0.0, abs=0.05)
    assert far["histograms"] == pytest.approx(sum(far[f"histogram_{name}"] for name in OBSERVABLES), rel=1e-5)
    peak = cells.amax(1).numpy()
    slow, edges = np.histogram(peak, 100, (float(peak.min()), float(peak.max())))
    assert edges == pytest.approx(histograms.edges[1].numpy(), rel=1e-4)
    assert np.abs(slow / 300 - histograms.reference[1].numpy()).sum() < 0.03


def test_empty_images_are_as_far_as_can_be() -> None:
    histograms = ImageHistograms(images(1).detector)
    histograms.fit(torch.from_numpy(images(100).cells))
    figures = histograms.distance(torch.zeros(50, 100))
    assert figures["histogram_E_pixel"] == 1.0
    assert all(np.isfinite(value) for value in figures.values())
