"""Two-sample tests and the CaloChallenge's classifiers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from toy_samples import toy_showers

from caloforge.data import sample_path
from caloforge.geometry import DETECTORS, CylindricalLayer, get_detector
from caloforge.showers import Showers, open_showers
from caloforge.statistics.networks import StandardisedMLP
from caloforge.statistics.training import PRESETS
from caloforge.validate.metrics import Settings, compute_metrics
from caloforge.validate.metrics.features import (
    Column,
    cell_pair,
    finite_columns,
    high_level_features,
    low_level_inputs,
)
from caloforge.validate.metrics.separation import SeparationPower, bin_edges
from caloforge.validate.metrics.two_sample_data import half_mip, pair_data
from caloforge.validate.observables import cell_statistics, observe
from caloforge.validate.sample import Sample

QUICK = Settings(device="cpu", quick=True)
SIZE = 400
TESTS = ("auc_cells", "auc_observables", "auc_spectrum", "auc_strongest")


@cache
def showers(part: int, size: int = SIZE) -> Showers:
    """Return a part of the packaged Geant4 showers of atlas-em-barrel; parts have no shower in common."""
    with open_showers(sample_path()) as file:
        order = np.random.default_rng(5).permutation(len(file))
        return file[:].take(order[part * size : (part + 1) * size])


def measured(generated: Showers, *names: str, settings: Settings = QUICK, part: int = 0) -> dict:
    reference = showers(part, len(generated))
    return compute_metrics(Sample(reference, "reference"), Sample(generated, "generated"), settings, names)


def moved_to_the_threshold(s: Showers, rng: np.random.Generator) -> Showers:
    return s.replace(cells=np.where((s.cells > 0.05) & (s.cells < 0.15), np.float32(0.1001), s.cells))


def without_faint_cells(s: Showers, rng: np.random.Generator) -> Showers:
    return s.replace(cells=np.where(s.cells < 0.05, np.float32(0.0), s.cells))


def smeared_by_half_a_mip(s: Showers, rng: np.random.Generator) -> Showers:
    sigma = half_mip(s.detector)[s.detector.cell_layer]
    noise = rng.standard_normal(s.cells.shape) * sigma
    return s.replace(cells=np.where(s.cells > 0, np.maximum(s.cells + noise, 0.0), 0.0))


def smeared_by_100_kev(s: Showers, rng: np.random.Generator) -> Showers:
    noise = 0.1 * rng.standard_normal(s.cells.shape)
    return s.replace(cells=np.where(s.cells > 0, np.maximum(s.cells + noise, 0.0), 0.0))


def neighbours_swapped(s: Showers, rng: np.random.Generator) -> Showers:
    """Swap one cell of the middle layer's core with its neighbour, another one in each shower."""
    cells = s.cells.copy()
    middle = np.flatnonzero(s.detector.cell_layer == 2).reshape(7, 7)
    for row in cells:
        i, j = rng.integers(2, 5, 2)
        pair = middle[i, j], middle[i + rng.choice([-1, 1]), j]
        row[list(pair)] = row[list(pair[::-1])]
    return s.replace(cells=cells)


def middle_layer_dimmed(s: Showers, rng: np.random.Generator) -> Showers:
    return s.replace(cells=s.cells * np.where(s.detector.cell_layer == 2, 0.95, 1.0))


def collapsed_to_100_showers(s: Showers, rng: np.random.Generator) -> Showers:
    return s.take(rng.integers(0, 100, len(s)))


