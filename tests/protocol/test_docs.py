from __future__ import annotations

import json
import re

from farmer.protocol.refusals import Refusal
from tests.protocol import docs
from tests.vectors import make


def test_the_page_has_the_blocks_of_the_code() -> None:
    page = docs.PAGE.read_text()
    assert page == docs.with_blocks(page), "run python -m tests.protocol.docs"


def test_every_refusal_has_advice() -> None:
    assert set(docs.ADVICE) == set(Refusal)


def test_the_worked_examples_are_those_of_the_vectors() -> None:
    """Every long hex string on the page stands in a vector file, so none can go stale."""
    vectors = "".join((make.HERE / name).read_text() for name in make.FILES)
    page = docs.PAGE.read_text()
    strings = set(re.findall(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{8,}\b", page))
    known = {"302a300506032b6570032100"}
    assert strings - known
    assert not [text for text in strings - known if text not in vectors]


def test_the_page_names_every_vector_file() -> None:
    page = docs.PAGE.read_text()
    for name in make.FILES:
        assert name in page
        json.loads((make.HERE / name).read_text())
