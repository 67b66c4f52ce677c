"""Exported files: the same cells as torch's, without caloforge, and what they say of themselves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import caloforge as cf
from caloforge import errors
from caloforge.errors import IncompatibleError, InputError, MissingExtraError
from caloforge.generate import Generator
from caloforge.generate.export import RELATIVE, compare, export, load_exported
from caloforge.generate.export.form import CellForm, Par04Form, describe, frozen, random_inputs
from caloforge.generate.export.writers import _check_compiler, _translations
from caloforge.geometry import get_detector
from caloforge.models.base import ShowerModel
from caloforge.models.flow.path import Time, follow
from caloforge.models.stage import Stage
from caloforge.settings import ModelConfig

EXAMPLES = Path(__file__).parents[2] / "examples"
ort = pytest.importorskip("onnxruntime")


class Tiny(ShowerModel):
    """Cells with a search among knots and a loop over steps: the least that has both."""

    def __init__(self, detector: Any, config: ModelConfig) -> None:
        super().__init__(detector, config)
        self.net = nn.Linear(9, detector.n_cells)
        self.register_buffer("knots", torch.linspace(-1.0, 1.0, 7))
        self.register_buffer("known", torch.ones(1))
        self.condition_low.fill_(1e4)
        self.condition_high.fill_(1e5)
        with torch.no_grad():
            self.net.weight.copy_(torch.sin(torch.arange(self.net.weight.numel())).view_as(self.net.weight))

    @property
    def noise_size(self) -> int:
        return 9

    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        def step(x: Tensor, start: Time, end: Time) -> Tensor:
            return x + (end - start) * torch.tanh(self.net(x)[:, :9])

        x = follow(step, noise, [k / 10 for k in range(11)])
        place = torch.searchsorted(self.knots, noise).float().mean(1, keepdim=True)
        cells = self.condition(conditions, "incident_energy") * torch.sigmoid(self.net(x)) / 1e3
        return cells * (1.0 + place) if bool(self.known > 0) else cells

    def stages(self) -> tuple[Stage, ...]:
        return ()


class Bessel(Tiny):
    def sample(self, noise: Tensor, conditions: Tensor) -> Tensor:
        return torch.special.bessel_j0(super().sample(noise, conditions)).square()


def generator(kind: type[ShowerModel] = Tiny, detector: str = "ild-ecal-10x10") -> Generator:
    torch.manual_seed(0)
    model = kind(get_detector(detector), kind.resolve()).eval()
    return Generator([model], kind.__name__.lower(), "gamma", torch.device("cpu"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(generator(), tmp_path_factory.mktemp("export") / "tiny.onnx").path


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A shipped model with calibration, written by the command."""
    from caloforge.cli.app import app

    path = tmp_path_factory.mktemp("shipped") / "vae.onnx"
    result = CliRunner().invoke(app, ["export", "atlas-photon/vae", "-o", str(path), "--json"])
    assert result.exit_code == 0, result.output
    return path, json.loads(result.stdout)


def rows(model: ShowerModel, n: int, seed: int) -> dict[str, Tensor]:
    return random_inputs(CellForm(model), n, seed)


def numbers(inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in inputs.items()}


def test_cells_are_those_of_torch_for_any_number_of_showers(shipped: tuple[Path, dict[str, Any]]) -> None:
    path, said = shipped
    assert (said["beyond"], said["bytes"]) == (0, path.stat().st_size)
    model = cf.load("atlas-photon/vae", device="cpu").model
    run = load_exported(path)
    for n in (1, 5, 130):
        inputs = rows(model, n, seed=n)
        cells, in_range = run(numbers(inputs))
        with torch.no_grad():
            reference = model.sample(**inputs).numpy()
        difference = np.abs(cells - reference)
        assert cells.shape == reference.shape
        assert in_range.all()
        same = difference <= RELATIVE * np.maximum(cells, reference)
        some = np.maximum(cells, reference) > 1e-4
        assert same[some].mean() > 0.997  # cells of some keV amplify rounding
        assert same[np.maximum(cells, reference) > 0.1].all()  # all hits
        assert (difference.sum(1) <= 1e-4 * reference.sum(1)).all()