def residues_of_1e_16_mev(s: Showers, rng: np.random.Generator) -> Showers:
    few = (s.cells == 0) & (rng.random(s.cells.shape) < 0.02)
    return s.replace(cells=np.where(few, np.float32(1e-16), s.cells))


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (moved_to_the_threshold, "auc_spectrum"),
        (without_faint_cells, "auc_spectrum"),
        (smeared_by_half_a_mip, "auc_spectrum"),
        (smeared_by_100_kev, "auc_spectrum"),
        (neighbours_swapped, "auc_observables"),
        (middle_layer_dimmed, "auc_observables"),
        (collapsed_to_100_showers, "auc_cells"),
        (residues_of_1e_16_mev, "auc_spectrum"),
    ],
)
def test_what_is_made_wrong_on_purpose_is_seen(
    wrong: Callable[[Showers, np.random.Generator], Showers], name: str
) -> None:
    entry = measured(wrong(showers(1), np.random.default_rng(7)), name)[name]
    error = max(entry["uncertainty"], 1e-3)
    assert entry["value"] > 0.55
    assert (entry["value"] - 0.5) / error > 4
    assert (entry["value"] - entry["floor"]) / np.hypot(error, entry["floor_uncertainty"]) > 4
    if wrong in (moved_to_the_threshold, without_faint_cells):  # the spectrum sees a threshold completely
        assert entry["value"] > 0.98
        assert entry["detail"]["classifier"] == "gradient boosting, threshold 0"


@pytest.mark.parametrize("part", [1, 2, 3])
def test_geant4_is_not_told_from_geant4(part: int) -> None:
    metrics = measured(showers(part), *TESTS)
    for name in TESTS:
        entry = metrics[name]
        assert abs(entry["value"] - 0.5) < 3.5 * entry["uncertainty"]
        assert abs(entry["floor"] - 0.5) < 3.5 * entry["floor_uncertainty"]
        assert entry["uncertainty"] < 0.06


@pytest.mark.parametrize("wrong", [neighbours_swapped, moved_to_the_threshold])
def test_the_strongest_is_as_strong_as_the_set_that_sees_it(wrong) -> None:
    metrics = measured(wrong(showers(1), np.random.default_rng(7)), *TESTS)
    best = max(metrics[name]["value"] for name in TESTS[:3])
    strongest = metrics["auc_strongest"]
    assert strongest["value"] > best - 2 * strongest["uncertainty"] - 0.03
    every = strongest["detail"]["classifiers"]
    assert {name.partition(":")[0] for name in every} == {"cells", "observables", "spectrum"}
    assert set(strongest["detail"]["chosen_by_fold"]) <= set(every)
    for entry in every.values():
        assert set(entry) == {"value", "uncertainty", "validation", "threshold"}


def test_networks_take_part_and_each_test_names_its_classifiers() -> None:
    metrics = measured(showers(1, 120), *TESTS, settings=Settings(device="cpu"))
    assert set(metrics["auc_cells"]["detail"]["classifiers"]) == {
        f"{kind}, threshold {threshold}"
        for kind in ("gradient boosting", "network")
        for threshold in ("0", "half a MIP")
    }
    assert set(metrics["auc_observables"]["detail"]["classifiers"]) == {"gradient boosting", "network"}
    assert metrics["auc_cells"]["detail"]["n_used"] == 120


def test_the_3d_network_takes_part_on_grids_when_it_is_asked_for() -> None:
    a, b = (Sample(toy_showers("ild-ecal-10x10", 60, seed), str(seed)) for seed in (1, 2))
    settings = Settings(device="cpu", cnn=True, cnn_epochs=1)
    found = compute_metrics(a, b, settings, ["auc_cells"])["auc_cells"]["detail"]["classifiers"]
    assert "3-D network, threshold 0" in found


def test_the_threshold_is_half_a_mip() -> None:
    np.testing.assert_allclose(half_mip(get_detector("ild-ecal")), 0.1018, atol=1e-3)
    np.testing.assert_allclose(half_mip(get_detector("ild-ecal-10x10")), 0.1)


