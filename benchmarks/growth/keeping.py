"""
The file in which all that was measured is kept, axis by axis, beside the page that shows it.

It belongs into the repository: a page is made of all that it has.  Not all of it need be of one
machine: of each axis, and each work, it says on which it was measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from benchmarks.growth.points import Series
from benchmarks.harness import machine

RESULT: Final = Path(__file__).parents[2] / "docs" / "growth" / "figures.json"


def load() -> dict[str, Any]:
    """Return what is kept; without any measurement, nothing."""
    if not RESULT.exists():
        return {"series": {}, "background": {}}
    document: dict[str, Any] = json.loads(RESULT.read_text())
    return document


def keep_series(series: Series) -> None:
    """Keep one axis, in place of what was measured of it before."""
    _keep("series", series.axis, series.to_fields())


def keep_background(name: str, fields: dict[str, Any]) -> None:
    """Keep one work in the background, in place of what was measured of it before."""
    _keep("background", name, fields)


def _keep(part: str, name: str, fields: dict[str, Any]) -> None:
    document = load()
    document[part][name] = fields | {"machine": machine()}
    unfinished = RESULT.with_suffix(".part")
    unfinished.write_text(json.dumps(document, indent=1) + "\n")
    unfinished.replace(RESULT)
