"""Packed files hold the showers that were packed, to ten bits of mantissa."""

from __future__ import annotations

import io
import lzma
from pathlib import Path

import numpy as np
import pytest

from caloforge.errors import FileFormatError, InputError, SeenShowersError
from caloforge.showers import Showers, read_showers
from caloforge.showers.seen import SeenCheck, identities
from caloforge.zoo.packing import decode, encode, pack, read_header, unpack
from caloforge.zoo.recipes import read_sealed

ROOT = Path(__file__).parents[2]


def _showers(detector: str, n: int, seed: int, **more: object) -> Showers:
    rng = np.random.default_rng(seed)
    n_cells = 266 if detector == "atlas-em-barrel" else 65_025
    cells = np.exp(rng.normal(-1.0, 3.0, (n, n_cells))).astype(np.float32)
    cells[rng.random(cells.shape) < 0.8] = 0.0
    cells[0] = 0.0
    return Showers(
        detector, cells, rng.uniform(1e3, 2e5, n), particle="e-", source="geant4", seed=seed, **more
    )


def test_codes_round_to_ten_bits_and_are_exact_for_rounded_energies() -> None:
    energy = np.geomspace(1e-4, 2e5, 10_001).astype(np.float32)
    rounded = decode(encode(energy))
    assert np.abs(rounded / energy - 1.0).max() <= 2.0**-11
    assert np.array_equal(decode(encode(rounded)), rounded)
    for wrong in (1e-5, 1e6):
        with pytest.raises(InputError, match="expected"):
            encode(np.array([wrong], np.float32))


@pytest.mark.parametrize("detector", ["atlas-em-barrel", "clic-ecal-wide"])
def test_unpacked_showers_are_the_packed_ones_and_pack_to_the_same_file(
    detector: str, tmp_path: Path
) -> None:
    sizes = {"alignment_phi": 1, "alignment_eta": 1, "impact": 2} if detector == "atlas-em-barrel" else {}
    parts = [
        _showers(
            detector,
            n,
            seed,
            incident_theta=np.full(n, 80.0 + seed),
            conditions={name: np.full((n, width), 0.25 * seed) for name, width in sizes.items()},
            attributes={"cpu_seconds_per_shower": 0.5 * seed, "production_cut_mm": 1.0},
        )
        for n, seed in ((5, 3), (4, 4))
    ]
    files = [part.save(tmp_path / f"{part.seed}.h5") for part in parts]
    assert pack(files, tmp_path / "a.xz") == 9
    assert unpack(tmp_path / "a.xz", tmp_path / "a.h5") == 9
    again, joined = read_showers(tmp_path / "a.h5"), Showers.concatenate(parts)
    kept = np.where(joined.cells >= 1e-4, joined.cells, 0.0)
    assert np.array_equal(again.cells > 0, kept > 0)
    np.testing.assert_allclose(again.cells, kept, rtol=2.0**-11)
    assert np.array_equal(again.incident_energy, joined.incident_energy)
    assert np.array_equal(again.incident_theta, joined.incident_theta)
    assert all(np.array_equal(again.conditions[name], joined.conditions[name]) for name in sizes)
    assert again.particle == "e-"
    assert again.attributes["seeds"] == [3, 4]
    assert again.attributes["production_cut_mm"] == 1.0
    assert again.attributes["cpu_seconds_per_shower"] == pytest.approx((5 * 1.5 + 4 * 2.0) / 9)
    pack([tmp_path / "a.h5"], tmp_path / "b.xz")
    unpack(tmp_path / "b.xz", tmp_path / "b.h5")
    assert np.array_equal(read_showers(tmp_path / "b.h5").cells, again.cells)


def test_what_the_model_of_generated_showers_has_seen_stays_known(tmp_path: Path) -> None:
    truth = _showers("atlas-em-barrel", 20, 1)
    known = identities(truth)
    fake = _showers("atlas-em-barrel", 6, 2).replace(source="vae", attributes={"seen_seeds": [7]})
    files = [
        fake.replace(seen=known[known > 0][part]).save(tmp_path / f"{number}.h5")
        for number, part in enumerate((slice(0, 8), slice(5, 12)))
    ]
    pack(files, tmp_path / "fake.xz")
    unpack(tmp_path / "fake.xz", tmp_path / "fake.h5")
    again = read_showers(tmp_path / "fake.h5")
    assert np.array_equal(again.seen, np.unique(known[known > 0][:12]))
    assert again.attributes["seen_seeds"] == [7]
    with pytest.raises(SeenShowersError, match="12 of 20 reference showers"):
        SeenCheck([truth]).require_unseen([("vae", again)])
    simulated = pack([truth.save(tmp_path / "truth.h5")], tmp_path / "truth.xz")
    assert simulated == 20
    content = np.load(io.BytesIO(lzma.decompress((tmp_path / "truth.xz").read_bytes())))
    assert "seen" not in content  # the files of simulated showers are as they were


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "no.xz").write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match="not a file of packed showers"):
        unpack(tmp_path / "no.xz", tmp_path / "no.h5")
    a = _showers("atlas-em-barrel", 3, 1).save(tmp_path / "a.h5")
    b = _showers("atlas-em-barrel", 3, 1, attributes={"production_cut_mm": 0.7}).save(tmp_path / "b.h5")
    with pytest.raises(InputError, match="made differently"):
        pack([a, b], tmp_path / "ab.xz")
    assert not (tmp_path / "ab.xz").exists()


def test_packed_files_of_the_repository_hold_sealed_seeds_alone() -> None:
    sealed = read_sealed(ROOT / "scripts" / "zoo.toml")
    files = sorted((ROOT / "data").glob("*.xz"))
    assert files
    for path in files:
        parts = read_header(path)["parts"]
        dataset = max(
            (name for name in sealed if path.stem.startswith(name)), key=len, default="ild-photon-angled"
        )
        assert {part["seed"] for part in parts} <= set(sealed[dataset]), path.name
