"""Showers from a run: counted per shower, with the requested conditions, in files and streams."""

from pathlib import Path

import numpy as np
import pytest
import torch

from caloforge.errors import FileFormatError, IncompatibleError, InputError, OutputExistsError
from caloforge.generate import blocks
from caloforge.geometry import get_detector
from caloforge.showers import Showers, open_showers, read_showers
from caloforge.zoo.store import load


def test_showers_do_not_depend_on_batches_or_number(run: Path) -> None:
    model = load(run, device="cpu")
    whole = model.generate(430, energy="2-200GeV", seed=3, batch_size=1000)
    parts = model.generate(430, energy="2-200GeV", seed=3, batch_size=100)
    fewer = model.generate(150, energy="2-200GeV", seed=3)
    np.testing.assert_array_equal(whole.cells, parts.cells)
    np.testing.assert_array_equal(whole.cells[:100], fewer.cells[:100])
    # the last 50 are made in smaller blocks, whose sums round differently
    np.testing.assert_allclose(whole.cells[100:150], fewer.cells[100:], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(whole.incident_energy[:150], fewer.incident_energy)
    other = model.generate(150, energy="2-200GeV", seed=4)
    assert not np.any(np.all(other.cells == fewer.cells, axis=1))


@pytest.mark.parametrize("n", [1, 4, 7, 8, 12, 79, 80, 99, 100, 101, 250])
def test_blocks_cover_all_showers_once_and_few_showers_take_small_ones(n: int) -> None:
    parts = list(blocks(n))
    assert [first for first, _ in parts] == list(np.cumsum([0, *(height for _, height in parts)])[:-1])
    assert n <= sum(height for _, height in parts) <= n + 20
    assert all(first % 100 == 0 for first, height in parts if height == 100)
    assert sum(height == 1 for _, height in parts) <= 4


def test_one_shower_is_the_first_of_many(run: Path) -> None:
    model = load(run, device="cpu")
    many, one = (model.generate(n, energy="20GeV", seed=6).cells for n in (200, 1))
    np.testing.assert_allclose(one[0], many[0], rtol=1e-4, atol=1e-4)


def test_what_a_shower_is(run: Path) -> None:
    showers = load(run, device="cpu").generate(300, energy="65.536GeV", seed=0)
    assert showers.source == "vae"
    assert showers.seed == 0
    assert showers.particle == "gamma"
    assert np.all(showers.incident_energy == 65536.0)
    assert set(showers.conditions) == {
        "alignment_phi",
        "alignment_eta",
    }  # not the impact, which the model averages over
    assert np.all(np.isfinite(showers.cells))
    assert np.all(showers.cells >= 0)
    assert showers.visible_energy.mean() == pytest.approx(0.1765 * 65536, rel=0.2)


def test_mean_energy_rises_with_incident_energy(run: Path) -> None:
    model = load(run, device="cpu")
    means = [model.generate(100, energy=f"{e}GeV").visible_energy.mean() for e in (2, 20, 200)]
    assert means[0] < means[1] < means[2]


def test_like_takes_every_condition_of_the_model(run: Path) -> None:
    reference = read_showers(run.parent / "data.h5")
    model = load(run, device="cpu")
    fake = model.generate(like=reference, seed=2)
    assert len(fake) == len(reference)
    np.testing.assert_array_equal(fake.incident_energy, reference.incident_energy)
    assert set(reference.conditions) - set(fake.conditions) == {"impact"}
    for name, values in fake.conditions.items():
        np.testing.assert_array_equal(values, reference.conditions[name])
    again = model.generate(like=run.parent / "data.h5", seed=2, batch_size=200)
    np.testing.assert_array_equal(fake.cells, again.cells)
    parts = model.generate(like=[run.parent / "data.h5", reference[:10]], seed=2)
    np.testing.assert_array_equal(parts.incident_energy[: len(reference)], reference.incident_energy)
    np.testing.assert_array_equal(parts.incident_energy[len(reference) :], reference.incident_energy[:10])
    more = model.generate(n=700, like=reference, seed=2)
    np.testing.assert_array_equal(more.incident_energy[600:], reference.incident_energy[:100])


def test_members_of_an_ensemble_take_turns(ensemble: Path) -> None:
    model = load(ensemble, device="cpu")
    both = model.generate(40, energy="50GeV", seed=1).cells
    model.members.reverse()
    swapped = model.generate(40, energy="50GeV", seed=1).cells
    assert len(model.members) == 2
    model.members = model.members[:1]
    one = model.generate(40, energy="50GeV", seed=1).cells
    np.testing.assert_array_equal(one[1::2], both[1::2])
    np.testing.assert_array_equal(one[0::2], swapped[0::2])


def test_write_is_the_stream(run: Path, tmp_path: Path) -> None:
    model = load(run, device="cpu")
    path = model.write(tmp_path / "a.h5", 250, energy="10GeV", seed=5, batch_size=100)
    with open_showers(path) as file:
        assert len(file) == 250
        assert file.source == "vae"
        np.testing.assert_array_equal(file[:].cells, model.generate(250, energy="10GeV", seed=5).cells)
    with pytest.raises(OutputExistsError):
        model.write(path, 10, energy="10GeV")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 5, "energy": "2TeV"}, IncompatibleError, "outside the training's"),
        ({"n": 0, "energy": "2GeV"}, InputError, "number of showers is 0"),
        ({"n": 5}, InputError, "an energy is needed"),
        ({"energy": "2GeV"}, InputError, "number of showers is needed"),
        ({"n": 5, "energy": "2GeV", "batch_size": 0}, InputError, "batch size is 0"),
    ],
)
def test_bad_requests(run: Path, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load(run, device="cpu").generate(**arguments)


def test_extrapolation_is_a_choice(run: Path) -> None:
    showers = load(run, device="cpu").generate(5, energy="300GeV", allow_extrapolation=True)
    assert len(showers) == 5


def test_like_of_another_detector(run: Path) -> None:
    detector = get_detector("ild-ecal-10x10")
    other = Showers(detector, np.zeros((2, 100)), np.ones(2))
    with pytest.raises(IncompatibleError, match="cannot take its conditions from showers of"):
        load(run, device="cpu").generate(like=other)
    with pytest.raises(InputError, match="leave out energy"):
        load(run, device="cpu").generate(like=other, energy="1GeV")


def test_unfinished_and_foreign_folders(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="expected a run folder"):
        load(tmp_path)
    (tmp_path / "run.json").write_text((run / "run.json").read_text().replace("finished", "running"))
    with pytest.raises(FileFormatError, match="not finished"):
        load(tmp_path)
    with pytest.raises(InputError, match="expected auto, cpu, cuda"):
        load(run, device="abacus")


def test_a_gpu_without_enough_memory_makes_smaller_batches(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(run, device="cpu")
    expected = model.generate(300, energy="20GeV", seed=6).cells
    model.device = torch.device("meta")  # not a CPU; blocks are made on one nevertheless
    sizes: list[int] = []

    def block(matrix: torch.Tensor, start: int, seed: int, height: int, plain: bool) -> torch.Tensor:
        sizes.append(height)
        if height > 80:
            raise torch.OutOfMemoryError
        return torch.from_numpy(expected[start : start + height])

    monkeypatch.setattr(model, "_block", block)
    with pytest.warns(UserWarning, match="300 showers at once do not fit .* going on with 150"):
        made = model.generate(300, energy="20GeV", seed=6).cells
    np.testing.assert_array_equal(made, expected)
    assert sizes == [300, 150, 75, 75, 75, 75]


def test_a_gpu_without_memory_for_one_shower_says_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(run, device="cpu")
    model.device = torch.device("meta")

    def block(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(model, "_block", block)
    with pytest.warns(UserWarning, match="do not fit"), pytest.raises(InputError, match="for one shower"):
        model.generate(2, energy="20GeV")
