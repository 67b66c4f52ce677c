"""Errors: one line, an exit code, and the same after a trip between processes."""

from __future__ import annotations

import pickle

import pytest

import caloforge.errors as errors
from caloforge.errors import (
    CaloforgeError,
    FileFormatError,
    MissingExtraError,
    OutputExistsError,
    UnknownNameError,
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
