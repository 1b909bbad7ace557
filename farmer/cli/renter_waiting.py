"""What stands in the line of a transfer while it is tried again: a bar that is still says less."""

from __future__ import annotations

from farmer.cli.terminal import ProgressLine
from farmer.client.errors import ClientError, ConnectionFailedError, FarmerTooSlowError
from farmer.client.farmer import OnRetry
from farmer.client.refusals import BusyError


def told_in(line: ProgressLine) -> OnRetry:
    """Return what `connect` is to tell, so that the line says it."""
    return lambda error: line.pause(f"{_what_is(error)}, trying again")


def _what_is(error: ClientError) -> str:
    match error:
        case BusyError():
            return "the farmer is busy"
        case FarmerTooSlowError():
            return "the farmer is silent"
        case ConnectionFailedError():
            return "the farmer is out of reach"
        case _:
            return "the connection broke"