def test_the_tutorial_runs(
    shipped: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tutorials" / "deploy.md").read_text()
    assert "caloforge export atlas-photon/vae -o photons.onnx" in page
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photons.onnx").symlink_to(shipped[0])
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "deploy.md", "exec", dont_inherit=True), names)
    assert names["cells"].shape == (100, 266)
    assert 0 < names["cells"].sum(1).mean() < 65_536.0


def test_the_file_says_what_it_is(shipped: tuple[Path, dict[str, Any]]) -> None:
    session = ort.InferenceSession(str(shipped[0]))
    facts = session.get_modelmeta().custom_metadata_map
    generator = cf.load("atlas-photon/vae", device="cpu")
    assert (facts["model"], facts["detector"]) == ("atlas-photon/vae", "atlas-em-barrel")
    assert (facts["cell_unit"], facts["licence"], facts["form"]) == ("MeV", "BSD-3-Clause", "cells")
    assert json.loads(facts["card"])["metrics"]["reference"]["n"] == 4500
    energy, phi, eta = json.loads(facts["conditions"])
    assert (energy["name"], energy["unit"]) == ("incident_energy", "MeV")
    assert (energy["low"], energy["high"]) == ([1024.0], [262144.0])
    assert (phi["first_column"], eta["first_column"]) == (1, 2)
    assert {one.name: one.shape[1] for one in session.get_inputs()} == json.loads(facts["inputs"])
    assert json.loads(facts["noise_size"]) == generator.model.noise_size
    assert [one.name for one in session.get_outputs()] == json.loads(facts["outputs"])


