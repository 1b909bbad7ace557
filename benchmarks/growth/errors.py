"""What goes wrong while growth is measured."""

from __future__ import annotations


class GrowthError(Exception):
    """The farmer, or a renter of ours, did not do what it should; the message says what."""
