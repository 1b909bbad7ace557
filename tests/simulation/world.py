"""The simulated world: one seed is one run."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from twisted.internet.error import ConnectionLost

from farmer.model.status import VolumeState
from farmer.storage.directory import VolumeSettings, create_volume
from farmer.storage.errors import StorageError
from tests.fakes import TestSigner
from tests.simulation import accounts, oracle
from tests.simulation.chaos import Chaos
from tests.simulation.databases import Databases
from tests.simulation.disk import MUTATING, SimDisk
from tests.simulation.harm import Betrayal, WrongPlaces, touched_by
from tests.simulation.held import Harm, ViolationError
from tests.simulation.house import House
from tests.simulation.network import Line
from tests.simulation.nodes import Node
from tests.simulation.renters import Renter, Talk
from tests.simulation.shards import MIB
from tests.simulation.strands import CrashedError, Strands

QUOTA_BYTES = 64 * MIB
INDEX_STEPS = {"COMMIT", "committed", "write back", "written back", "checkpoint", "checkpointed"}
STEPS = MUTATING | INDEX_STEPS
"""Calls that a crash may come at."""

CHORES = {
    "move": "move",
    "scrub": "scrub",
    "sweep": "compaction or sweep",
    "compare": "compaction or sweep",
    "probe": "look at the disks",
}
"""What is going on in the background, and the phase that it is; the first of these counts."""

KILLED_SHARE = 0.2
"""Of the crashes, those of the process alone: the page cache outlives it."""

CRASH_AWAITS = (0, 0, 0, 0, 0, 0, 0, 1, 1, 2)
"""Writes that a sync must be about to make durable for a crash to come: they may be torn, and
two of them may overtake each other."""

PATIENCE_STEPS = 300
"""So long a crash waits for such a sync."""

TURNS_MAX = 200_000
"""Of one operation: more, and something runs in circles."""


class World:
    """Everything there is.  Raises `ViolationError` where a promise is broken."""

    def __init__(self, seed: int, root: Path) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.root = root
        self.counts: Counter[tuple[str, str]] = Counter()
        """Operations by name and how they ended."""
        self.times: Counter[str] = Counter()
        """By fault, or what else befell."""
        self.struck_counts: Counter[tuple[str, str, str]] = Counter()
        """Operation under way, fault, phase."""
        self.crashes: Counter[str] = Counter()
        """By phase."""
        self.faults = 0
        self.reported = 0
        self._hash = sha256()
        self.strands = Strands(Random(self.rng.random()))
        self.disk = SimDisk(root, Random(self.rng.random()), self, self._hang)
        self.calms = 0
        """How often all faults have ended; calls that hang return then."""
        self.databases = Databases(root, Random(self.rng.random()), self)
        self.signer = TestSigner()
        self.wall_offset_ms = 1_800_000_000_000
        self.clock_was_wrong = False
        self.network_was_slow = False
        self.invites_may_expire = False
        self._wrong_places = WrongPlaces()
        self.volumes: list[VolumeSettings] = []
        self.renters: list[Renter] = []
        self.house: House | None = None
        self.lines: list[Line] = []
        self.talks: dict[Line, tuple[str, Talk, Renter]] = {}
        self.is_booting = False
        self._crash_in = -1
        self._crash_awaits = self._crash_patience = 0
        self._lines_made = self._asked = 0
        self._ended_amid: tuple[list[str], str] | None = None
        """While what an end leaves is laid out: what was under way at it, and in which phase."""
        self._trouble_s = -1.0
        self._turns = 0
        self.chaos = Chaos(self)

    # What the farmer's surroundings ask.

    def now_ms(self) -> int:
        """Return the wall clock."""
        return self.wall_offset_ms + int(self.strands.now_s * 1000)

    @property
    def run_s(self) -> float:
        """How long the farmer has run, all lives together."""
        return self.strands.now_s

    @property
    def is_dead(self) -> bool:
        return self.strands.is_dead

    def called(self, name: str, where: str, what: object = "") -> None:
        """See `disk.Watcher`."""
        strands = self.strands
        if strands.is_dead:
            raise CrashedError
        self._hash.update(repr((strands.current.name, name, where, what)).encode())
        if self._crash_in >= 0 and name in STEPS:
            self._crash_in -= 1
            if self._crash_in < 0:
                self._crash_or_wait(name, what)
        strands.point()

    def struck(self, kind: str) -> None:
        """Note that a fault has really happened."""
        self.faults += 1
        self._trouble_s = self.strands.now_s
        self.befell(kind)

    def befell(self, kind: str) -> None:
        """Note what happened without being a fault that excuses anything."""
        names, phase = self._ended_amid or (self._under_way(), self.phase)
        self.times[kind] += 1
        for name in names:
            self.struck_counts[name, kind, phase] += 1
        self.trace("struck", kind)

    def answered(self, what: object) -> None:
        """See `disk.Watcher`."""
        self._hash.update(repr(what).encode())

    def betrayed(self, node: Node, where: str, lost: tuple[int, bytes], instead: int) -> None:
        """See `disk.Watcher`: whom that touches may be damaged, or gone, from now on."""
        betrayal = Betrayal(node, where, *lost, instead)
        for drive in self.disk.drives.values():
            if self.disk.path_of(drive, node):
                self._wrong_places.note(drive.name, betrayal)
        touched = touched_by(betrayal) if betrayal.is_of_records else set()
        for renter in self.renters:
            for held in renter.held.values():
                if (renter.node, held.shard) in touched or held.is_touched_by(betrayal):
                    held.harms.append(Harm(whole=True))
                    held.may_have_twins = True

    def index_takes(self, where: str, size_bytes: int) -> None:
        """See `databases.Watcher`."""
        drive = self.disk.drives[where.partition("/")[0]]
        drive.index_bytes = size_bytes
        drive.compare()

    def index_is_given_up(self, where: str) -> None:
        """
        See `databases.Watcher`: that the log is not as the index has it, must be a disk's doing.

        The farmer believes the log, and its volume is away until the index is made again.
        """
        if not self._wrong_places.excuse(where.partition("/")[0]):
            raise ViolationError(f"{where} is given up without a cause")
        self._trouble_s = self.strands.now_s

    def index_is_made(self, where: str) -> None:
        """See `databases.Watcher`: what lies in a wrong place may count there, from now on."""
        if self._wrong_places.index_is_made(where.partition("/")[0]):
            for held in [held for renter in self.renters for held in renter.held.values()]:
                held.may_be_lost_with_the_index()

    def trace(self, *what: object) -> None:
        """Take something into the trace."""
        self._hash.update(repr(what).encode())

    @property
    def trace_hash(self) -> str:
        return self._hash.hexdigest()

    @property
    def phase(self) -> str:
        """Say what a fault meets."""
        if self.is_booting:
            return "recovery"
        for name, phase in CHORES.items():
            if self.house is not None and self.house.is_at(name):
                return phase
        if any(drive.has_unsynced for drive in self.disk.drives.values()):
            return "unsynced state"
        return "rest"

    @property
    def has_trouble(self) -> bool:
        """Say whether a fault, or what is left of one, excuses a refusal."""
        return self._trouble_s >= 0 or self.chaos.is_armed

    @property
    def takes_nothing(self) -> bool:
        """Say whether every volume is being emptied: no new shard has a place."""
        return self.house is not None and not any(
            volume.takes_new for volume in self.house.engine.opened()
        )

    def _hang(self, seconds: float) -> None:
        calms = self.calms
        self.strands.block(lambda: self.calms != calms, seconds)

    @property
    def is_a_volume_away(self) -> bool:
        """Say whether the farmer does not reach all of its volumes."""
        if len(self.volumes) < 2 or self.house is None:
            return False
        away = any(drive.is_away or drive.armed for drive in self.disk.drives.values())
        states = {volume.state for volume in self.house.engine.volumes()}
        return away or VolumeState.GONE in states or bool(self.house.engine.stalled_threads())

    def chore_failed(self, name: str, error: Exception) -> None:
        """Note a chore that failed: only a disk's fault excuses that."""
        if not isinstance(error, (StorageError, OSError, sqlite3.Error)) or not self.has_trouble:
            raise ViolationError(f"chore {name} failed: {error!r}") from error

    # Beginning and end.

    def begin(self) -> None:
        """Make volumes and boot for the first time; to be called with the strands installed."""
        self.chaos.furnish()
        for settings in self.volumes:
            create_volume(settings.path, self.signer.node_id, self.disk, self.now_ms())
        self.boot()

    def replacements(self) -> dict[int, object]:
        """Return what stands in for modules that the engine uses."""
        import secrets
        import time

        strands = self.strands
        return {
            id(sqlite3): self.databases.module(),
            id(secrets): SimpleNamespace(token_bytes=self.rng.randbytes),
            id(time): SimpleNamespace(
                monotonic=lambda: strands.now_s,
                time=lambda: self.now_ms() / 1000,
                sleep=self.strands.sleep,
                perf_counter=lambda: strands.now_s,
            ),
        }

    def boot(self) -> None:
        """Start the farmer, again and again if it crashes while it starts."""
        for _ in range(8):
            self.plan_crash(booting=True)
            self.is_booting = True
            try:
                self.house = House(self)
            except CrashedError:
                self.is_booting = False
                self._clear_away()
                continue
            except (StorageError, OSError, sqlite3.Error) as error:
                self.is_booting = False
                if not self.has_trouble:
                    raise ViolationError(f"the farmer does not start: {error!r}") from error
                self._give_up()
                continue
            self.is_booting = False
            self.plan_crash(booting=False)
            oracle.check_all(self, thorough=False)
            return
        raise ViolationError("the farmer does not start, though every fault is over")

    def stop(self) -> None:
        """Stop the farmer in order; a crash may come in between."""
        house = self.house
        assert house is not None
        for line in self.lines:
            line.cut(ConnectionLost())
        self.settle()
        if self.house is not house:
            return
        try:
            house.close()
        except CrashedError:
            self._clear_away()
            return
        self._clear_away(how="exit")

    def restart(self, off_s: float = 60.0) -> None:
        """Stop, and start some time later."""
        self.stop()
        self.wall_offset_ms += int(off_s * 1000)
        if self.house is None:
            self.boot()

    def plan_crash(self, *, booting: bool) -> None:
        """Draw when the next crash comes."""
        self._crash_awaits, self._crash_patience = self.rng.choice(CRASH_AWAITS), PATIENCE_STEPS
        if self.chaos.is_over:
            self._crash_in = -1
        elif booting:
            self._crash_in = int(self.rng.random() * 30) if self.rng.random() < 0.12 else -1
        else:
            self._crash_in = int(self.rng.expovariate(1 / self.chaos.steps_per_crash))

    # One turn after the other.

    def turn(self) -> bool:
        """Let one thing happen, if anything can without time passing."""
        self._turns += 1
        house = self.house
        assert house is not None
        choices: list[Any] = []
        if house.door.has_answers:
            choices.append(house.door.answer)
        if self.strands.can_others_run():
            choices.append(self.strands.others)
            choices.append(self.strands.others)
        now_s = self.strands.now_s
        choices += [
            line
            for line in self.lines
            if (line.unsent or line.to_farmer or line.is_ending) and line.can_move(now_s)
        ]
        if not choices:
            calls = house.clock.calls
            if calls and calls[0].getTime() <= house.clock.seconds():
                choices.append(lambda: house.clock.advance(0))
            else:
                return False
        chosen = choices[int(self.rng.random() * len(choices))] if len(choices) > 1 else choices[0]
        try:
            if isinstance(chosen, Line):
                self._move(chosen)
            else:
                chosen()
        except CrashedError:
            pass
        if self.strands.is_dead:
            self.after_crash()
        self._check_turn()
        self._tidy()
        return True

    def _check_turn(self) -> None:
        if self.strands.failures:
            raise ViolationError(f"a thread ended: {self.strands.failures[0]!r}")
        if self.house is not None:
            if self.house.tasks.failed:
                raise ViolationError(self.house.tasks.failed[0])
            accounts.check_step(self)

    def settle(self) -> None:
        """Go on until nothing can happen without time passing."""
        self._turns = 0
        while self.turn():
            if self._turns > TURNS_MAX:
                raise ViolationError("something runs in circles")

    def finish_talks(self) -> None:
        """Go on until everything that was asked is answered."""
        for _ in range(60):
            self.settle()
            if not self.talks:
                return
            self.wait_a_moment()
        names = [name for name, _, _ in self.talks.values()]
        raise ViolationError(f"never answered: {names}")

    def wait_a_moment(self) -> None:
        """Let the time pass until the next thing that was put off happens."""
        house = self.house
        assert house is not None
        soonest = [self.strands.now_s + 30.0]
        wake_s = self.strands.next_wake_s()
        if wake_s is not None:
            soonest.append(wake_s)
        soonest += [
            line.stalled_until_s
            for line in self.lines
            if line.stalled_until_s > self.strands.now_s and not line.is_lost
        ]
        self.pass_s(max(0.001, min(soonest) - self.strands.now_s))

    def pass_s(self, seconds: float) -> None:
        """Let a little time pass."""
        self.strands.now_s += seconds
        house = self.house
        assert house is not None
        house.clock.advance(max(0.0, self.strands.now_s - house.clock.seconds()))
        house.sessions.check()
        # The farmer looks each second for calls that do not return, and for those that have.
        house.engine.watch_disks()
        self.chaos.time_has_passed()
        for renter in self.renters:
            contract = renter.contract
            is_over = contract is not None and self.now_ms() >= contract.until_ms
            if is_over and renter.ended_s is None:
                renter.ended_s = self.run_s

    # Lines and talks.

    def line_of(self, renter: Renter) -> Line | None:
        """Return a line on which nothing is asked, new if need be; None while it says HELLO."""
        for line in renter.lines:
            is_over = line.is_lost or line.is_half_open or line.hangs_up
            if line not in self.talks and not is_over:
                return line
        if len(renter.lines) >= 3:
            return None
        self._lines_made += 1
        line = Line(self._lines_made)
        renter.lines.append(line)
        self.lines.append(line)
        assert self.house is not None
        self.house.connect(line, renter.node)
        self.talk(renter, line, "hello", renter.hello(line))
        return None

    def talk(self, renter: Renter, line: Line, name: str, talk: Talk) -> None:
        """Begin to ask something."""
        self.talks[line] = (name, talk, renter)
        self._asked += 1
        line.asks = self._asked
        self.trace("asks", renter.number, line.number, name)
        self._go_on(line, None)

    def drop(self, line: Line) -> None:
        """Hang up as a renter that vanishes."""
        line.stalled_until_s = 0.0
        self.chaos.to_cut.append(line)

    def _move(self, line: Line) -> None:
        events = line.move(self.rng, self.trace)
        if line.has_overtaken(self.lines):
            self.befell("requests reordered between connections")
        for event in events:
            if line in self.talks:
                self._go_on(line, event)

    def _go_on(self, line: Line, event: Any) -> None:
        name, talk, _ = self.talks[line]
        try:
            if event is None:
                next(talk)
            else:
                talk.send(event)
        except StopIteration as ended:
            self._ended(line, ended.value)
        except ViolationError as broken:
            raise ViolationError(f"{broken} [{name} on line {line.number}]") from broken

    def _ended(self, line: Line, how: str) -> None:
        name, talk, renter = self.talks.pop(line)
        talk.close()
        self.counts[name, how] += 1
        self.trace("ended", line.number, name, how)
        if how != "left":
            renter.lost(line)

    def _tidy(self) -> None:
        """Forget lines that are over and that nobody serves any more."""
        if self.chaos.to_cut:
            for line in self.chaos.to_cut:
                line.cut(ConnectionLost())
            self.chaos.to_cut.clear()
        for line in [one for one in self.lines if one.is_lost]:
            if line in self.talks:
                self._ended(line, "left")
            if line.is_served:
                self.lines.remove(line)
                for renter in self.renters:
                    if line in renter.lines:
                        renter.lines.remove(line)
                        renter.lost(line)

    def vanish(self, line: Line) -> None:
        """Let the renter's end go, without a word to the farmer."""
        line.is_half_open = True
        if line in self.talks:
            self._ended(line, "left")

    # Crashes.

    def after_crash(self) -> None:
        """Start again."""
        self._clear_away()
        self.boot()

    def _under_way(self) -> list[str]:
        names = sorted({name for name, _, _ in self.talks.values()})
        if self.house is not None:
            names += [name for name in CHORES if self.house.is_at(name)]
        return names or ["none"]

    def _crash_or_wait(self, at: str, what: object) -> None:
        """Crash; or, if that is to come at a sync of some writes, at one of the next steps."""
        writes = what if at == "sync_data" and isinstance(what, int) else 0
        self._crash_patience -= 1
        if writes < self._crash_awaits and self._crash_patience > 0:
            self._crash_in = 0
        else:
            self._crash(at)

    def _crash(self, at: str) -> None:
        self._ended_amid = self._under_way(), self.phase
        self.crashes[self.phase] += 1
        self.befell("crash")
        self.trace("crash at", at)
        self.strands.crash()
        raise CrashedError

    def _give_up(self) -> None:
        """Clear away a start that failed without a crash."""
        self.chaos.calm()
        self._ended_amid = self._under_way(), "recovery"
        self.strands.crash()
        self._clear_away()

    def _clear_away(self, how: str = "") -> None:
        """Leave what an end leaves: a power cut, a kill (nothing unsynced is lost), an exit."""
        how = how or ("kill" if self.rng.random() < KILLED_SHARE else "power cut")
        self._ended_amid = self._ended_amid or (self._under_way(), self.phase)
        self.strands.is_dead = True
        self.strands.reap()
        self.strands.is_dead = True
        if self.house is not None:
            self.house.die()
            for line in self.lines:
                line.cut(ConnectionLost())
        if how == "power cut":
            for held in [held for renter in self.renters for held in renter.held.values()]:
                held.lost_power()
            self.databases.crash(lose_index=self.rng.random() < self.chaos.index_loss)
            self.disk.crash()
        else:
            self.databases.crash(lose_index=False, keep_all=True)
            self.disk.exit()
        self._ended_amid = None
        self.strands.is_dead = False
        self._forget_life()
        self.wall_offset_ms += int(self.rng.random() * 100_000)

    def _forget_life(self) -> None:
        for line in self.lines:
            line.is_lost = line.is_served = True
        self._tidy()
        self.house = None

    # Health.

    def recover(self) -> None:
        """Let all faults end; everything must be well again within two minutes, or a restart."""
        self.chaos.calm()
        for _ in range(12):
            self.pass_s(10.0)
            assert self.house is not None
            self.house.start_chore("probe", self.house.upkeep.probe())
            self.settle()
        if not self.is_healthy:
            with suppress(CrashedError):
                self.restart()
            self.settle()
        if not self.is_healthy:
            assert self.house is not None
            states = [(one.state.value, one.reason) for one in self.house.engine.volumes()]
            raise ViolationError(f"not healthy again after all faults have ended: {states}")
        self._trouble_s = -1.0
        self.network_was_slow = False

    @property
    def is_healthy(self) -> bool:
        """Say whether every volume can be written."""
        assert self.house is not None
        fine = {VolumeState.HEALTHY, VolumeState.FULL}
        return all(volume.state in fine for volume in self.house.engine.volumes())
