import numpy as np
import pytest

from caloforge.geometry import MATERIALS, get_material
from caloforge.simulate.gflash.deposit import SOFT_SHARE, landau, spot_spectrum


def test_most_probable_loss_in_silicon_is_the_measured_one():
    # Bichsel 1988: 84 keV in 300 um, a full width of about 25 keV
    peak, xi = landau(get_material("G4_Si"), 0.3)
    assert peak == pytest.approx(0.084, rel=0.03)
    assert 4.02 * xi == pytest.approx(0.0215, rel=0.1)


def test_most_probable_loss_lies_below_the_mean():
    for name in ("G4_Si", "G4_lAr", "G4_POLYSTYRENE"):
        material = get_material(name)
        assert 0.5 < landau(material, 2.0)[0] / material.mip_energy(2.0) < 1


def test_moments_are_those_of_the_table():
    spectrum = spot_spectrum(get_material("G4_Si"), 0.525)
    table = spectrum.table.astype(np.float64)
    assert spectrum.mean == pytest.approx(table.mean())
    assert spectrum.noise == pytest.approx((table**2).mean() / table.mean())
    assert (table >= 0).all()


def test_spectrum_is_a_falling_background_with_a_peak_at_one_mip():
    silicon = get_material("G4_Si")
    table = spot_spectrum(silicon, 0.525).table
    counts, edges = np.histogram(table, bins=np.arange(0, 0.6, 0.02))
    peak = landau(silicon, 0.525)[0]
    below, above = counts[: int(peak / 0.02)], counts[int(peak / 0.02) :]
    assert above.max() > 1.5 * below.min()
    assert abs(edges[int(peak / 0.02) + above.argmax()] - peak) < 0.03
    assert 0 < SOFT_SHARE < 1


def test_table_has_the_distribution_of_the_two_kinds_drawn_at_random():
    material, thickness, n = get_material("G4_lAr"), 4.2, 400_000
    random = np.random.default_rng(1)
    peak, xi = landau(material, thickness)
    secant = 1 / np.sqrt(random.uniform(1 / 9, 1, n))
    through = secant * np.maximum(peak - xi * np.log(random.standard_normal(n) ** 2), 0)
    slow = np.where(random.random(n) < SOFT_SHARE, random.exponential(0.3, n), through)
    quantiles = np.linspace(0.02, 0.98, 25)
    table = spot_spectrum(material, thickness).table
    np.testing.assert_allclose(np.quantile(table, quantiles), np.quantile(slow, quantiles), rtol=0.03)


@pytest.mark.parametrize("name", [name for name in MATERIALS if name != "G4_Galactic"])
@pytest.mark.parametrize("thickness", [0.01, 1.0, 50.0])
def test_any_active_material_has_a_spectrum(name, thickness):
    spectrum = spot_spectrum(get_material(name), thickness)
    assert np.isfinite(spectrum.table).all()
    assert spectrum.mean > 0
