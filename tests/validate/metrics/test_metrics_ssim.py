from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity
from toy_samples import toy_showers

from caloforge.errors import InputError
from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.metrics import ssim as module
from caloforge.validate.metrics.ssim import DATA_RANGE, ssim_pairs
from caloforge.validate.sample import Sample


def test_equal_to_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_VALUES", 13 * 15 * 4 * 2)
    rng = np.random.default_rng(0)
    a, b = rng.exponential(3e-5, size=(2, 5, 13, 15, 4))
    a[2], b[2] = 0.0, 0.0
    expected = [
        structural_similarity(
            x,
            y,
            data_range=DATA_RANGE,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(a, b, strict=True)
    ]
    values = ssim_pairs(a, b)
    np.testing.assert_allclose(values, expected, rtol=1e-7, atol=1e-9)
    assert values[2] == pytest.approx(1.0)
    np.testing.assert_allclose(ssim_pairs(a, a), 1.0)
    np.testing.assert_allclose(ssim_pairs(b, a), values)


@pytest.mark.parametrize("shape", [(2, 10, 12, 3), (2, 12, 12)])
def test_images_smaller_than_the_window_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="ssim needs pairs"):
        ssim_pairs(np.zeros(shape), np.zeros(shape))


def test_a_sample_of_copies_is_too_alike(settings: Settings) -> None:
    showers = toy_showers("clic-ecal", 12, 1)
    copies = Sample(showers.take(np.zeros(12, int)), "copies")
    result = compute_metrics(Sample(showers, "reference"), copies, settings, ["ssim"])["ssim"]
    assert result["gen_gen"]["value"] == pytest.approx(1.0)
    assert result["ref_ref"]["value"] < 0.999
    assert result["ref_ref"]["detail"]["pairs"] == 6
    assert result["ref_ref"]["uncertainty"] > 0
    assert set(result) == {"ref_ref", "gen_gen", "ref_gen"}
