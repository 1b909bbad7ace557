from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from farmer.node.tasks import Tasks
from farmer.running.caller import PATIENCE_S, REQUEST_BYTES_MAX
from farmer.running.control import ControlFactory, ControlProtocol, socket_path
from farmer.running.errors import OwnerError


async def double(words: dict[str, Any]) -> dict[str, Any]:
    return {"twice": 2 * words["number"]}


async def refuse(words: dict[str, Any]) -> dict[str, Any]:
    raise OwnerError("not today: come back tomorrow")


class ControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = StringTransport()
        factory = ControlFactory({"double": double, "refuse": refuse}, Tasks(), self.clock)
        self.protocol: ControlProtocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.wire)

    def ask(self, line: bytes) -> Any:
        self.protocol.dataReceived(line + b"\n")
        return json.loads(self.wire.value())

    def test_a_question_is_answered_once(self) -> None:
        """
        One line each way, then the farmer hangs up; a second line is not served.
        """
        answer = self.ask(b'{"verb": "double", "words": {"number": 2}}')
        self.assertEqual({"ok": True, "answer": {"twice": 4}}, answer)
        self.assertTrue(self.wire.disconnecting)
        self.assertEqual(answer, self.ask(b'{"verb": "double", "words": {"number": 3}}'))

    def test_only_the_first_of_many_questions_is_served(self) -> None:
        """
        Also when they come at once and the first takes its time.
        """
        pending: list[Deferred[None]] = []

        async def slow(words: dict[str, Any]) -> dict[str, Any]:
            pending.append(Deferred())
            await pending[-1]
            return {}

        protocol = ControlFactory({"slow": slow}, Tasks(), self.clock).buildProtocol(None)
        protocol.makeConnection(self.wire)
        protocol.dataReceived(b'{"verb": "slow", "words": {}}\n' * 3)
        self.assertEqual(1, len(pending))
        pending[0].callback(None)
        self.assertEqual({"ok": True, "answer": {}}, json.loads(self.wire.value()))

    def test_a_no_has_its_reason(self) -> None:
        self.assertEqual(
            {"ok": False, "error": "not today: come back tomorrow"},
            self.ask(b'{"verb": "refuse", "words": {}}'),
        )

    def test_a_bug_is_logged_and_told(self) -> None:
        """
        The farmer goes on, and the log has the trace.
        """
        answer = self.ask(b'{"verb": "double", "words": {}}')
        self.assertIn("KeyError", answer["error"])
        self.assertEqual(1, len(self.flushLoggedErrors(KeyError)))

    def test_other_lines_are_refused(self) -> None:
        """
        Neither bad JSON nor unknown verbs raise.
        """
        for line in (
            b"",
            b"nonsense",
            b"[]",
            b"3",
            b'{"verb": "double"}',
            b'{"verb": "double", "words": []}',
            b'{"verb": [], "words": {}}',
            b'{"verb": "fly", "words": {}}',
            b"\xff\xfe",
        ):
            self.setUp()
            self.assertFalse(self.ask(line)["ok"], line)

    def test_a_word_of_another_release_is_refused_with_what_to_do(self) -> None:
        """
        A command that was installed over a running farmer's may know what that does not.
        """
        error = self.ask(b'{"verb": "fly", "words": {}}')["error"]
        self.assertIn("knows no 'fly'; if you have upgraded, restart it", error)

    def test_a_silent_caller_is_let_go(self) -> None:
        """
        Who connects and says nothing holds a socket for a while only.
        """
        self.clock.advance(PATIENCE_S + 1)
        self.assertTrue(self.wire.disconnecting)

    def test_an_endless_line_ends_the_connection(self) -> None:
        self.protocol.dataReceived(b"x" * (REQUEST_BYTES_MAX + 1))
        self.assertTrue(self.wire.disconnecting)


class SocketPathTests(SynchronousTestCase):
    def path(self, **environ: str) -> Path:
        return socket_path(Path("/home/of/farmer"), environ, os.getuid())

    def test_in_the_runtime_directory_and_private(self) -> None:
        """
        The same home finds the same place, which nobody else may enter.
        """
        short = Path("/tmp") / f"farmer-test-{os.getpid()}"
        short.mkdir()
        self.addCleanup(short.rmdir)
        path = self.path(XDG_RUNTIME_DIR=str(short))
        self.addCleanup(path.parent.rmdir)
        self.assertEqual(short, path.parent.parent)
        self.assertEqual(0o700, stat.S_IMODE(path.parent.stat().st_mode))
        self.assertEqual(path, self.path(XDG_RUNTIME_DIR=str(short)))

    def test_never_too_long_for_a_socket(self) -> None:
        """
        A long runtime directory is passed over.
        """
        path = self.path(XDG_RUNTIME_DIR="/" + "long" * 40)
        self.assertLess(len(os.fsencode(path)), 104)

    def test_a_squatter_is_passed_over(self) -> None:
        """
        A link, or a directory that others may enter, is not used.
        """
        short = Path("/tmp") / f"farmer-test-{os.getpid()}"
        short.mkdir()
        self.addCleanup(short.rmdir)
        first = self.path(XDG_RUNTIME_DIR=str(short)).parent
        self.addCleanup(first.rmdir)
        first.chmod(0o777)
        self.assertNotEqual(first, self.path(XDG_RUNTIME_DIR=str(short)).parent)

    def test_what_is_another_users_is_passed_over(self) -> None:
        """Also a directory that he alone may enter: he would answer in our place."""
        short = Path("/tmp") / f"farmer-test-{os.getpid()}"
        short.mkdir()
        environ = {"XDG_RUNTIME_DIR": str(short)}
        home = Path(f"/home/{os.getpid()}/farmer")
        ours = socket_path(home, environ, os.getuid()).parent
        for place in (short, Path(tempfile.gettempdir()) / ours.name, Path("/tmp") / ours.name):
            self.addCleanup(shutil.rmtree, place, ignore_errors=True)

        found = socket_path(home, environ, os.getuid() + 1).parent

        self.addCleanup(found.rmdir)
        self.assertNotIn(ours.name, found.parts)