def test_features_are_what_they_say() -> None:
    a, b = showers(0, 60), showers(1, 60)
    data = pair_data(Sample(a, "a"), Sample(b, "b"), QUICK)
    for index, least in enumerate((np.zeros(4), half_mip(a.detector))):
        above = a.cells > least[a.detector.cell_layer]
        features = data.spectrum_features(None, index)
        whole = [k for k, name in enumerate(features.names) if name.endswith("whole shower")]
        by_layer = [k for k, name in enumerate(features.names) if name.endswith("layer 2")]
        assert (len(whole), len(by_layer)) == (98, 26)
        np.testing.assert_allclose(
            np.expm1(features.reference[:, whole]).sum(axis=1), above.sum(axis=1), rtol=1e-4
        )
        np.testing.assert_allclose(
            np.expm1(features.reference[:, by_layer]).sum(axis=1),
            above[:, a.detector.cell_layer == 2].sum(axis=1),
            rtol=1e-4,
            atol=1e-4,
        )
    assert "impact[0]" not in data.condition_names
    assert "alignment_phi" in data.condition_names


def test_precision_of_the_conditions_does_not_tell_samples_apart() -> None:
    """Energies that one file keeps in single and the other in double precision are equal."""
    s = showers(1).replace(incident_energy=np.full(SIZE, 10_123.4567891))
    single = s.incident_energy.astype(np.float32).astype(np.float64)
    data = pair_data(Sample(s, "a"), Sample(s.replace(incident_energy=single), "b"), QUICK)
    np.testing.assert_array_equal(data.reference.conditions, data.generated.conditions)


CUTS = {
    "calochallenge-1-photons": 1.0,
    "calochallenge-1-pions": 1.0,
    "calochallenge-2": 0.5e-3 / 0.033,
    "calochallenge-3": 0.5e-3 / 0.033,
}


def sparse(name: str, n: int = 40, seed: int = 0, filled: float = 0.1) -> Showers:
    """Showers of which a tenth of the voxels have 2 MeV or more and all others nothing."""
    detector = get_detector(name)
    rng = np.random.default_rng(seed)
    cells = rng.exponential(20.0, (n, detector.n_cells)) + 2.0
    cells[rng.random(cells.shape) > filled] = 0.0
    return Showers(detector, cells.astype(np.float32), cells.sum(axis=1) * rng.uniform(0.8, 1.2, n))


def with_faint(showers: Showers, energy: float) -> Showers:
    """The same showers with a faint energy in each empty voxel, as a flow or a diffusion model leaves."""
    return showers.replace(cells=np.where(showers.cells == 0, np.float32(energy), showers.cells))


@pytest.mark.parametrize("name", CUTS)
def test_faint_voxels_do_not_count(name: str) -> None:
    showers = sparse(name, 25 if name.endswith("3") else 60)
    faint = with_faint(showers, 0.999 * CUTS[name])
    a, b = Sample(showers, "a"), Sample(faint, "b")
    assert a.observables["sparsity"].mean() == pytest.approx(0.9, abs=0.005)
    for observable in a.observables.names:
        np.testing.assert_array_equal(a.observables[observable], b.observables[observable], observable)
    np.testing.assert_array_equal(a.observables.cells.mean, b.observables.cells.mean)
    settings = Settings(n_bootstrap=2, n_halves=1)
    powers = SeparationPower().compute(a, b, settings)["separation_power"]
    assert {key: value.value for key, value in powers.items()} == dict.fromkeys(powers, 0.0)
    pair = low_level_inputs(cell_pair(a, b, settings))
    np.testing.assert_array_equal(pair.reference, pair.generated)
    np.testing.assert_array_equal(high_level_features(a)[0], high_level_features(b)[0])
    raw = cell_pair(a, b, settings, cut=0.0)
    assert (raw.generated > 0).all()


@pytest.mark.parametrize("name", CUTS)
def test_voxels_at_the_cut_are_kept(name: str) -> None:
    detector = get_detector(name)
    cut = np.float32(CUTS[name])
    cells = np.zeros((2, detector.n_cells), np.float32)
    cells[0, :3] = cut, np.nextafter(cut, np.float32(0)), np.nextafter(cut, np.float32(1e9))
    cells[1, 0] = 5.0
    showers = Showers(detector, cells, [1e4, 1e4])
    table = Sample(showers, "edge").observables
    kept = np.where(cells < CUTS[name], 0, cells)  # the challenge's own expression
    np.testing.assert_allclose(table["visible_energy"], kept.sum(axis=1, dtype=np.float64))
    np.testing.assert_allclose(table["sparsity"], 1 - (kept > 0).mean(axis=1))
    assert table["cell_spectrum"].sum() == 3
    assert cell_statistics(showers).mean[1] == 0.0
    assert observe(showers, ["sparsity"], cut=0.0)["sparsity"][0] == 1 - 3 / detector.n_cells


