"""How many connections a port takes in before all who are being served get their turn."""

from __future__ import annotations

from typing import Any, Final

ACCEPTS_PER_TURN: Final = 8
"""
Connections that a port takes from the kernel in one turn; Twisted takes 20 more each time.

A flood would make turns of hundreds of them.
"""


def accept_few(port: Any, most: int = ACCEPTS_PER_TURN) -> None:  # noqa: ANN401  # Twisted's `Port`, or what a test has
    """Let a port that listens take no more than *most* in a turn; the rest waits in the kernel."""
    if not hasattr(port, "numberAccepts"):
        return
    accept = port.doRead

    def accept_a_few() -> None:
        port.numberAccepts = min(port.numberAccepts, most)
        accept()

    port.doRead = accept_a_few
