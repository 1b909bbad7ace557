"""The one place that names the release, and what programs may count on in its answers."""

from typing import Final

VERSION = "0.1.0"

SCHEMA: Final = 1
"""
Stands in all JSON documents that are printed or answered.

Raised when a field changes its meaning or goes; new fields may come at any time.
"""