ALONE = """
import importlib.abc, runpy, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        if top not in {'numpy', 'onnxruntime'} | set(sys.stdlib_module_names):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the example where NumPy, ONNX Runtime and the standard library alone can be imported."""
    example = str(EXAMPLES / "onnx_generate.py")
    command = [sys.executable, "-I", "-c", ALONE, example, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_example_runs_on_numpy_and_onnxruntime_alone(
    shipped: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "showers.npz"
    settings = ["--set", "incident_energy=65536", "--set", "alignment_phi=2", "--set", "alignment_eta=1"]
    done = alone(shipped[0], output, "-n", 120, "--seed", 3, *settings)
    assert done.returncode == 0, done.stderr
    assert "120 showers of atlas-photon/vae in atlas-em-barrel" in done.stdout
    made = np.load(output)
    assert np.unique(made["conditions"], axis=0) == pytest.approx(np.array([[65536.0, 2.0, 1.0]]))
    model = cf.load("atlas-photon/vae", device="cpu").model
    noise = np.random.default_rng(3).standard_normal((120, model.noise_size), np.float32)
    with torch.no_grad():
        reference = model.sample(torch.from_numpy(noise), torch.from_numpy(made["conditions"])).numpy()
    found = compare(reference, made["cells"])
    assert found.beyond <= 1e-3 * found.cells
    assert found.energy < 1e-5


def test_conditions_outside_the_range_are_found_at_run_time(
    tiny: Path, shipped: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    conditions = np.array([[5e3], [1e4], [5e4], [1e5], [1.1e5]], np.float32)
    noise = np.zeros((5, 9), np.float32)
    in_range = load_exported(tiny)({"noise": noise, "conditions": conditions})[1]
    assert in_range.tolist() == [False, True, True, True, False]
    done = alone(shipped[0], tmp_path / "none.npz", "-n", 3, "--set", "incident_energy=900000")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "3 showers are outside the training's range: incident_energy [1024.0] to [262144.0] MeV" in line
    assert not list(tmp_path.iterdir())


def test_the_range_is_that_of_generation(tiny: Path) -> None:
    model = generator().model
    inside = CellForm(model)(torch.zeros(2, 9), torch.tensor([[1.019e5], [1.021e5]]))[1]
    assert inside.tolist() == [True, False]
    for energy, taken in (("101.9GeV", True), ("102.1GeV", False)):
        try:
            generator().generate(1, energy)
        except IncompatibleError:
            assert not taken
        else:
            assert taken


@pytest.mark.parametrize("shape", [(4, 8), (4, 10), (9,)], ids=["too few", "too many", "no batch"])
def test_noise_of_a_wrong_shape_is_refused(tiny: Path, shape: tuple[int, ...]) -> None:
    inputs = {"noise": np.zeros(shape, np.float32), "conditions": np.full((4, 1), 5e4, np.float32)}
    with pytest.raises(Exception, match="noise"):
        load_exported(tiny)(inputs)


def test_a_loop_and_a_search_are_those_of_torch(tiny: Path) -> None:
    onnx = pytest.importorskip("onnx")
    kinds = [node.op_type for node in onnx.load(tiny).graph.node]
    assert kinds.count("Scan") == 1
    assert str(Path(__file__).parent).encode() not in tiny.read_bytes()  # no paths of this machine
    model = generator().model
    inputs = rows(model, 50, seed=4)
    reference = model.sample(**inputs).detach().numpy()
    assert load_exported(tiny)(numbers(inputs))[0] == pytest.approx(reference, rel=1e-4)


SHAPES = ((1,), (2,), (8,), (3, 13))


class Searches(nn.Module):
    """Places of values among knots of several shapes, from below and from above, and a stable order."""

    def __init__(self) -> None:
        super().__init__()
        line = [torch.linspace(-1.0, 1.0, shape[-1]).round(decimals=1) for shape in SHAPES]  # with equal ones
        self.knots = [knots.expand(shape).contiguous() for knots, shape in zip(line, SHAPES, strict=True)]

    def forward(self, values: Tensor) -> tuple[Tensor, ...]:
        found = [torch.searchsorted(k, values, right=right) for k in self.knots for right in (False, True)]
        edges = self.knots[2]
        found += [torch.bucketize(values, edges), torch.bucketize(values, edges, right=True)]
        order = values.round().argsort(dim=1, descending=True, stable=True)
        return (*found, order, *values.round().sort(dim=1, stable=True))


def test_searches_and_sorts_are_those_of_torch(tmp_path: Path) -> None:
    module = Searches()
    edges = torch.cat([torch.tensor([-5.0, 5.0]), *(k.flatten()[:11] for k in module.knots)])
    values = torch.cat([edges.expand(3, -1), torch.randn(3, 40)], 1).contiguous()
    path, table = tmp_path / "searches.onnx", _translations()
    program = torch.onnx.export(
        module, (values,), dynamo=True, opset_version=20, custom_translation_table=table, verbose=False
    )
    program.save(path)
    found = ort.InferenceSession(str(path)).run(None, {"values": values.numpy()})
    assert len(found) == 13
    for one, reference in zip(found, module(values), strict=True):
        assert np.array_equal(one, reference.numpy())


class Errors(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            torch.erfc(x),
            torch.erfinv(torch.erf(x)),
            torch.sigmoid(3.0 * x),
            torch.expm1(x**9),
            torch.log1p(x.abs() ** 9),
        )


def test_error_functions_are_those_of_torch_in_their_tails(tmp_path: Path) -> None:
    x = torch.linspace(-5.0, 5.0, 401)[:, None]
    path, table = tmp_path / "errors.onnx", _translations()
    program = torch.onnx.export(
        Errors(), (x,), dynamo=True, opset_version=20, custom_translation_table=table, verbose=False
    )
    program.save(path)
    upper, inverse, sigmoid, expm1, log1p = ort.InferenceSession(str(path)).run(None, {"x": x.numpy()})
    assert upper == pytest.approx(torch.erfc(x.double()).numpy(), rel=5e-6)
    assert expm1[(x**9 < 80).numpy()] == pytest.approx(torch.expm1(x**9)[x**9 < 80].numpy(), rel=2e-6)
    assert log1p == pytest.approx(torch.log1p(x.abs() ** 9).numpy(), rel=2e-6)
    assert sigmoid == pytest.approx(torch.sigmoid(3.0 * x).numpy(), rel=2e-6)
    inside = x.abs() < 3.0  # beyond, erf in single precision knows too little of x
    assert inverse[inside.numpy()] == pytest.approx(
        torch.erfinv(torch.erf(x))[inside].numpy(), rel=1e-4, abs=1e-6
    )


def test_a_copy_is_frozen_and_the_model_is_not() -> None:
    model = generator().model
    copy = frozen(model)
    assert copy.known == 1.0
    assert isinstance(model.known, Tensor)
    inputs = rows(model, 3, seed=0)
    assert torch.equal(copy.sample(**inputs), model.sample(**inputs))


def test_par04_takes_one_row_and_returns_parts_of_the_energy(tmp_path: Path) -> None:
    source = generator()
    path = export(source, tmp_path / "par04.onnx", form="par04").path
    model, session = source.model, ort.InferenceSession(str(path))
    assert [(one.name, one.shape[1]) for one in session.get_inputs()] == [("input", 9 + 4)]
    noise = torch.randn(1, 9)
    row = torch.cat([noise, torch.tensor([[50_000.0 / 1_024_000.0, 1.0, 0.0, 1.0]])], 1)
    cells, in_range = session.run(None, {"input": row.numpy()})
    reference = model.sample(noise, torch.tensor([[50_000.0]])).detach().numpy()
    assert cells * 50_000.0 == pytest.approx(reference, rel=1e-4)
    assert in_range.tolist() == [True]
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["energy_unit_mev"] == "1024000.0"
    assert facts["cell_unit"] == "incident energy"


def test_par04_orders_a_cylinder_by_r_alpha_z() -> None:
    detector = get_detector("calochallenge-2")
    graph = Par04Form(generator(Tiny, "calochallenge-2").model)
    layers, n_alpha, n_r = detector.n_layers, 16, 9
    for place, (r, alpha, z) in {0: (0, 0, 0), 1: (0, 0, 1), 45: (0, 1, 0), 45 * 16 + 2: (1, 0, 2)}.items():
        assert graph.order[place] == z * n_alpha * n_r + alpha * n_r + r
    assert sorted(graph.order.tolist()) == list(range(layers * n_alpha * n_r))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["atlas-photon/vae", "-o", "F.onx"], "unknown suffix '.onx'; expected .onnx or .pt2"),
        (
            ["atlas-photon/vae", "-o", "F.onnx", "--form", "fortran"],
            "unknown form 'fortran'; known: cells, par04",
        ),
        (["atlas-photon/vae", "-o", "F.onnx", "--form", "par04"], "the model also needs 'alignment_phi'"),
        (["no-such-model", "-o", "F.onnx"], "unknown shipped model or run folder 'no-such-model'"),
        (["atlas-photon/vae", "-o", "nowhere/F.onnx"], "the folder nowhere does not exist"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from caloforge.cli.app import app

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", *arguments])
    (line,) = result.stderr.splitlines()
    assert (result.exit_code, says in line) == (2, True), line
    assert not list(tmp_path.iterdir())


def test_an_ensemble_is_refused(ensemble: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is an ensemble of 2 models; a file holds one"):
        cf.export(cf.load(ensemble, device="cpu"), tmp_path / "F.onnx")


def test_an_operator_without_onnx_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"'Bessel' cannot be written as ONNX: '\w+.*bessel_j0' has no ONNX form"
    ):
        export(generator(Bessel), tmp_path / "F.onnx")
    assert not list(tmp_path.iterdir())


def test_missing_packages_and_compilers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[str], Any] = errors.import_module

    def missing(name: str) -> Any:
        if name.startswith("onnx"):
            raise ModuleNotFoundError(name, name=name)
        return real(name)

    monkeypatch.setattr(errors, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'caloforge\[export\]'"):
        export(generator(), tmp_path / "F.onnx")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler, and none was found"):
        export(generator(), tmp_path / "F.pt2")
    assert not list(tmp_path.iterdir())


def test_a_run_says_that_it_has_no_card() -> None:
    source = generator()
    facts = describe(source, CellForm(frozen(source.model)))
    assert (facts["card"], facts["licence"]) == ("{}", "its owner's")
    assert facts["particle"] == "gamma"


def _compiler() -> str:
    try:
        _check_compiler()
    except InputError as error:
        pytest.skip(str(error))
    return shutil.which("g++") or pytest.skip("no g++")


def _build(source: Path, program: Path, compiler: str) -> Sequence[str]:
    """Return the command that compiles the libtorch example against torch's wheel."""
    root = Path(torch.__file__).parent
    includes = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
    libraries = [
        f"-L{root / 'lib'}",
        f"-Wl,-rpath,{root / 'lib'}",
        "-Wl,--no-as-needed",
        "-ltorch",
        "-ltorch_cpu",
        "-lc10",
    ]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    return [compiler, "-std=c++20", "-O0", abi, *includes, str(source), "-o", str(program), *libraries]


def test_a_package_runs_in_torch_and_in_the_libtorch_program(tmp_path: Path) -> None:
    compiler = _compiler()
    source = generator()
    found = export(source, tmp_path / "tiny.pt2")
    assert found.deviation.beyond == 0
    inputs = rows(source.model, 7, seed=5)
    reference = source.model.sample(**inputs).detach().numpy()
    assert load_exported(found.path)(numbers(inputs))[0] == pytest.approx(reference, rel=1e-4)
    program = tmp_path / "generate"
    built = subprocess.run(
        _build(EXAMPLES / "libtorch" / "main.cpp", program, compiler),
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-2000:]
    done = subprocess.run([program, found.path, "2000", "50000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2000 showers of tiny in ild-ecal-10x10, 100 cells, mean visible energy" in done.stdout
    mean = float(done.stdout.split("mean visible energy")[1].split()[0])
    noise = torch.randn(2000, 9, generator=torch.Generator().manual_seed(2))
    expected = source.model.sample(noise, torch.full((2000, 1), 5e4)).sum(1).detach()
    assert mean == pytest.approx(float(expected.mean()), abs=6 * float(expected.std()) / 2000**0.5)
    outside = subprocess.run(
        [program, found.path, "3", "500000"], capture_output=True, text=True, check=False
    )
    assert outside.returncode == 2
    assert "outside the training's range" in outside.stderr


def test_the_onnxruntime_program_runs_where_its_headers_are(tiny: Path, tmp_path: Path) -> None:
    roots = [Path(root) for root in (os.environ.get("ONNXRUNTIME_ROOT"), "/usr", "/usr/local") if root]
    found = [root for root in roots if list((root / "include").rglob("onnxruntime_cxx_api.h"))]
    if not found or not shutil.which("cmake"):
        pytest.skip("needs cmake and the C++ headers of ONNX Runtime, below ONNXRUNTIME_ROOT or /usr")
    build = tmp_path / "build"
    for command in (
        ["cmake", "-S", EXAMPLES / "onnxruntime", "-B", build, f"-DONNXRUNTIME_ROOT={found[0]}"],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    program = build / "generate"
    done = subprocess.run([program, tiny, "100", "50000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "100 showers of tiny in ild-ecal-10x10, 100 cells, mean visible energy" in done.stdout
    outside = subprocess.run([program, tiny, "3", "500000"], capture_output=True, text=True, check=False)
    assert (outside.returncode, "outside the training's range" in outside.stderr) == (2, True)