@pytest.mark.parametrize("name", [name for name in DETECTORS.names() if name not in CUTS])
def test_other_detectors_have_no_cut(name: str) -> None:
    detector = get_detector(name)
    assert detector.evaluation_cut == 0.0
    cells = np.full((2, detector.n_cells), 1e-6, np.float32)
    conditions = {key: np.zeros((2, size), np.float32) for key, size in detector.condition_sizes.items()}
    sample = Sample(Showers(detector, cells, [1e4, 1e4], None, conditions), "faint")
    assert (sample.observables["sparsity"] == 0).all()
    assert high_level_features(sample)[0].shape[1] == 2 + 8 * detector.n_layers
    assert (cell_pair(sample, sample, Settings()).reference > 0).all()


def loop(showers: Showers, row: int, cut: float) -> list[float]:
    """The challenge's feature vector of one shower, a voxel at a time."""
    groups: dict[str, list[float]] = {key: [] for key in ("e", "cx", "cy", "wx", "wy", "s", "cr", "wr")}
    total, first = 0.0, 0
    for layer in showers.detector.layers:
        assert isinstance(layer, CylindricalLayer)
        sums = dict.fromkeys(("1", "x", "xx", "y", "yy", "r", "rr"), 0.0)
        filled = 0
        for alpha_bin in range(layer.n_alpha):
            alpha = -math.pi + (alpha_bin + 0.5) * 2 * math.pi / layer.n_alpha
            for r_bin in range(layer.n_r):
                energy = float(showers.cells[row, first + alpha_bin * layer.n_r + r_bin])
                if energy < cut:
                    continue
                filled += energy > 0
                r = (layer.r_edges[r_bin] + layer.r_edges[r_bin + 1]) / 2
                x, y = r * math.cos(alpha), r * math.sin(alpha)
                for key, value in (("1", 1.0), ("x", x), ("xx", x * x), ("y", y), ("yy", y * y)):
                    sums[key] += energy * value
                sums["r"] += energy * r
                sums["rr"] += energy * r * r
        first += layer.n_cells
        total += sums["1"]
        guarded = sums["1"] + 1e-16
        groups["e"].append(math.log10(sums["1"] + 1e-8))
        groups["s"].append(1 - filled / layer.n_cells)
        for axis in "xyr":
            if axis == "r" or layer.n_alpha > 1:
                centre = sums[axis] / guarded
                groups[f"c{axis}"].append(centre / 100)
                width = math.sqrt(max(0.0, sums[2 * axis] / guarded - centre**2))
                groups[f"w{axis}"].append(width / 100)
    out = [math.log10(float(showers.incident_energy[row])), *groups["e"]]
    for key in ("cx", "cy", "wx", "wy"):
        out += groups[key]
    return [*out, math.log10(total + 1e-8), *groups["s"], *groups["cr"], *groups["wr"]]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("calochallenge-1-photons", 1 + 5 + 4 * 2 + 1 + 3 * 5),
        ("calochallenge-1-pions", 1 + 7 + 4 * 4 + 1 + 3 * 7),
        ("calochallenge-2", 2 + 8 * 45),
    ],
)
def test_the_feature_vector_is_the_challenges(name: str, size: int) -> None:
    showers = with_faint(sparse(name, 3, seed=1), 0.5 * CUTS[name])
    cells = showers.cells.copy()
    cells[2, : cells.shape[1] // 2] = 0.9 * CUTS[name]  # whole layers below the cut
    showers = showers.replace(cells=cells)
    features, missing = high_level_features(Sample(showers, "faint"))
    assert features.shape == (3, size)
    assert missing == 0
    slow = [loop(showers, row, CUTS[name]) for row in range(3)]
    np.testing.assert_allclose(features, slow, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["calochallenge-1-photons", "calochallenge-1-pions"])
def test_layers_of_one_angular_bin_have_no_x_and_y(name: str) -> None:
    sample = Sample(sparse(name, 4), "a")
    names = {column.name for column in finite_columns(sample, sample)}
    for index, layer in enumerate(sample.detector.layers):
        assert isinstance(layer, CylindricalLayer)
        assert (f"layer_centre_x[{index}]" in names) == (layer.n_alpha > 1)
        assert (f"layer_width_y[{index}]" in names) == (layer.n_alpha > 1)
        assert f"layer_width_r[{index}]" in names


@pytest.mark.parametrize(
    ("layer", "observable", "low", "high"),
    [
        (1, "layer_centre_x", -100.0, 100.0),
        (1, "layer_width_y", 0.0, 100.0),
        (1, "layer_centre_r", 0.0, 500.0),
        (3, "layer_width_r", 0.0, 500.0),
        (12, "layer_centre_y", -500.0, 500.0),
        (12, "layer_width_x", 0.0, 400.0),
        (12, "layer_centre_r", 0.0, 1500.0),
        (13, "layer_centre_x", -500.0, 500.0),
        (13, "layer_width_x", 0.0, 400.0),
        (14, "layer_width_r", 0.0, 1500.0),
    ],
)
def test_bins_of_the_hadronic_layers(layer: int, observable: str, low: float, high: float) -> None:
    detector = get_detector("calochallenge-1-pions")
    index = [f"layer {layer}" == entry.name for entry in detector.layers].index(True)
    column = Column(f"{observable}[{index}]", observable, np.ones(5), np.ones(5), {}, index=index)
    edges = bin_edges(column, detector)
    assert len(edges) == 101
    assert edges[[0, -1]].tolist() == [low, high]


def test_layer_12_of_the_regular_meshes_is_like_the_others() -> None:
    column = Column("layer_centre_x[12]", "layer_centre_x", np.ones(5), np.ones(5), {}, index=12)
    assert bin_edges(column, get_detector("calochallenge-3"))[0] == -30.0


def test_the_challenges_classifier_sees_the_inputs_as_they_are() -> None:
    import torch

    inputs = torch.full((20, 3), 5.0) + torch.arange(60).reshape(20, 3)
    raw, fast = (
        StandardisedMLP(inputs, PRESETS[name].width, standardise=PRESETS[name].standardise)
        for name in ("calochallenge", "fast")
    )
    assert isinstance(next(iter(raw.children()))[0], torch.nn.Linear)
    assert next(iter(fast.children()))[0](inputs).std() == pytest.approx(1.0, abs=0.05)


def test_the_challenges_network_looks_at_voxels_of_a_mesh() -> None:
    """With its preset the convolutional classifier has the input of the one on cells."""
    rng = np.random.default_rng(3)
    detector = get_detector("calochallenge-2")
    samples = []
    for k in range(2):
        cells = np.where(rng.random((60, 6480)) < 0.05, rng.exponential(5.0, (60, 6480)), 0.0)
        energy = 1e3 * 1000.0 ** rng.random(60)
        samples.append(Sample(Showers(detector, cells.astype(np.float32), energy, source=f"toy {k}"), str(k)))
    preset = replace(PRESETS["calochallenge"], epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "calochallenge", preset)
        settings = Settings(device="cpu", classifier="calochallenge", classifier_seeds=1, floor_seeds=1)
        found = compute_metrics(*samples, settings, ["classifier_cnn"])
    assert found["auc_cnn"]["detail"]["inputs"] == 6481
    assert found["auc_cnn"]["detail"]["networks"][0]["epochs"] == 1
    assert 0.0 <= found["auc_cnn"]["value"] <= 1.0
