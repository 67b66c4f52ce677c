"""Settings: presets, files, single values, and what is said about wrong ones."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caloforge.errors import ConfigError, FileFormatError, UnknownNameError
from caloforge.train import train
from caloforge.train.settings import read_settings, resolve, to_toml

pytestmark = pytest.mark.usefixtures("toys")


def test_later_settings_go_before_earlier_ones(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[model]\nepochs = 7\ncritic_steps = 2\n[train]\nvalidation = 0.5\nmetric = "hits"\n')
    found = resolve("toy-adversarial", file, ["epochs=9", "train.validation=0.25"], preset="paper")
    assert (found.model.preset, found.model.epochs, found.model.critic_steps) == ("paper", 9, 2)
    assert (found.train.validation, found.train.metric) == (0.25, "hits")
    assert resolve("toy-adversarial", preset="paper").model.epochs == 1


def test_nested_and_textual_values() -> None:
    texts = ["optimizer.lr=0.5", "model.optimizer.kind=rmsprop", "optimizer.betas=[0.5, 0.9]", "metric=a b"]
    found = resolve("toy-adversarial", None, texts)
    optimizer = found.model.optimizer
    assert (optimizer.lr, optimizer.kind, optimizer.betas) == (0.5, "rmsprop", (0.5, 0.9))
    assert optimizer.ema == 0.0
    assert found.train.metric == "a b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch=3", r"settings 'epoch': unknown key 'epoch'; did you mean epochs"),
        ("model.epoch=3", r"unknown key 'epoch'; did you mean epochs"),
        ("optimizer.rate=3", r"unknown key 'optimizer.rate'; known: kind, lr"),
        ("epochs", r"key=value"),
        (".=3", r"key=value"),
        ("epochs=many", r"key 'epochs'.*'many'"),
        ("optimizer.lr=-1", r"key 'optimizer.lr'.*greater than 0"),
        ("validation=1.5", r"key 'validation'.*less than 1"),
        ("preset=best", r"unknown preset 'best'; known: improved, paper"),
        ("precision=8", r"key 'precision'"),
        ("optimizer.lr=nan", r"key 'optimizer.lr'.*finite"),
        ("data.memory=4", r"key 'data.memory'"),
        ("data.memory=4 apples", r"key 'data.memory'.*such as 500MB or 4GB.*'4 apples'"),
        ('data.memory="4"', r"key 'data.memory'.*such as 500MB or 4GB, got '4'$"),  # in the message by chance
    ],
)
def test_a_wrong_value_names_its_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve("toy-adversarial", None, [text])


def test_the_memory_for_the_data() -> None:
    sizes = [
        resolve("toy-mean", None, [f"data.memory={size}"]).train.data.bytes for size in ("4GB", "1.5 MB")
    ]
    assert sizes == [4e9, 1.5e6]
    assert 1e6 < resolve("toy-mean").train.data.bytes < 1e15


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[model]\nepoch = 1\n", r"settings.toml: \[model\]: unknown key 'epoch'; did you mean epochs"),
        ("[train]\nbatch = 1\n", r"settings.toml: \[train\]: unknown key 'batch'; known: .*validation"),
        ("[optimizer]\nlr = 1\n", r"settings.toml: unknown key 'optimizer'; known: \[model\] and \[train\]"),
        ("model = 3\n", r"settings.toml: unknown key 'model'"),
        ('name = "toy-mean"\n', r"'toy-mean', not for 'toy-adversarial'"),
    ],
)
def test_a_wrong_file_names_itself_and_the_key(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        resolve("toy-adversarial", file)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"none.toml: no such file"):
        read_settings(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(FileFormatError, match=r"bad.toml.*is not TOML"):
        read_settings(tmp_path / "bad.toml")
    with pytest.raises(UnknownNameError, match=r"unknown model 'gan'.*vae"):
        resolve("gan")


def test_a_runs_own_file_gives_the_run_again(toy_file: Path, tmp_path: Path) -> None:
    overrides = ["epochs=2", "optimizer.lr=0.01", "validation=0.3"]
    train("toy-two-stage", toy_file, tmp_path / "a", overrides=overrides, device="cpu", seed=2)
    train(
        "toy-two-stage", toy_file, tmp_path / "b", config=tmp_path / "a" / "config.toml", device="cpu", seed=2
    )
    for name in ("config.toml", "weights.safetensors", "metrics.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    content = tomllib.loads((tmp_path / "a" / "config.toml").read_text())
    kept = resolve("toy-two-stage", None, overrides).as_dict()
    assert {**content["model"]} == kept["model"]
    assert content["train"] == kept["train"]


_PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
_KEYS = st.sampled_from(["a", "b_c", "d"])
_TABLE = st.dictionaries(_KEYS, st.one_of(_PLAIN, st.lists(_PLAIN, max_size=3)))


@settings(
    max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)  # the table of all characters is made once
@given(st.one_of(_TABLE, st.dictionaries(_KEYS, st.one_of(_PLAIN, _TABLE, st.dictionaries(_KEYS, _TABLE)))))
def test_toml_comes_back(values: dict) -> None:
    assert tomllib.loads(to_toml(values)) == values


def test_toml_leaves_none_out() -> None:
    assert to_toml({"a": None, "b": {"c": 1}}) == "[b]\nc = 1\n"
