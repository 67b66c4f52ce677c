"""One flow for several detectors of one grid."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from caloforge.errors import ConfigError, IncompatibleError
from caloforge.geometry import Detector, detector_from_definition, get_detector
from caloforge.models.flow.family import kriged
from caloforge.models.flow.model import FlowMatching
from caloforge.showers import Showers
from caloforge.simulate import simulate

SMALL = {
    "width": 16, "blocks": 1, "repeats": 1, "heads": 2, "local": 0, "summary_width": 16, "summary_blocks": 1, "summary_heads": 2,
    "detector_conditions": True,
}  # fmt: skip


def _detector(mm: float, absorber: str = "G4_W", side: int = 5, **more: Any) -> Detector:
    layer = {"repeat": 4, "absorber": absorber, "absorber_mm": mm, "active": "G4_Si", "active_mm": 0.5} | more
    content = {"name": "own", "nx": side, "ny": side, "pitch": 12.0, "layers": [layer]}
    beam = {"particle": "e-", "energy": "1-5GeV:log", "entry": [2, 2]}
    return detector_from_definition(json.dumps(content | {"beam": beam}))


def _showers(detector: Detector, n: int = 150, seed: int = 3) -> Showers:
    return simulate(detector, n, engine="gflash", seed=seed)


@pytest.fixture(scope="module")
def parts() -> list[Showers]:
    stacks = (3.0, "G4_W"), (4.0, "G4_W"), (5.0, "G4_W"), (4.5, "G4_Pb"), (6.5, "G4_Pb")
    return [_showers(_detector(*stack)) for stack in stacks]


@pytest.fixture(scope="module")
def joint(parts: list[Showers]) -> FlowMatching:
    return _joint(parts)


def _model(detector: Detector, **changes: Any) -> FlowMatching:
    torch.manual_seed(1)
    return FlowMatching(detector, FlowMatching.resolve({**SMALL, **changes})).eval()


def _joint(parts: list[Showers]) -> FlowMatching:
    model = _model(parts[0].detector)
    model.fit_family(parts)
    for network in (model.summary_net, model.cell_net):
        for name, parameter in network.named_parameters():
            if "terms" in name or "head.out" in name:  # which begin with 0
                torch.nn.init.normal_(parameter, std=0.2)
    return model


def _drawn(model: FlowMatching, n: int = 16) -> torch.Tensor:
    conditions = torch.full((n, 1), 3000.0)
    return model.choose({"summary_steps": 2, "steps": 2, "calibrated": False}).draw(conditions, seed=5)


def test_without_the_option_nothing_is_added() -> None:
    detector = _detector(4.0)
    off, on = _model(detector, detector_conditions=False, core=1.0), _model(detector)
    assert not [name for name in off.state_dict() if "family" in name or "terms.net" in name]
    extra = set(on.state_dict()) - set(off.state_dict())
    assert all("family." in name or ".terms." in name for name in extra)
    showers = _showers(detector)
    state = {name: value for name, value in off.state_dict().items() if name in dict(off.named_parameters())}
    for model in (off, on):
        model.load_state_dict(state, strict=False)
        model.fit_transforms(showers)
    torch.testing.assert_close(_drawn(on), _drawn(off))  # the networks' terms begin with weights of 0


def test_terms_change_what_the_networks_say(joint: FlowMatching) -> None:
    x, t, encoded = torch.randn(3, joint.summary.rows, joint.summary.kinds), torch.rand(3), torch.zeros(3, 1)
    before = joint.summary_net(x, t, encoded).detach()
    assert joint.summary_net.terms is not None
    table = joint.summary_net.terms.table
    kept = table.clone()
    table.copy_(kept.roll(1, 1))
    assert float((joint.summary_net(x, t, encoded).detach() - before).abs().max()) > 1e-3
    table.copy_(kept)
    torch.testing.assert_close(joint.summary_net(x, t, encoded).detach(), before)
    drawn = _drawn(joint)
    assert joint.cell_net.terms is not None
    joint.cell_net.terms.table.add_(0.5)
    assert float((_drawn(joint) - drawn).abs().max()) > 1e-3
    joint.enter(0)
    torch.testing.assert_close(_drawn(joint), drawn)


def test_each_detector_of_the_training_has_its_own_constants_again(
    joint: FlowMatching, parts: list[Showers]
) -> None:
    assert joint.serves_others
    state = joint.state_dict()
    for number, one in enumerate(parts):
        other = _model(one.detector)
        other.load_weights(state)
        joint.enter(number)
        torch.testing.assert_close(other.summary.trend.mean, joint.summary.trend.mean)
        torch.testing.assert_close(other.values.table.x, joint.values.table.x)
        torch.testing.assert_close(_drawn(other), _drawn(joint))
    joint.enter(0)
    assert float((joint.summary.trend.mean - other.summary.trend.mean).abs().max()) > 0.1


def test_the_table_of_cell_values_moves_with_the_minimum_ionising_energy() -> None:
    thin, thick = (_showers(_detector(4.0, active_mm=mm)) for mm in (0.3, 0.6))
    model = _model(thin.detector)
    model.fit_family([thin, thick])
    first = model.values.table.x.clone()
    model.enter(1)
    torch.testing.assert_close(model.values.table.x, first + np.log(2.0))


def test_an_unseen_detector_gets_constants_near_its_own(joint: FlowMatching) -> None:
    showers = _showers(_detector(4.4), 400, seed=8)
    unseen = _model(showers.detector)
    unseen.load_weights(joint.state_dict())
    energy = torch.from_numpy(np.asarray(showers.incident_energy)).float()
    encoded = unseen.encoder(unseen.condition_matrix(showers))
    raw = unseen.summary.measure(torch.from_numpy(np.array(showers.cells)), energy)
    response = unseen.summary.trend(raw.flatten(1), encoded).view(raw.shape)[:, -1, 0]
    assert abs(float(response.mean())) < 0.4
    assert 0.7 < float(response.std()) < 1.4
    far = unseen.summary.trend.mean - joint.summary.trend.mean
    assert float(far.abs().max()) > 0.1
    assert torch.isfinite(_drawn(unseen)).all()


def test_a_detector_outside_those_of_the_training_is_named(joint: FlowMatching) -> None:
    assert not joint.caveats()
    far = _model(_detector(15.0))
    far.load_weights(joint.state_dict())
    found = far.caveats()
    assert any("in depth:" in line for line in found)
    assert any("in radiation lengths: 4.29 to 4.29, trained 0.8" in line for line in found)
    assert not any("critical energy" in line for line in found)


def test_numbers_that_are_linear_in_the_terms_are_found_beyond_them() -> None:
    generator = torch.Generator().manual_seed(3)
    known = torch.randn(12, 3, 2, generator=generator, dtype=torch.float64)
    values = known @ torch.tensor([[1.0, 0.0], [2.0, 3.0]], dtype=torch.float64) + 5.0
    wanted = torch.tensor([[0.5, 0.1], [-1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    found = kriged(known, values, wanted)
    expected = wanted @ torch.tensor([[1.0, 0.0], [2.0, 3.0]], dtype=torch.float64) + 5.0
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.0)
    far = kriged(known, values, wanted * 100.0)
    assert float(far.max()) < float(values.max()) + 0.11 * float(values.max() - values.min())


def test_numbers_that_are_smooth_are_found_between_those_known() -> None:
    line = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None, None]
    found = kriged(line, torch.sin(line), torch.tensor([[0.3]], dtype=torch.float64))
    assert float(found) == pytest.approx(np.sin(0.3), abs=0.02)


def test_a_start_from_several_detectors_is_a_model_of_one(joint: FlowMatching) -> None:
    showers = _showers(_detector(4.4), 60, seed=9)
    few, alone = _model(showers.detector), _model(showers.detector)
    few.start_from(joint, showers)
    assert not few.serves_others
    assert few.calibration_stages()[0].fit == few.calibrate
    assert joint.calibration_stages()[0].fit != joint.calibrate
    assert few.state_dict()["family.trends"].numel() == 0
    for name, parameter in joint.named_parameters():
        torch.testing.assert_close(dict(few.named_parameters())[name], parameter)
    torch.testing.assert_close(few.encoder.mean, joint.encoder.mean)
    alone.load_weights(joint.state_dict())
    torch.testing.assert_close(few.values.table.x, alone.values.table.x)
    assert not torch.equal(few.summary.trend.mean, alone.summary.trend.mean)
    again = _model(showers.detector)
    again.load_weights(few.state_dict())
    torch.testing.assert_close(_drawn(again), _drawn(few))


def test_detectors_that_do_not_go_together_are_refused(joint: FlowMatching) -> None:
    wider = _showers(_detector(4.0, side=7), 30)
    with pytest.raises(IncompatibleError, match=r"has 7 x 7 x 4 cells, .* 5 x 5 x 4; one model serves"):
        _model(wider.detector).start_from(joint, wider)
    with pytest.raises(IncompatibleError, match="known plates"):
        _model(get_detector("calogan"))
    with pytest.raises(IncompatibleError, match="no regular grid"):
        _model(_uneven())
    with pytest.raises(ConfigError, match="exclude one another"):
        _model(_detector(4.0), feedback=True)
    with pytest.raises(IncompatibleError, match="is trained on one detector"):
        _model(_detector(4.0), detector_conditions=False).fit_family([])


def _uneven() -> Detector:
    """Return a detector whose layers have cells of other sizes."""
    layers = [
        {"absorber": "G4_W", "absorber_mm": 3.0, "active": "G4_Si", "active_mm": 0.5, "pitch": p}
        for p in (5.0, 9.0)
    ]
    return detector_from_definition(json.dumps({"name": "uneven", "nx": 5, "ny": 5, "layers": layers}))
