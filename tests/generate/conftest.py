"""A small flow for all tests that generate with one."""

from __future__ import annotations

import pytest
from small_flows import small_flow

from caloforge.models.flow.model import FlowMatching


@pytest.fixture(scope="session")
def flow() -> FlowMatching:
    return small_flow(FlowMatching).choose({"summary_steps": 2, "steps": 3, "substeps": 2})
