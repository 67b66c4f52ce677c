"""No file says what its showers are not: conditions that a model cannot have are refused, or said and not written."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caloforge.errors import IncompatibleError
from caloforge.generate import Generator, accepted_range, condition_range
from caloforge.geometry import Beam, get_detector
from caloforge.models.base import ShowerModel
from caloforge.settings import ModelConfig
from caloforge.showers import Showers
from caloforge.showers.hdf5 import UNCONDITIONED
from caloforge.units import AngleSpec
from caloforge.zoo.store import load

CPU = torch.device("cpu")


class Echo(ShowerModel):
    """A model that needs no training: each shower has the sum of its conditions in one cell."""

    noise_size = 1

    def stages(self) -> tuple[Any, ...]:
        return ()

    def sample(self, noise: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        cells = conditions.new_zeros(len(conditions), self.detector.n_cells)
        cells[:, 0] = conditions.sum(1)
        return cells


def echo(
    detector: str = "clic-ecal",
    conditions: tuple[str, ...] = (),
    theta: AngleSpec | None = None,
    particle: str = "",
    **ends: tuple[float, float],
) -> Generator:
    """Return the echo, trained on conditions between these ends."""
    model = Echo(get_detector(detector), ModelConfig(conditions=conditions)).eval()
    for name, (low, high) in {"incident_energy": (2e3, 500e3), **ends}.items():
        model.condition_low[model.columns[name]] = low
        model.condition_high[model.columns[name]] = high
    return Generator([model], "echo", particle, CPU, theta=theta)


def like(detector: str = "clic-ecal", **fields: Any) -> Showers:
    """Return a reference of three showers without energy."""
    place = get_detector(detector)
    return Showers(place, np.zeros((3, place.n_cells)), np.full(3, 50e3), **fields)


# angles


@pytest.mark.parametrize("wanted", [45, "60", "60-120", "89"])
def test_an_angle_that_the_model_does_not_know_is_refused_and_never_written(wanted: str | int) -> None:
    model = echo()
    with pytest.raises(
        IncompatibleError, match="no condition 'incident_theta', it was trained at 90 degrees only"
    ):
        model.generate(3, energy="50GeV", theta=wanted)
    made = model.generate(3, energy="50GeV", theta=wanted, allow_extrapolation=True)
    assert made.incident_theta.tolist() == [90.0] * 3
    assert model.notes(wanted, allow_extrapolation=True) == [
        "the model has no angle: its showers are those of 90 degrees"
    ]


def test_an_angle_that_the_showers_have_changes_nothing() -> None:
    model = echo()
    plain, said = (model.generate(3, energy="50GeV", theta=theta) for theta in (None, "90"))
    np.testing.assert_array_equal(plain.cells, said.cells)
    assert not plain.has_theta
    assert not said.has_theta
    assert model.notes() == model.notes("90") == []


def test_angles_of_a_reference_are_refused_too() -> None:
    model = echo()
    assert model.generate(like=like(incident_theta=np.full(3, 90.0))).incident_theta.tolist() == [90.0] * 3
    with pytest.raises(IncompatibleError, match="not at 50 to 90"):
        model.generate(like=like(incident_theta=[90.0, 50.0, 90.0]))


def test_showers_have_the_angle_of_the_training_not_that_of_the_beam() -> None:
    model = echo(theta=AngleSpec(60.0, 60.0))
    assert model.generate(3, energy="50GeV").incident_theta.tolist() == [60.0] * 3
    assert model.notes() == ["no angle is given (theta); drawn are 60 degrees"]
    with pytest.raises(IncompatibleError, match="trained at 60 degrees only, not at 90"):
        model.generate(3, energy="50GeV", theta=90)
    with pytest.raises(IncompatibleError, match="trained at 60 degrees only, not at 90"):
        model.generate(like=like())


def test_angles_that_varied_and_are_no_condition_are_marked_in_the_file() -> None:
    model = echo("ild-ecal-angled", ("incident_energy",))
    made = model.generate(50, energy="50GeV")
    assert made.attributes[UNCONDITIONED] == ["incident_theta"]
    assert np.ptp(made.incident_theta) > 20.0
    assert "do not depend on 'incident_theta'" in model.notes()[-1]
    with pytest.raises(IncompatibleError, match="trained at 30-90 degrees together, not at 40"):
        model.generate(3, energy="50GeV", theta=40)
    assert UNCONDITIONED not in echo("ild-ecal-angled", incident_theta=(30.0, 90.0)).attributes


def test_a_sample_of_the_angles_of_the_beam_is_the_beam() -> None:
    for ends, expected in (
        ((30.4, 89.5), (30.0, 90.0)),
        ((35.0, 89.5), (35.0, 89.5)),
        ((90.0, 90.0), (90.0, 90.0)),
    ):
        model = echo("ild-ecal-angled", ("incident_energy",), theta=AngleSpec(*ends))
        assert model.theta == AngleSpec(*expected)
        assert len(model.generate(3, energy="50GeV", theta=AngleSpec(*expected))) == 3


def test_what_is_not_a_number_is_refused() -> None:
    model = echo("atlas-em-barrel", alignment_phi=(0.0, 3.0), alignment_eta=(0.0, 1.0))
    conditions = {"alignment_phi": [0.0, np.nan, 1.0], "alignment_eta": [0, 1, 0]}
    with pytest.raises(IncompatibleError, match="alignment_phi"):
        model.generate(like=like("atlas-em-barrel", conditions=conditions))


def test_angles_left_out_are_those_of_the_training_and_said() -> None:
    whole = echo("ild-ecal-angled", incident_theta=(30.02, 89.99))
    assert whole.notes() == ["no angle is given (theta); drawn are 30-90 degrees"]
    part = echo("ild-ecal-angled", incident_theta=(50.0, 55.0))
    assert part.notes() == ["no angle is given (theta); drawn are 50-55 degrees"]
    angles = part.generate(40, energy="50GeV").incident_theta
    assert 50.0 <= angles.min() < angles.max() <= 55.0


def test_a_run_remembers_the_angle_of_its_showers(run: Path) -> None:
    assert load(run, device="cpu").theta == AngleSpec(90.0, 90.0)


# particles and named conditions


def test_another_particle_is_refused() -> None:
    model = echo(particle="e-")
    for other in ("gamma", "e+", "mixed"):
        with pytest.raises(
            IncompatibleError, match=rf"'like' has showers of '{other}'.*those of 'e-'".replace("+", "\\+")
        ):
            model.generate(like=like(particle=other))
        made = model.generate(like=like(particle=other), allow_extrapolation=True)
        assert made.particle == "e-"
    for same in ("e-", ""):
        assert model.generate(like=like(particle=same)).particle == "e-"
    assert echo().generate(like=like()).particle == get_detector("clic-ecal").beam.particle


def test_conditions_that_the_model_does_not_know_are_said_and_not_copied() -> None:
    model = echo()
    reference = like(conditions={"event": np.arange(3), "phi": np.ones((3, 2))})
    assert model.generate(like=reference).conditions == {}
    assert model.notes(like=reference) == [
        "not taken from 'like', since the model does not know it: event, phi"
    ]


def test_a_condition_of_another_width_is_refused() -> None:
    columns = {"alignment_phi": (0.0, 3.0), "alignment_eta": (0.0, 1.0)}
    model = echo("atlas-em-barrel", **columns)
    wide = {"alignment_phi": np.zeros((3, 2)), "alignment_eta": np.zeros(3)}
    with pytest.raises(IncompatibleError, match="'alignment_phi' of the showers has 2 numbers a shower"):
        model.generate(like=like("atlas-em-barrel", conditions=wide))


@pytest.mark.parametrize(
    ("value", "text"), [(1.5, "is 1.5; expected a whole number"), (3.01, "outside"), (-0.01, "outside")]
)
def test_alignments_are_whole_numbers_of_the_training(value: float, text: str) -> None:
    model = echo("atlas-em-barrel", alignment_phi=(0.0, 3.0), alignment_eta=(0.0, 1.0))
    conditions = {"alignment_phi": [0.0, 3.0, value], "alignment_eta": [0, 1, 0]}
    with pytest.raises(IncompatibleError, match=text):
        model.generate(like=like("atlas-em-barrel", conditions=conditions))
    conditions["alignment_phi"][2] = 2.0
    assert model.generate(like=like("atlas-em-barrel", conditions=conditions)).conditions[
        "alignment_phi"
    ].tolist() == [[0], [3], [2]]


# ranges


def beam(energy: str = "1-1000GeV") -> Beam:
    return get_detector("clic-ecal").beam.replace(energy=energy)


def test_energies_are_compared_by_ratio_whatever_the_width_of_the_range() -> None:
    for low, high in ((2e3, 500e3), (2e3, 2e3), (1.0, 1e6)):
        least, most = accepted_range("incident_energy", low, high, beam("10MeV-10TeV"))
        assert least == pytest.approx(low / 1.02)
        assert most == pytest.approx(high * 1.02)


def test_a_sample_of_the_beam_was_trained_on_the_beam() -> None:
    whole = beam("2-500GeV")
    for low, high in ((2050.0, 499e3), (2400.0, 495e3)):
        assert accepted_range("incident_energy", low, high, whole) == pytest.approx((2e3 / 1.02, 510e3))
    # a quarter more than the beam's lowest energy is a choice, and so is what is far in difference
    assert accepted_range("incident_energy", 2600.0, 499e3, whole)[0] == pytest.approx(2600 / 1.02)
    assert accepted_range("incident_energy", 60e3, 60e3, beam("50GeV")) == pytest.approx(
        (60e3 / 1.02, 61.2e3)
    )


@pytest.mark.parametrize("energy", ["1keV", "10MeV", "500MeV", "1.9GeV", "520GeV"])
def test_energies_far_from_the_training_are_refused(energy: str) -> None:
    with pytest.raises(IncompatibleError, match="outside the training's 2000 to 500000 MeV"):
        echo().generate(2, energy=energy)


@pytest.mark.parametrize("energy", ["1.97GeV", "2GeV", "509GeV"])
def test_energies_near_the_training_are_not(energy: str) -> None:
    assert len(echo().generate(2, energy=energy)) == 2


def test_angles_are_compared_by_difference() -> None:
    for low, high in ((30.0, 90.0), (90.0, 90.0)):
        least, most = accepted_range("incident_theta", low, high, beam())
        assert low - least == pytest.approx(most - high)
        assert least == pytest.approx(low - 0.02 * (high - low) - 0.1)


def test_other_conditions_have_a_relative_tolerance() -> None:
    for scale in (1e-6, 1.0, 1e9):
        least, most = accepted_range("impact", -scale, scale, beam())
        assert (least / scale, most / scale) == pytest.approx((-1.041, 1.041))


def test_the_ranges_of_a_model_are_those_of_its_columns() -> None:
    model = echo("ild-ecal-angled", incident_energy=(20e3, 80e3), incident_theta=(40.0, 60.0)).model
    least, most = condition_range(model)
    expected = [
        accepted_range(name, *ends, model.detector.beam)
        for name, ends in (("incident_energy", (20e3, 80e3)), ("incident_theta", (40.0, 60.0)))
    ]
    np.testing.assert_allclose(torch.stack([least, most], 1), np.array(expected), rtol=1e-6)


def test_values_equal_but_for_the_rounding_of_float32_are_accepted() -> None:
    energies: NDArray[np.float64] = np.full(3, 50e3) * (1 + np.array([0, 1e-7, -1e-7]))
    model = echo("ild-ecal", incident_energy=(50e3, 50e3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = model.generate(like=like("ild-ecal").replace(incident_energy=energies))
    np.testing.assert_array_equal(made.incident_energy, energies)
