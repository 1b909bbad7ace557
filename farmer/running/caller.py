"""
Asking the running farmer, from another process, without Twisted.

One JSON object on one line goes each way over a UNIX socket:
`{"verb": "status", "words": {}}`, then `{"ok": true, "answer": {...}}` or
`{"ok": false, "error": "what happened, what it means, what to do"}`.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any, Final

from farmer.running.files import json_in
from farmer.running.home import Home
from farmer.storage.rights import user_name

REQUEST_BYTES_MAX: Final = 64 * 1024
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""A listing of a million contracts fits; a runaway does not."""

PATIENCE_S: Final = 30.0
"""Longer than a disk that spins up."""


class NotRunningError(Exception):
    """No farmer runs on this home."""


class FarmerRefusedError(Exception):
    """The running farmer said no, or the system did before it; the text says why."""


def call(
    home: Home, verb: str, words: dict[str, Any] | None = None, patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    """
    Return the running farmer's answer.

    Raises:
        NotRunningError: nobody answers.
        FarmerRefusedError: it could not do it, or we cannot ask whether it runs.

    """
    path = _control(home)
    request = json.dumps({"verb": verb, "words": words or {}}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience_s)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunningError(f"no farmer runs on {home.state} any more") from error
        except OSError as error:
            raise FarmerRefusedError(_unseen(home, error)) from error
        try:
            connection.sendall(request)
            line = _line(connection)
        except OSError as error:
            raise FarmerRefusedError(f"the running farmer does not answer: {error}") from error
    return _answer(line)


def _control(home: Home) -> str:
    """Return where the farmer on a home listens, or did when it was killed; raises as `call`."""
    try:
        run = json_in(home.run)
    except FileNotFoundError:
        run = None
    except OSError as error:
        raise FarmerRefusedError(_unseen(home, error)) from error
    path = run.get("control") if run is not None else None
    if not isinstance(path, str):
        raise NotRunningError(f"no farmer runs on {home.state}")
    return path


def _unseen(home: Home, error: OSError) -> str:
    """Return what to say when the system keeps from us whether a farmer runs."""
    told = f"whether a farmer runs on {home.state} cannot be seen: {error.strerror or error}"
    if not isinstance(error, PermissionError):
        return told
    try:
        owner = home.state.stat().st_uid
    except OSError:
        return f"{told}; type it as the user whose farmer it is"
    if owner == os.geteuid():
        return told
    theirs = user_name(owner)
    return f"{told}; it belongs to the user {theirs}, type it as that: {home.typed_by(owner)}"


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
