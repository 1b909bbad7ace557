"""What goes wrong while something is measured."""

from __future__ import annotations


class MeasuringError(Exception):
    """The farmer, or a renter of ours, did not do what it should; the message says what."""
