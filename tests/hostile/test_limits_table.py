from __future__ import annotations

import importlib
import inspect
import re

import pytest

from tests.hostile import limits_table


def test_the_page_has_the_limits_of_the_code() -> None:
    page = limits_table.PAGE.read_text()
    assert page == limits_table.with_table(page), "run python -m tests.hostile.limits_table"


def test_every_limit_of_the_serving_side_is_on_the_page() -> None:
    """A new constant that bounds something has to say which test shows it."""
    shown = {(module, name) for rows in limits_table.GROUPS.values() for module, name, _ in rows}
    not_limits = {
        *("VERSION_MIN", "VERSION_MAX", "FRAME_HEADER_BYTES", "DATA_BYTES_SENT", "PIPELINE_MAX"),
        # Tickers of others: a day, and the endpoint's own timeout.
        *("DAY_S", "CONNECT_S"),
    }
    for module in {module for module, _ in shown}:
        source = inspect.getsource(importlib.import_module(module))
        names = re.findall(r"^([A-Z][A-Z_]*(?:_MAX|_MIN|_S)): Final", source, re.MULTILINE)
        missing = {name for name in names if (module, name) not in shown} - not_limits
        assert not missing, (module, missing)


def test_a_test_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(LookupError):
        limits_table.test_named("tests/hostile/test_stats.py::test_nothing_like_this")
