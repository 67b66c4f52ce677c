"""The list of trainings of the flagship's study."""

from pathlib import Path
from typing import Any

import pytest

from caloforge.errors import ConfigError, InputError

SCRIPTS = Path(__file__).parents[2] / "scripts"

PLAN = """
[common]
dataset = "atlas-photon"
model = "flow-matching"
data = ["geant4.h5"]

[baseline]
title = "baseline"
figure = ["ablations", "size", "data", "steps"]

[no-trend]
title = "no trend"
figure = ["ablations"]
set = ["core=1.0"]
"""


def test_the_plan_of_the_study_is_sound() -> None:
    from caloforge.studies.flagship.plan import entries_of, read_plan

    plan = read_plan(SCRIPTS / "flagship.toml")
    base = plan["baseline"].resolved()
    assert set(plan["baseline"].figure) == {"ablations", "size", "data", "steps"}
    assert len(entries_of(plan, ["ablations"])) >= 9
    widths = {entry.resolved().model.width for entry in entries_of(plan, ["size"]).values()}  # type: ignore[attr-defined]
    assert widths == {32, 64, 128, 192}
    sizes = {entry.resolved().train.train_size for entry in entries_of(plan, ["data"]).values()}
    assert sizes == {0, 500, 1000, 2000, 4000}
    for name, entry in plan.items():
        assert entry.data == plan["baseline"].data
        changed = entry.resolved() != base
        assert changed == bool(entry.own), name
        assert changed or name == "baseline" or entry.seed != plan["baseline"].seed
    with pytest.raises(InputError, match="no training is called 'nobody'"):
        entries_of(plan, ["nobody"])


def test_fewer_showers_are_trained_on_for_as_many_steps() -> None:
    from caloforge.studies.flagship.plan import entries_of, read_plan

    steps: dict[str, Any] = {}
    for name, entry in entries_of(read_plan(SCRIPTS / "flagship.toml"), ["data"]).items():
        config: Any = entry.resolved()
        n = config.train.train_size or 6300 - round(6300 * config.train.validation)
        epochs = (
            (config.model.summary_epochs, config.model.summary_batch_size),
            (
                config.model.epochs,
                config.model.batch_size,
            ),
        )
        steps[name] = [number * max(1, n // batch) for number, batch in epochs]
    for found in steps.values():
        assert found == pytest.approx(steps["baseline"], rel=0.01)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("core=1.0", "cores=1.0", r"\[no-trend\].*unknown key 'cores'"),
        ('figure = ["ablations"]', 'figure = ["ablation"]', r"\[no-trend\].*figure"),
        ("[baseline]", "[base]", r"\[baseline\] is missing"),
        ('title = "no trend"', 'name = "no trend"', r"\[no-trend\]"),
    ],
)
def test_wrong_plans_are_refused_before_any_work(tmp_path: Path, old: str, new: str, message: str) -> None:
    from caloforge.studies.flagship.plan import read_plan

    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        read_plan(path)
