"""Shipping a run: the card says what the run was, the weights are half as large and make its showers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from caloforge.data import sample_path
from caloforge.errors import FileFormatError, IncompatibleError, InputError, UnfinishedError
from caloforge.files import sha256_file, write_json
from caloforge.generate import Generator
from caloforge.showers import Showers, read_showers, write_showers
from caloforge.showers.seen import identities
from caloforge.showers.views import project_showers
from caloforge.train import RunFolder, train
from caloforge.train.folder import load_weights, save_weights
from caloforge.zoo.shipping import add_to_card, settings_of_command, ship
from caloforge.zoo.store import Card, find_card, load, shipped_models


@pytest.fixture
def data(run: Path) -> Path:
    return run.parent / "data.h5"


def generator(card: Card) -> Generator:
    return Generator(card.models(), card.name, "gamma", torch.device("cpu"))


def test_the_card_says_what_the_run_was(run: Path, data: Path, tmp_path: Path) -> None:
    card = ship(run, "atlas-photon/vae", data, tmp_path)
    content, info = card.content, RunFolder(run).read()
    assert content == json.loads((tmp_path / "atlas-photon" / "vae.json").read_text())
    assert content["data"]["files"][0]["sha256"] == sha256_file(data)
    assert content["data"]["files"][0]["made"]["source"] == "geant4"
    assert (content["data"]["showers"], content["train_showers"]) == (600, info["train_showers"])
    assert content["command"].startswith("caloforge train vae data.h5 -o runs/atlas-photon/vae --set ")
    asked = settings_of_command(content["command"]).as_dict()
    assert (asked["model"], asked["train"]) == (content["config"], content["train"])
    assert content["prepare"] == []
    energies = read_showers(data).incident_energy
    assert content["conditions"]["incident_energy"]["high"] == pytest.approx(energies.max())
    assert content["conditions"]["incident_energy"]["unit"] == "MeV"
    assert content["hardware"]["wall_seconds"] > 0
    assert content["commands"] == [content["command"]]
    assert content["from_nothing"] is True
    assert content["commit"] == info["commit"]
    assert content["parameters"]["all"] == info["parameters"] > content["parameters"]["shipped"]


def test_the_card_says_at_which_angle_the_showers_were_where_it_is_not_that_of_the_beam(
    run: Path, data: Path, tmp_path: Path
) -> None:
    assert "incident_theta" not in ship(run, "atlas-photon/vae", data, tmp_path).content
    inclined = tmp_path / "run"
    shutil.copytree(run, inclined)
    info = json.loads((inclined / "run.json").read_text()) | {"incident_theta": [60.0, 60.0]}
    (inclined / "run.json").write_text(json.dumps(info))
    model = ship(inclined, "atlas-photon/inclined", data, tmp_path).generator()
    assert model.generate(3, energy="50GeV").incident_theta.tolist() == [60.0] * 3


def test_the_card_keeps_what_the_model_has_seen(run: Path, data: Path, tmp_path: Path) -> None:
    card = ship(run, "atlas-photon/vae", data, tmp_path)
    path = tmp_path / "atlas-photon" / "vae.identities.npy"
    known = np.sort(identities(read_showers(data)))
    np.testing.assert_array_equal(np.load(path), known)
    facts = {"file": path.name, "showers": 600, "sha256": sha256_file(path), "seeds": []}
    assert card.content["seen"] == facts
    model = card.generator()
    np.testing.assert_array_equal(model.seen, known)
    assert model.generate(10, energy="50GeV").seen.tolist() == known.tolist()
    add_to_card(card, {"seen": {**facts, "seeds": [7]}})
    assert find_card("atlas-photon/vae", tmp_path).generator().attributes == {"seen_seeds": [7]}
    np.save(path, known[:-1])
    with pytest.raises(FileFormatError, match="is not the file that was written"):
        card.generator()
    altered = add_to_card(card, {"seen": {**facts, "sha256": sha256_file(path)}})
    with pytest.raises(FileFormatError, match="has 599 identities; its card says 600"):
        altered.generator()
    add_to_card(card, {"seen": facts})
    path.unlink()
    with pytest.raises(FileFormatError, match="identities"):
        card.generator()
    old = add_to_card(card, {"seen": None})
    assert "names no identities" in old.generator().attributes["seen_incomplete"]


def test_a_training_from_shipped_weights_inherits_what_they_have_seen(
    run: Path, data: Path, tmp_path: Path
) -> None:
    card = ship(run, "atlas-photon/vae", data, tmp_path)
    add_to_card(card, {"seen": {**card.content["seen"], "seeds": [7, 8]}})
    weights = tmp_path / "atlas-photon" / "vae.safetensors"
    other = read_showers(sample_path())[600:700].save(tmp_path / "other.h5")
    overrides = ("epochs=1", "latent=4", "hidden=[32]", "calibrate=false", f'initial="{weights}"')
    begun = RunFolder(train("vae", other, tmp_path / "run", overrides=overrides, device="cpu"))
    seen = begun.seen()
    assert (len(seen.inherited), len(seen.all), seen.seeds, seen.missing) == (600, 700, (7, 8), "")
    assert load(begun.path, device="cpu").attributes == {"seen_seeds": [7, 8]}
    again = ship(begun.path, "atlas-photon/next", other, tmp_path)
    assert (again.content["seen"]["showers"], again.content["seen"]["seeds"]) == (700, [7, 8])
    assert again.content["from_nothing"] is False


def test_the_commands_of_all_trainings_are_kept(run: Path, data: Path, tmp_path: Path) -> None:
    other = read_showers(sample_path())[600:700].save(tmp_path / "other.h5")
    overrides = ("epochs=1", "latent=4", "hidden=[32]", f'initial="{RunFolder(run).weights()}"')
    second = train("vae", other, tmp_path / "run", overrides=overrides, device="cpu")
    content = ship(second, "atlas-photon/vae", other, tmp_path / "zoo").content
    first, last = content["commands"]
    assert first.startswith("caloforge train vae data.h5 -o runs/atlas-photon/vae-first --set ")
    assert last == content["command"]
    assert last.startswith("caloforge train vae other.h5 -o runs/atlas-photon/vae --set ")
    assert "runs/atlas-photon/vae-first/weights.safetensors" in last
    assert content["from_nothing"] is True
    assert str(tmp_path) not in "".join(content["commands"])
    assert content["train"]["initial"] == "runs/atlas-photon/vae-first/weights.safetensors"
    asked = settings_of_command(content["command"]).as_dict()
    assert asked["train"] == content["train"]


def test_weights_are_those_that_sampling_needs(run: Path, data: Path, tmp_path: Path) -> None:
    card = ship(run, "atlas-photon/vae", data, tmp_path)
    path = tmp_path / "atlas-photon" / card.content["weights"][0]["file"]
    weights = load_weights(path)
    assert not any(name.startswith("encoder") for name in weights)
    assert any(name.startswith("encoder") for name in load_weights(RunFolder(run).weights()))
    assert card.content["weights"][0] == {
        "file": "vae.safetensors",
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }
    assert path.stat().st_mode & 0o444 == 0o444
    ours = generator(card).generate(200, energy="50GeV", seed=1)
    theirs = load(run, device="cpu").generate(200, energy="50GeV", seed=1)
    np.testing.assert_allclose(ours.visible_energy, theirs.visible_energy, rtol=0.02)


def test_members_of_an_ensemble_are_files_of_their_own(
    run: Path, ensemble: Path, data: Path, tmp_path: Path
) -> None:
    card = ship(ensemble, "atlas-photon/vae", data, tmp_path)
    files = [entry["file"] for entry in card.content["weights"]]
    assert files == ["vae.safetensors", "vae-1.safetensors"]
    both = generator(card).generate(200, energy="50GeV", seed=1).visible_energy
    theirs = load(ensemble, device="cpu").generate(200, energy="50GeV", seed=1).visible_energy
    np.testing.assert_allclose(both, theirs, rtol=0.02)
    save_weights(tmp_path / "atlas-photon" / "vae-gan.safetensors", {"x": torch.zeros(1)})
    ship(run, "atlas-photon/vae", data, tmp_path)
    left = sorted(path.name for path in (tmp_path / "atlas-photon").iterdir())
    assert left == ["vae-gan.safetensors", "vae.identities.npy", "vae.json", "vae.safetensors"]


def test_one_model_of_a_data_set_is_the_best(run: Path, data: Path, tmp_path: Path) -> None:
    ship(run, "atlas-photon/first", data, tmp_path, best=True)
    ship(run, "atlas-photon/second", data, tmp_path)
    assert find_card("atlas-photon", tmp_path).name == "atlas-photon/first"
    ship(run, "atlas-photon/third", data, tmp_path, best=True)
    assert find_card("atlas-photon", tmp_path).name == "atlas-photon/third"
    assert sum(card.content["best"] for card in shipped_models(tmp_path).values()) == 1


def test_what_is_measured_joins_the_card(run: Path, data: Path, tmp_path: Path) -> None:
    card = ship(run, "atlas-photon/vae", data, tmp_path)
    more = add_to_card(card, {"speed": {"cpu": {"ms": 1.5}}, "metrics": {"nothing": float("nan")}})
    assert more.content["speed"]["cpu"]["ms"] == 1.5
    again = find_card("atlas-photon/vae", tmp_path).content
    assert again["metrics"] == {"nothing": None}
    assert {key: again[key] for key in card.content} == card.content


def test_a_repacked_file_is_told_from_a_foreign_one(run: Path, data: Path, tmp_path: Path) -> None:
    showers = read_showers(data)
    same = write_showers(tmp_path / "parts-1.h5", showers[:250])
    rest = write_showers(tmp_path / "parts-2.h5", showers[250:])
    content = ship(run, "atlas-photon/vae", [same, rest], tmp_path / "zoo").content
    assert [entry["file"] for entry in content["data"]["files"]] == ["parts-1.h5", "parts-2.h5"]
    assert content["data"]["read"] == RunFolder(run).read()["data"]
    assert "parts-1.h5 parts-2.h5" in content["command"]
    with pytest.raises(IncompatibleError, match=r"of 600 showers; the files have 250"):
        ship(run, "atlas-photon/vae", same, tmp_path / "zoo")
    other = write_showers(tmp_path / "other.h5", showers.replace(incident_energy=2 * showers.incident_energy))
    with pytest.raises(IncompatibleError, match="600 of 600 showers that the run has seen are not in"):
        ship(run, "atlas-photon/vae", other, tmp_path / "zoo")


def test_images_say_how_they_are_made(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cells = rng.gamma(0.1, 1.0, (60, 27_000)).astype(np.float32)
    showers = Showers("ild-ecal", cells, np.full(60, 50_000.0), particle="gamma", source="geant4")
    whole = write_showers(tmp_path / "whole.h5", showers)
    images = write_showers(tmp_path / "images.h5", project_showers(showers, "ild-ecal-10x10"))
    run = train("vae-gan", images, tmp_path / "run", overrides=("epochs=1", "n_selection=100"), device="cpu")
    content = ship(run, "ild-photon-50gev/vae-gan", whole, tmp_path / "zoo").content
    assert content["data"]["projected"]
    assert content["data"]["files"][0]["made"]["detector"] == "ild-ecal"
    assert content["prepare"] == ["caloforge project whole.h5 --to ild-ecal-10x10 -o whole-ild-ecal-10x10.h5"]
    assert "caloforge train vae-gan whole-ild-ecal-10x10.h5 " in content["command"]


@pytest.mark.parametrize("name", ["vae", "atlas-photon/", "atlas-photon/../vae", "Atlas/vae", "a/b/c"])
def test_names_are_checked(name: str, run: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected DATASET/MODEL"):
        ship(run, name, data, tmp_path)
    assert not any(tmp_path.iterdir())


def test_runs_that_cannot_be_shipped(run: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="expected a run folder"):
        ship(tmp_path, "atlas-photon/vae", data, tmp_path / "zoo")
    old = shutil.copytree(run, tmp_path / "old")
    RunFolder(old).identities.unlink()
    with pytest.raises(FileFormatError, match="without identities of its showers cannot be shipped"):
        ship(old, "atlas-photon/vae", data, tmp_path / "zoo")
    short = RunFolder(shutil.copytree(run, tmp_path / "short"))
    write_json(short.info, {**short.read(), "status": "unfinished", "not_trained": ["vae"]})
    with pytest.raises(UnfinishedError, match="stage vae not trained; only finished runs"):
        ship(short.path, "atlas-photon/vae", data, tmp_path / "zoo")
    broken = shutil.copytree(run, tmp_path / "run")
    weights = load_weights(broken / "weights.safetensors")
    name = next(name for name, _ in RunFolder(run).models()[0].decoder.named_parameters())
    weights[f"decoder.{name}"] = torch.full_like(weights[f"decoder.{name}"], 1e6)
    save_weights(broken / "weights.safetensors", weights)
    altered = RunFolder(broken)
    write_json(altered.info, {**altered.read(), **altered.digests(1)})
    with pytest.raises(InputError, match="not finite in half precision"):
        ship(broken, "atlas-photon/vae", data, tmp_path / "zoo")
    assert not list((tmp_path / "zoo").rglob("*.json"))


def test_large_weights_in_eight_bits(run: Path, data: Path, tmp_path: Path) -> None:
    half, small = (
        ship(run, f"atlas-photon/{name}", data, tmp_path, eight_bits=name == "small")
        for name in ("half", "small")
    )
    assert [one.content["weights"][0].get("bits") for one in (half, small)] == [None, 8]
    assert small.content["weights"][0]["bytes"] < 0.75 * half.content["weights"][0]["bytes"]
    before, after = (one.models()[0].state_dict() for one in (half, small))
    shipped = half.models()[0].shipped_state()  # the rest is for training alone, and random
    changed = {name for name in shipped if not torch.equal(before[name], after[name])}
    assert changed
    for name in changed:
        exact, found = before[name].flatten(), after[name].flatten()
        assert len(exact) >= 4096
        for block in range(0, len(exact), 32):  # the slow version of the error's bound
            here = exact[block : block + 32]
            largest = float(here.abs().max())
            torch.testing.assert_close(
                found[block : block + 32], here, rtol=0, atol=largest / 254 * 1.02 + 1e-7
            )


@pytest.mark.parametrize("scale", [None, torch.ones(3, dtype=torch.float16)])
def test_weights_in_eight_bits_need_their_scales(tmp_path: Path, scale: torch.Tensor | None) -> None:
    stored = {"weight": torch.ones(40, dtype=torch.int8)} | ({} if scale is None else {"weight.scale": scale})
    save_file(stored, str(tmp_path / "w.safetensors"))
    with pytest.raises(FileFormatError, match="one scale for each 32 values"):
        load_weights(tmp_path / "w.safetensors")


def test_weights_of_zero_in_eight_bits(tmp_path: Path) -> None:
    weight = torch.cat([torch.zeros(35), torch.tensor([1e-9, -3.0])])
    save_weights(tmp_path / "w.safetensors", {"weight": weight}, ["weight"])
    torch.testing.assert_close(load_weights(tmp_path / "w.safetensors")["weight"], weight, rtol=0, atol=0.013)
