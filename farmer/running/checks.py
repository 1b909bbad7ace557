"""The volumes that the running farmer looks over for its owner; a stop does not wait for them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from farmer.model.ids import NodeId
from farmer.node.ports import Disk
from farmer.running.answering import asked
from farmer.running.checkup import look_over
from farmer.running.errors import OwnerError

STOPPED: Final = "the farmer is being stopped; look the volume over again afterwards"


class Checks:
    """Those under way.  On the reactor."""

    def __init__(self, node: NodeId, annexes: Path, disk: Disk) -> None:
        self._node = node
        self._annexes = annexes
        self._disk = disk
        self._asked: set[Deferred[dict[str, Any]]] = set()
        self._is_stopped = False

    async def check(self, words: dict[str, Any]) -> dict[str, Any]:
        """Look a volume over; raises `OwnerError` if the farmer is stopped meanwhile."""
        if self._is_stopped:
            raise OwnerError(STOPPED)
        # In a thread of its own: it takes none from the renters, nor if it hangs.
        look = partial(look_over, Path(words["path"]), self._node, self._annexes)
        seen = self._disk.settle(asked(look))
        answer: Deferred[dict[str, Any]] = Deferred()
        self._asked.add(answer)
        seen.addBoth(self._tell, answer)  # type: ignore[unused-awaitable]  # *answer* is awaited
        return await answer

    def stop(self) -> None:
        """Answer all, and begin no more: to read a large volume takes hours."""
        self._is_stopped = True
        for answer in tuple(self._asked):
            # The thread reads on until the process ends, and changes nothing.
            self._tell(Failure(OwnerError(STOPPED)), answer)  # type: ignore[no-untyped-call]  # untyped there

    def _tell(self, outcome: Any, answer: Deferred[dict[str, Any]]) -> None:  # noqa: ANN401  # or a Failure
        if answer in self._asked:
            self._asked.remove(answer)
            answer.callback(outcome)
