"""The running farmer's door for its owner: a UNIX socket, one JSON line each way."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from farmer.node.tasks import Tasks
from farmer.running.caller import PATIENCE_S, REQUEST_BYTES_MAX
from farmer.running.errors import OwnerError

SOCKET_PATH_BYTES_MAX: Final = 100
"""`sun_path` has 108 bytes on Linux, 104 elsewhere, with the closing zero."""

SOCKET_FILE: Final = "control"

Verb = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Does what the owner asks; an `OwnerError` becomes the answer's error."""


class ControlProtocol(LineOnlyReceiver):
    """One question, one answer, then the end."""

    delimiter = b"\n"
    MAX_LENGTH = REQUEST_BYTES_MAX
    log = Logger()

    def __init__(self, verbs: Mapping[str, Verb], tasks: Tasks, clock: IReactorTime) -> None:
        self._verbs = verbs
        self._tasks = tasks
        self._asked = False
        self._clock = clock
        self._patience: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Give the question a deadline."""
        self._patience = self._clock.callLater(PATIENCE_S, self._hang_up)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the deadline; an answer under way is thrown away."""
        self._stop_waiting()

    def lineReceived(self, line: bytes) -> None:
        """Answer the first line; there is no second."""
        if not self._asked:
            self._asked = True
            self._stop_waiting()
            self._tasks.start("a command of the owner", self._answer(line))

    def _stop_waiting(self) -> None:
        if self._patience is not None and self._patience.active():
            self._patience.cancel()

    def _hang_up(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    async def _answer(self, line: bytes) -> None:
        try:
            verb, words = self._understood(line)
            reply = {"ok": True, "answer": await verb(words)}
        except OwnerError as error:
            reply = {"ok": False, "error": str(error)}
        except Exception as error:
            # The farmer goes on; the owner and the log learn that we have a bug.
            self.log.failure("a command of the owner failed")
            reply = {"ok": False, "error": f"the farmer failed to do it: {error!r}"}
        if self.transport is not None:
            self.transport.write(json.dumps(reply).encode() + b"\n")
        self._hang_up()

    def _understood(self, line: bytes) -> tuple[Verb, dict[str, Any]]:
        try:
            request = json.loads(line)
            name, words = request["verb"], request["words"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise OwnerError("this is not a question to a farmer") from None
        verb = self._verbs.get(name) if isinstance(name, str) else None
        if verb is None or not isinstance(words, dict):
            raise OwnerError(
                f"the running farmer is of another release: it knows no {name!r}; if you have"
                " upgraded, restart it"
            )
        return verb, words


class ControlFactory(Factory):
    """Makes a protocol for each caller."""

    noisy = False

    def __init__(self, verbs: Mapping[str, Verb], tasks: Tasks, clock: IReactorTime) -> None:
        self._verbs = verbs
        self._tasks = tasks
        self._clock = clock

    def buildProtocol(self, addr: object) -> ControlProtocol:
        """Serve one caller."""
        protocol = ControlProtocol(self._verbs, self._tasks, self._clock)
        protocol.factory = self
        return protocol


def socket_path(state: Path, environ: Mapping[str, str], user_id: int) -> Path:
    """
    Return a short path for the control socket, in a directory of our own, 0700.

    A path in the home itself may be too long for a UNIX socket.  The way there is written
    into the home, so nobody has to guess it.
    """
    name = "farmer-" + sha256(os.fsencode(state)).hexdigest()[:12]
    places = [environ.get("RUNTIME_DIRECTORY", "").split(":")[0], environ.get("XDG_RUNTIME_DIR")]
    places += ["/run" if user_id == 0 else None, tempfile.gettempdir(), "/tmp"]  # noqa: S108  # checked below
    for place in places:
        if place and place.startswith("/"):
            directory = Path(place) / name
            if _fits(directory) and _ours(directory, user_id):
                return directory / SOCKET_FILE
    return Path(tempfile.mkdtemp(prefix="farmer-", dir="/tmp")) / SOCKET_FILE  # made new, 0700


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory / SOCKET_FILE)) <= SOCKET_PATH_BYTES_MAX


def _ours(directory: Path, user_id: int) -> bool:
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError:
        return False
    # In a shared directory somebody may have put a link or a directory there before us.
    return found.st_uid == user_id and found.st_mode & 0o170777 == 0o040700
