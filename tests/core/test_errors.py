"""Errors: one line, an exit code, and the same after a trip between processes."""

from __future__ import annotations

import pickle

import pytest

import caloforge.errors as errors
from caloforge.errors import (
    CaloforgeError,
    CaloforgeWarning,
    FileFormatError,
    InputError,
    MissingExtraError,
    OutputExistsError,
    UnknownNameError,
    did_you_mean,
    options_in_messages,
    require,
)

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CaloforgeError)
]
SPECIAL = [
    FileFormatError("x.h5", "row 3", "is nan"),
    MissingExtraError("plotly", "report"),
    OutputExistsError("x.h5"),
    UnknownNameError("model", "vea", ["vae", "flow"]),
]


@pytest.mark.parametrize(
    "error",
    [*SPECIAL, *(kind("what, where") for kind in KINDS if kind not in {type(one) for one in SPECIAL})],
)
def test_an_error_is_the_same_in_another_process(error: CaloforgeError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert copy.exit_code in (1, 2)


def test_a_missing_extra_names_its_command() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'caloforge\[report\]'"):
        require("no_such_module.part", "report")
    assert require("json.decoder", "report").JSONDecoder is not None


@pytest.mark.parametrize(
    ("option", "argument"),
    [
        ("use --allow-seen to go on", "use allow_seen=True to go on"),
        (
            "x.h5 exists already; use --force to replace it",
            "x.h5 exists already; use force=True to replace it",
        ),
        ("settle it with --axes zxy", "settle it with axes='zxy'"),
        ("settle it with --axes, --origin and --detector", "settle it with axes, origin and detector"),
        ("(--key cells=NAME)", "(keys={'cells': 'NAME'})"),
        ("(--energy 50GeV), or --cell-scale 0.0215", "(energy='50GeV'), or cell_scale=0.0215"),
        ("(--detector NAME or --detector FILE.toml)", "(detector=NAME or detector=FILE.toml)"),
        ("--theta is 200; expected degrees", "theta is 200; expected degrees"),
        ("use another --seed or --first", "use another seed or first"),
        ("--set 'epoch': unknown key", "settings 'epoch': unknown key"),
        ("leave out --compile", "leave out compiled=True"),
        ("no--theta --thetas ---theta --none", "no--theta --thetas ---theta --none"),
    ],
)
def test_messages_name_arguments_in_python_and_options_on_the_command_line(
    option: str, argument: str
) -> None:
    error = InputError(option)
    assert str(error) == argument
    assert str(pickle.loads(pickle.dumps(error))) == argument
    assert str(CaloforgeWarning(option)) == argument
    with options_in_messages():
        assert str(error) == option
        with options_in_messages():
            pass
        assert str(error) == option
    assert str(error) == argument


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("vea", ["vae"]),
        ("VAE", ["vae"]),
        ("conv3d", ["conv3d-gan"]),
        ("vae-gna", ["vae-gan", "vae"]),
        ("ild/flow-matchin", ["ild/flow-matching"]),
        ("flow-matching", ["ild/flow-matching"]),
        ("something", []),
    ],
)
def test_names_that_were_perhaps_meant(name: str, close: list[str]) -> None:
    known = ["vae", "vae-gan", "conv3d-gan", "ild/flow-matching"]
    text = str(UnknownNameError("model", name, known))
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    assert text == f"unknown model '{name}'; {meant}known: vae, vae-gan, conv3d-gan, ild/flow-matching"
    assert did_you_mean(name, known) == (meant.strip() or f"known: {', '.join(known)}")
