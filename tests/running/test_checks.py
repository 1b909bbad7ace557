"""Looking volumes over in the running farmer, and a stop meanwhile."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from farmer.model.ids import NodeId
from farmer.running import checks
from farmer.running.checks import Checks
from farmer.running.errors import OwnerError
from tests.fakes import InlineDisk

NODE = NodeId(bytes(32))


class ChecksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.begun: list[Future[dict[str, Any]]] = []

        def begin(_look: object) -> Future[dict[str, Any]]:
            self.begun.append(Future())
            return self.begun[-1]

        self.patch(checks, "asked", begin)
        self.checks = Checks(NODE, Path("/annexes"), InlineDisk())

    def check(self) -> Deferred[dict[str, Any]]:
        return Deferred.fromCoroutine(self.checks.check({"path": "/mnt/attic"}))

    def test_what_was_seen_is_the_answer(self) -> None:
        sound, hung = self.check(), self.check()
        self.begun[0].set_result({"findings": []})
        self.assertEqual({"findings": []}, self.successResultOf(sound))
        self.begun[1].set_exception(ValueError("a bug"))
        self.failureResultOf(hung, ValueError)
        self.checks.stop()

    def test_a_stop_does_not_wait_for_one_that_takes_hours(self) -> None:
        answers = [self.check(), self.check()]
        self.checks.stop()
        for answer in answers:
            refused = self.failureResultOf(answer, OwnerError)
            self.assertIn("the farmer is being stopped", str(refused.value))
        self.begun[0].set_result({"findings": []})
        self.begun[1].set_exception(OSError("closed meanwhile"))

    def test_none_begins_during_a_stop(self) -> None:
        self.checks.stop()
        self.failureResultOf(self.check(), OwnerError)
        self.assertEqual([], self.begun)
