"""The benchmark of flows on a GPU: its parts, on a CPU."""

import sys
from pathlib import Path

import pytest
import torch

from caloforge.data import sample_path
from caloforge.models.flow.distilled import FlowMatchingFast
from caloforge.showers import read_showers

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="module")
def model() -> FlowMatchingFast:
    """Return a small untrained flow whose constants are those of packaged showers."""
    showers = read_showers(sample_path())[:64]
    torch.manual_seed(0)
    made = FlowMatchingFast(showers.detector, FlowMatchingFast.resolve({"preset": "small"}))
    made.fit_transforms(showers)
    for stage in made.stages():
        if stage.name == "copy" and stage.fit is not None:
            stage.fit(None, torch.Generator())  # type: ignore[arg-type]
    return made.eval()


def test_without_a_gpu_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flow_gpu import main

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    printed = capsys.readouterr()
    assert "no CUDA device" in printed.err
    assert not printed.out


def test_all_shipped_flows_are_timed_unless_told_otherwise() -> None:
    from flow_gpu import shipped_flows

    found = shipped_flows()
    assert "atlas-photon/flow-matching" in found
    assert all(name.partition("/")[2].startswith("flow-matching") for name in found)


def test_conditions_lie_within_the_training(model: FlowMatchingFast) -> None:
    from flow_gpu import conditions

    given = conditions(model, 50)
    assert given.shape == (50, model.n_conditions)
    assert bool(((given >= model.condition_low) & (given <= model.condition_high)).all())
    assert torch.equal(given, conditions(model, 50))


def test_what_is_compiled_is_what_samples(model: FlowMatchingFast) -> None:
    from flow_gpu import networks

    assert networks(model) == [model.summary_student, model.cell_student]


def test_compiled_networks_make_the_same_showers_and_are_put_back(model: FlowMatchingFast) -> None:
    from flow_gpu import PLAIN, Form, conditions, running

    noise, given = torch.randn(6, model.noise_size), conditions(model, 6)
    with running(model, PLAIN):
        plain = model.sample(noise, given)
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        calls.append(len(inputs))
        return graph.forward

    with running(model, Form("compiled", backend=backend)):
        compiled = model.sample(noise, given)
    assert calls
    assert torch.allclose(plain, compiled, rtol=1e-4, atol=1e-4)
    done = len(calls)
    model.sample(noise[:3], given[:3])
    assert len(calls) == done
    with running(model, Form("bf16", bf16=True)):
        rounded = model.sample(noise, given).float()
    assert not torch.equal(plain, rounded)
    assert float(rounded.sum()) == pytest.approx(float(plain.sum()), rel=0.1)
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_form_is_timed(model: FlowMatchingFast) -> None:
    from flow_gpu import PLAIN, timed

    found = timed(model, PLAIN, 4, 0.0)
    assert found.microseconds > 0
    assert found.energy > 0
    assert found.hits >= 0


def test_other_models_are_refused() -> None:
    from flow_gpu import flow

    from caloforge.errors import InputError

    with pytest.raises(InputError, match="expected a flow-matching"):
        flow("atlas-photon/vae", "cpu")
