"""What may be varied: texts, files, and the models' declarations, checked against their settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest

from caloforge.errors import ConfigError
from caloforge.models import MODELS
from caloforge.tune.space import Parameter, nested, search_space, value_at

VAE = MODELS["vae"].resolve({})


def one(text: str) -> Parameter:
    (found,) = search_space("vae", VAE, [text], only=True)
    return found


def test_ranges_and_choices_are_read() -> None:
    assert one("latent=4:64:log") == Parameter("latent", 4, 64, log=True, whole=True)
    assert one("model.kl = 0.1:2") == Parameter("kl", 0.1, 2)
    assert one("optimizer.lr=1e-4:.01:log") == Parameter("optimizer.lr", 1e-4, 0.01, log=True)
    assert one("hidden=[64, 32],[128]").choices == ("[64, 32]", "[128]")
    assert one("optimizer.kind=adam,rmsprop").choices == ('"adam"', '"rmsprop"')
    assert one("symmetries=true,false").choices == ("true", "false")


@pytest.mark.parametrize(
    "text", ["latent=4:64:log", "kl=0.1:2", "hidden=[64, 32],[128]", "optimizer.kind=adam,rmsprop"]
)
def test_a_text_describes_what_was_read(text: str) -> None:
    assert one(f"{text.partition('=')[0]}={one(text)}") == one(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latent", "expected KEY=LOW:HIGH"),
        ("latnet=4:8", "no setting 'latnet' to vary; did you mean latent"),
        ("optimizer.Lr=1:2", "did you mean optimizer.lr"),
        ("preset=paper,improved", "no setting 'preset' to vary"),
        ("train.validation=0.1:0.2", "no setting 'train.validation'"),
        ("latent=0:64", "greater than or equal to 1"),
        ("latent=8:4", "8 is not below 4"),
        ("latent=1:2.5", "is a whole number"),
        ("kl=0:1:log", "expected more than 0"),
        ("kl=-1:1", "greater than or equal to 0"),
        ("hidden=1:3", "is not a number"),
        ("latent=8,x", "key 'latent'"),
        ("optimizer.kind=adam,adamx", "key 'optimizer.kind'"),
        ("latent=8", "at least two different choices"),
        ("latent=8,8", "at least two different choices"),
        ("latent=1:2:3", "expected LOW:HIGH, LOW:HIGH:log or choices"),
    ],
)
def test_wrong_ones_are_refused_with_the_text_and_the_reason(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        one(text)
    assert f"search '{text}'" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_holds_the_same_and_texts_replace_it(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text('latent = "4:8"\nhidden = [[16], [32]]\noptimizer.lr = "1e-4:1e-3:log"\n')
    found = {p.key: str(p) for p in search_space("vae", VAE, ["latent=2,3"], path, only=True)}
    assert found == {"latent": "2,3", "hidden": "[16],[32]", "optimizer.lr": "0.0001:0.001:log"}
    path.write_text("latent = 4\n")
    with pytest.raises(ConfigError, match=r"space.toml: key 'latent': expected a text"):
        search_space("vae", VAE, (), path)


def test_what_is_set_by_hand_is_not_varied() -> None:
    keys = {p.key for p in search_space("vae", VAE)}
    assert {p.key for p in search_space("vae", VAE, fixed=["latent", "model.optimizer"])} == keys - {
        "latent",
        "optimizer.lr",
    }
    with pytest.raises(ConfigError, match="set by settings too"):
        search_space("vae", VAE, ["latent=2:3"], fixed=["latent"])
    with pytest.raises(ConfigError, match="nothing to vary"):
        search_space("vae", VAE, only=True)
    with pytest.raises(ConfigError, match="given twice"):
        search_space("vae", VAE, ["latent=2:3", "model.latent=2:4"])


@pytest.mark.parametrize("name", [name for name, kind in MODELS.items() if kind.Config.search])
def test_the_declared_values_of_a_model_hold_its_defaults(name: str) -> None:
    base = MODELS[name].resolve({})
    plain = base.model_dump(mode="json")
    for parameter in search_space(name, base):
        default = value_at(plain, parameter.key)
        assert parameter.decoded(parameter.encoded(default)) == default, parameter.key


def test_optuna_chooses_values_that_the_model_takes() -> None:
    space = search_space("vae", VAE)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        values: dict[str, Any] = {p.key: p.suggest(trial) for p in space}
        assert values == {p.key: p.decoded(trial.params[p.key]) for p in space}
        assert MODELS["vae"].resolve(nested(values)).model_dump(mode="json")["latent"] == values["latent"]
        assert json.loads(json.dumps(values)) == values
