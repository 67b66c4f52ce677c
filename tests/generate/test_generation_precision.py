"""The networks' precision and compilation: refused where they are not known to be safe, compared with float32 before use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_flows import small_flow

from caloforge.errors import InputError, UnknownNameError
from caloforge.generate import Generator, precision
from caloforge.generate.precision import PRECISIONS, Means, NetworkMode, compiler_cache
from caloforge.models.flow.distilled import FlowMatchingFast
from caloforge.models.flow.model import FlowMatching
from caloforge.showers import open_showers
from caloforge.zoo.store import load

CPU = torch.device("cpu")


def generator(flow: FlowMatching, name: str = "float32") -> Generator:
    return Generator([flow], "flow", "gamma", CPU, precision=name)


def conditions(flow: FlowMatching, n: int) -> torch.Tensor:
    return flow.condition_low.expand(n, -1)


def test_bf16_makes_the_same_showers_but_for_rounding(flow: FlowMatching) -> None:
    plain, rounded = (
        generator(flow, name).generate(30, energy="20GeV", seed=2) for name in ("float32", "bf16")
    )
    assert not np.array_equal(plain.cells, rounded.cells)
    assert rounded.visible_energy.mean() == pytest.approx(plain.visible_energy.mean(), rel=1e-3)
    assert rounded.attributes["precision"] == "bf16"
    assert plain.attributes["precision"] == "float32"
    np.testing.assert_array_equal(generator(flow).generate(30, energy="20GeV", seed=2).cells, plain.cells)


def test_only_the_named_networks_are_rounded(flow: FlowMatching) -> None:
    noise, given = torch.randn(4, flow.noise_size), conditions(flow, 4)
    with torch.inference_mode():
        before = flow.raw(noise, given)
        with NetworkMode([flow], "flow", CPU, "bf16").applied():
            after = flow.raw(noise, given)
        again = flow.raw(noise, given)
    assert torch.equal(before[1], after[1])  # the summary
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[0], again[0])


def test_showers_that_move_are_refused_before_a_file_is_made(
    flow: FlowMatching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_HITS_LIMIT", -1.0)
    with pytest.raises(
        InputError, match=r"flow: bf16 moves the mean number of hits of 200 showers by .* %, more than"
    ):
        generator(flow, "bf16").write(tmp_path / "s.h5", 5, energy="20GeV")
    assert list(tmp_path.iterdir()) == []


def test_the_comparison_is_made_once_for_the_same_conditions(
    flow: FlowMatching, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    check = Means.check

    def counted(self: Means, *arguments: Any) -> None:
        made.append(self.n)
        check(self, *arguments)

    monkeypatch.setattr(Means, "check", counted)
    model = generator(flow, "bf16")
    for energy in ("20GeV", "20GeV", "30GeV"):
        model.generate(201, energy=energy)
    assert made == [201, 201]
    generator(flow).generate(2, energy="20GeV")
    assert len(made) == 2


@pytest.mark.parametrize(
    ("energy", "hits", "message"),
    [
        (1.002, 1.0, r"mean visible energy of 9 showers by \+0.20 %, more than 0.1 %"),
        (1.0, 0.99, r"mean number of hits of 9 showers by -1.00 %, more than 0.2 %"),
        (np.nan, 1.0, "mean visible energy"),
        (1.0, np.nan, "mean number of hits"),
        (1.0009, 1.0019, None),
    ],
)
def test_limits(energy: float, hits: float, message: str | None) -> None:
    plain, other = Means(50.0, 1000.0, 9), Means(50.0 * energy, 1000.0 * hits, 9)
    if message is None:
        plain.check(other, "flow", "bf16")
        return
    with pytest.raises(InputError, match=message) as found:
        plain.check(other, "flow", "bf16")
    assert "use precision='float32'" in str(found.value)


def test_means_are_those_of_all_cells() -> None:
    cells = torch.tensor([[0.0, 0.05, 0.2], [1.0, 0.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.3, 0.0]])
    for sizes in ([4], [1, 3], [2, 2]):
        found = Means.of(cells.split(sizes), 0.1)
        assert found == pytest.approx((4.55 / 4, 1.0, 4))


def test_what_is_refused(run: Path, flow: FlowMatching) -> None:
    with pytest.raises(UnknownNameError, match="unknown precision 'half'; known: float32, tf32, bf16"):
        load(run, device="cpu", precision="half")
    with pytest.raises(InputError, match="vae: no network of this model is known to be safe in bf16"):
        load(run, device="cpu", precision="bf16")
    with pytest.raises(InputError, match="tf32 needs an NVIDIA GPU"):
        generator(flow, "tf32")
    with pytest.raises(InputError, match="for GPUs alone, not on cpu; leave out compiled=True"):
        Generator([flow], "flow", "gamma", CPU, compiled=True)
    with pytest.raises(InputError, match="vae: this model names nothing to compile"):
        load(run, device="cpu", compiled=True)


def test_every_precision_leaves_torch_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    for context in PRECISIONS.values():
        with context(CPU):
            torch.ones(2, 2) @ torch.ones(2, 2)
        assert torch.get_float32_matmul_precision() == before
        assert not torch.is_autocast_enabled("cpu")


def test_files_say_the_precision(flow: FlowMatching, tmp_path: Path) -> None:
    for layout in ("dense", "sparse"):
        path = generator(flow, "bf16").write(tmp_path / f"{layout}.h5", 20, energy="20GeV", layout=layout)
        with open_showers(path) as file:
            assert file.attributes["precision"] == "bf16"


@pytest.mark.parametrize(
    ("kind", "preset", "options", "graphs"),
    [
        # the summary; steps with and without balance, and the last one
        (FlowMatching, "small", {"summary_steps": 2, "steps": 6, "substeps": 2}, 4),
        (FlowMatching, "small", {"summary_steps": 2, "draws": 3}, 2),
        (FlowMatchingFast, "small", {}, 2),
    ],
)
def test_compiled_networks_make_the_same_showers_with_few_graphs(
    kind: type[FlowMatching], preset: str, options: dict[str, Any], graphs: int
) -> None:
    model = small_flow(kind, preset).choose(options)
    made: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        made.append(len(inputs))
        return graph.forward

    torch.compiler.reset()
    mode = NetworkMode([model], "flow", CPU, compiled=True, backend=backend)
    given = conditions(model, 6)
    for seed in (0, 1):
        noise = torch.randn(6, model.noise_size, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            plain = model.sample(noise, given)
            with mode.applied():
                compiled = model.sample(noise, given)
        # cells of nearly the same rank may exchange their energies
        assert torch.isclose(compiled, plain, rtol=1e-3, atol=1e-4).float().mean() > 0.998
        torch.testing.assert_close(compiled.sum(1), plain.sum(1), rtol=1e-4, atol=1e-4)
    assert len(made) == graphs
    assert not {"cell_step", "forward", "predicted", "jumps"} & set(vars(model)).union(
        *(vars(part) for part in model.children())
    )


def test_compiled_networks_are_kept_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert compiler_cache() == tmp_path / "caloforge" / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    assert compiler_cache() == tmp_path / "mine"


def test_a_compiler_that_fails_is_one_line(
    flow: FlowMatching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> AbstractContextManager[None]:
        raise RuntimeError("no compiler\nof C++")

    model = generator(flow, "bf16")
    model.mode.compiled = True
    monkeypatch.setattr(model.mode, "applied", broken)
    with pytest.raises(
        InputError, match=r"flow: the networks cannot be compiled here, no compiler; leave out compiled=True$"
    ):
        model.write(tmp_path / "s.h5", 5, energy="20GeV")
    assert list(tmp_path.iterdir()) == []
