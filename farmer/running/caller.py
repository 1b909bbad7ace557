"""
Asking the running farmer, from another process, without Twisted.

One JSON object on one line goes each way over a UNIX socket:
`{"verb": "status", "words": {}}`, then `{"ok": true, "answer": {...}}` or
`{"ok": false, "error": "what happened, what it means, what to do"}`.
"""

from __future__ import annotations

import json
import socket
from typing import Any, Final

from farmer.running.files import read_json
from farmer.running.home import Home

REQUEST_BYTES_MAX: Final = 64 * 1024
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""A listing of a million contracts fits; a runaway does not."""

PATIENCE_S: Final = 30.0
"""Longer than a disk that spins up."""


class NotRunningError(Exception):
    """No farmer runs on this home."""


class FarmerRefusedError(Exception):
    """The running farmer said no; the text says why."""


def call(
    home: Home, verb: str, words: dict[str, Any] | None = None, patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    """
    Return the running farmer's answer.

    Raises:
        NotRunningError: nobody answers.
        FarmerRefusedError: it could not do it.

    """
    run = read_json(home.run)
    path = run.get("control") if run is not None else None
    if not isinstance(path, str):
        raise NotRunningError(f"no farmer runs on {home.state}")
    request = json.dumps({"verb": verb, "words": words or {}}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience_s)
        try:
            connection.connect(path)
        except OSError as error:
            raise NotRunningError(f"no farmer runs on {home.state} any more") from error
        try:
            connection.sendall(request)
            line = _line(connection)
        except OSError as error:
            raise FarmerRefusedError(f"the running farmer does not answer: {error}") from error
    return _answer(line)


def _line(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        return stream.readline(ANSWER_BYTES_MAX)


def _answer(line: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(line)
        if reply["ok"]:
            answer: dict[str, Any] = reply["answer"]
            return answer
        complaint = str(reply["error"])
    except (ValueError, KeyError, TypeError) as error:
        raise FarmerRefusedError("the running farmer hung up without an answer") from error
    raise FarmerRefusedError(complaint)
