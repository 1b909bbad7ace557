"""What befalls the world, and what people do in it: all drawn from the seed."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionLost

from farmer.identity.signing import make_invite, node_id_of_key
from farmer.model.contract import Offer
from farmer.protocol.documents import invite_bytes
from farmer.storage.directory import VolumeSettings
from farmer.storage.quota import SMALL_BYTES_MAX
from tests.simulation import mending, oracle
from tests.simulation.held import Held, Is
from tests.simulation.network import Line
from tests.simulation.nodes import Drive
from tests.simulation.renters import DAY_S, Renter, new_content
from tests.simulation.shards import MIB, Content, content, draw_large
from tests.simulation.strands import CrashedError

if TYPE_CHECKING:
    from tests.simulation.world import World

QUOTA_BYTES = 64 * MIB
DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS

CALLS_THAT_FAIL = (
    *(("pwritev", "EIO"), ("pwritev", "short"), ("sync_data", "EIO"), ("sync_data", "ENOSPC")),
    *(("pread", "EIO"), ("rename", "EIO"), ("unlink", "EIO"), ("sync_directory", "EIO")),
    *(("any open", "EMFILE"), ("any open", "EIO"), ("create", "ENOSPC")),
    *(("preallocate", "ENOSPC"), ("truncate", "slow"), ("inode", "EIO")),
    *(("punch", "EIO"), ("truncate", "EIO"), ("filesystem", "EIO"), ("exists", "EIO")),
    *(("list", "EIO"), ("make_directory", "ENOSPC"), ("size", "EIO")),
    *(("pwritev", "slow"), ("sync_data", "slow"), ("pread", "slow"), ("unlink", "slow")),
    *(("begin_write_back", "lost early"),) * 4,
    ("begin_write_back", "EIO"),
    *(("pwritev", "hung"), ("sync_data", "hung"), ("pread", "hung"), ("filesystem", "hung")),
)  # fmt: skip

STEPS_THAT_FAIL = (
    *(("COMMIT", sqlite3.SQLITE_IOERR_FSYNC), ("COMMIT", sqlite3.SQLITE_FULL)),
    *(("checkpoint", sqlite3.SQLITE_IOERR_WRITE), ("checkpoint", sqlite3.SQLITE_FULL)),
    *(("write back", sqlite3.SQLITE_IOERR_WRITE), ("write back", sqlite3.SQLITE_IOERR_FSYNC)),
)


@dataclass(frozen=True)
class Profile:
    """Which classes of faults a seed has, as a share of its operations."""

    name: str
    io: float = 0.0
    media: float = 0.0
    network: float = 0.0
    clock: float = 0.0


PROFILES = (
    Profile("crashes only"),
    Profile("crashes only"),
    Profile("input and output", io=0.05),
    Profile("input and output", io=0.02, network=0.01),
    Profile("input and output", io=0.03, clock=0.01),
    Profile("media", media=0.02),
    Profile("network", network=0.06),
    Profile("clock", clock=0.04, network=0.01),
)

VERBS = (
    *(("store", 46), ("erase", 11), ("delete", 13), ("undelete", 9), ("retrieve", 11)),
    *(("audit", 5), ("full audit", 1), ("stat", 3), ("list", 2), ("contract", 1), ("ping", 1)),
    *(("cheat", 2), ("pry", 2), ("redeem", 2), ("sweep", 4), ("compare", 1), ("sleep", 1)),
    *(("move", 2), ("scrub", 1), ("examine", 1), ("repair", 1)),
)
_VERB_LIST = [verb for verb, weight in VERBS for _ in range(weight)]


class Chaos:
    """Draws what happens next."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rng = world.rng
        self.profile = PROFILES[int(self.rng.random() * len(PROFILES))]
        self.steps_per_crash = self.rng.choice((65, 180, 400, 1000))
        self.index_loss = self.rng.choice((0.0, 0.05, 0.3))
        self.is_bulky = self.rng.random() < 0.15
        self.sleeps_days = self.rng.choice((0, 0, 0, 0, 0, 0, 0, 0, 1, 8))
        self.is_over = False
        self.to_cut: list[Line] = []
        self._away_until_s: dict[str, float] = {}
        self._again: dict[int, Held] = {}
        """By renter: what was last stored again while the volume of its older copy may be away."""
        self._is_buried = False
        """Whether such a shard was erased, and that was not swept yet."""
        self._next_tick_s = self._next_sweep_s = self._next_probe_s = 0.0
        self._invites: list[tuple[bytes, list[Renter]]] = []

    @property
    def is_armed(self) -> bool:
        """Whether a fault is there, or due."""
        return bool(self._world.databases.armed) or any(
            drive.armed or drive.broken or drive.is_away or drive.others_bytes
            for drive in self._world.disk.drives.values()
        )

    def furnish(self) -> None:
        """Make drives, volumes and renters."""
        world = self._world
        for number in range(1 if self.rng.random() < 0.6 else 2):
            name = f"volume{number}"
            (world.root / name).mkdir()
            size = self.rng.choice((60, 72, 200)) * MIB
            drive = world.disk.add_drive(name, size, can_punch=self.rng.random() < 0.6)
            drive.quota_bytes = QUOTA_BYTES
            world.volumes.append(VolumeSettings(world.root / name, QUOTA_BYTES))
        for number in range(2 + int(self.rng.random() * 3)):
            node = node_id_of_key(bytes([number + 1]) * 32)
            world.renters.append(Renter(number, node, world))

    # What people do.

    def operation(self) -> None:
        """Begin one operation, whatever it is."""
        if (self._again or self._is_buried) and self.rng.random() < 0.3 and self._bury():
            self._misfortune()
            return
        verb = _VERB_LIST[int(self.rng.random() * len(_VERB_LIST))]
        match verb:
            case "sweep":
                self._chore("sweep")
            case "compare":
                self._chore("compare")
            case "sleep":
                self._sleep()
            case "move" | "scrub":
                self._long_chore(verb)
            case _:
                self._ask(verb)
        self._misfortune()

    def _ask(self, verb: str) -> None:
        world = self._world
        renter = world.renters[int(self.rng.random() * len(world.renters))]
        line = self.quiet_line(renter)
        if line is None:
            return
        if renter.contract is None or verb == "redeem" or renter.ended_s is not None:
            if not self._is_settling(renter):
                self._redeem(renter, line)
            return
        talk = self._talk(renter, line, verb)
        if talk is not None:
            world.talk(renter, line, verb, talk)

    def _talk(  # noqa: C901, PLR0911  # one line for each verb
        self, renter: Renter, line: Line, verb: str
    ):  # type: ignore[no-untyped-def]
        free = [held for held in renter.held.values() if held.user is None]
        match verb:
            case "store" | "cheat":
                return self._store(renter, line, verb)
            case "list":
                return renter.list(line)
            case "contract":
                return renter.ping(line) if self._is_settling(renter) else renter.show(line)
            case "ping":
                return renter.ping(line)
            case "pry":
                return self._pry(renter, line)
            case "examine" | "repair":
                return self._mend(renter, line, verb)
        wanted = self._choose(free, verb)
        if wanted is None:
            return self._store(renter, line, "store")
        match verb:
            case "retrieve":
                return renter.retrieve(line, wanted, proved=self.rng.random() < 0.3)
            case "audit":
                some = {id(one): one for one in (wanted, *self._some(free, 3))}
                return renter.audit(line, list(some.values()), full=False)
            case "full audit":
                return renter.audit(line, [wanted], full=True)
            case "stat":
                return renter.stat(line, wanted)
            case "undelete":
                return renter.undelete(line, wanted)
            case _:
                return renter.delete(line, wanted, erase=verb == "erase")

    def _bury(self) -> bool:
        """Erase, or sweep, while a volume is away that may have an older copy; say whether."""
        world = self._world
        if not world.is_a_volume_away:
            self._again.clear()
            return False
        if self._is_buried:
            self._is_buried = False
            self._chore("sweep")
            return True
        number, held = self._again.popitem()
        renter = world.renters[number]
        line = self.quiet_line(renter)
        if line is None or held.user is not None or not renter.contract or renter.ended_s:
            return False
        self._is_buried = True
        world.talk(renter, line, "erase", renter.delete(line, held, erase=True))
        return True

    def _is_settling(self, renter: Renter) -> bool:
        """Say whether a contract is on its way: two might overtake each other."""
        talks = self._world.talks.values()
        return any(name in {"redeem", "contract"} and who is renter for name, _, who in talks)

    def _choose(self, free: list[Held], verb: str) -> Held | None:
        """Prefer a shard of which the verb changes something, or shows something."""
        if not free:
            return None
        liked = Is.TRASH if verb == "undelete" else Is.LIVE
        if self.rng.random() < 0.93:
            fitting = [held for held in free if liked in held.may]
            if not fitting and verb in {"delete", "erase", "undelete"}:
                return None
            free = fitting or free
        return free[int(self.rng.random() * len(free))]

    def _some(self, free: list[Held], count: int) -> list[Held]:
        return [free[int(self.rng.random() * len(free))] for _ in range(count)]

    def _store(self, renter: Renter, line: Line, verb: str):  # type: ignore[no-untyped-def]
        wanted = self._wanted(renter, verb)
        held = renter.held.get(wanted.shard)
        is_used = held is not None and held.user is not None
        if is_used or wanted.shard in renter.prying.values():
            return renter.ping(line)
        how = "well"
        if verb == "cheat":
            how = self.rng.choice(("wrong", "short", "silent"))
            if not wanted.data:
                how = "silent"
            if len(wanted.data) > MIB and self.rng.random() < 0.7:
                how = "broken off"
        return renter.store(line, wanted, how)

    def _wanted(self, renter: Renter, verb: str) -> Content:
        """
        Choose what to store: mostly something new.

        Half of what is cheated with is large, so that something is broken off and gone on with;
        and while a volume is away, what it may have is stored again, and given up.
        """
        rng = self.rng
        free = [held for held in renter.held.values() if held.user is None]
        if verb == "cheat" and rng.random() < 0.5:
            return draw_large(rng)
        if self._world.is_a_volume_away and rng.random() < 0.4:
            live = [held for held in free if held.may == {Is.LIVE}]
            if live:
                self._again[renter.number] = live[int(rng.random() * len(live))]
                return self._again[renter.number].content
        begun = [one for one in free if one.size_bytes > MIB and one.may == {Is.ABSENT}]
        if begun and rng.random() < 0.05:
            return begun[int(rng.random() * len(begun))].content
        if self.is_bulky and rng.random() < 0.3:
            return content(300_000, int(rng.random() * 40))
        return new_content(renter)

    def _pry(self, renter: Renter, line: Line):  # type: ignore[no-untyped-def]
        others = [
            held
            for other in self._world.renters
            if other is not renter
            for held in other.held.values()
            if held.shard not in renter.held
        ]
        if not others:
            return renter.ping(line)
        other = others[int(self.rng.random() * len(others))]
        return renter.pry(line, other, self.rng.choice(("stat", "delete", "retrieve")))

    def _mend(self, renter: Renter, line: Line, verb: str):  # type: ignore[no-untyped-def]
        free = [held for held in renter.held.values() if held.user is None]
        touched = [held for held in free if held.harms] or free
        if not touched:
            return renter.ping(line)
        held = touched[int(self.rng.random() * len(touched))]
        if verb == "examine":
            return mending.examine(renter, line, held)
        return mending.repair(renter, line, held, wrongly=self.rng.random() < 0.2)

    def _redeem(self, renter: Renter, line: Line) -> None:
        if self._invites and self.rng.random() < 0.3:
            invite, spent_by = self._invites[int(self.rng.random() * len(self._invites))]
        else:
            minted = self._mint()
            if minted is None:
                return
            invite, spent_by = minted
        if line.is_lost:
            return
        self._world.talk(renter, line, "redeem", renter.redeem(line, invite, spent_by))

    def _mint(self) -> tuple[bytes, list[Renter]] | None:
        world = self._world
        assert world.house is not None
        now_ms = world.now_ms()
        offer = Offer(
            space_bytes=self.rng.choice((2, 12, 40)) * MIB,
            duration_ms=self.rng.choice((5, 400, 4000)) * DAY_MS,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + 7 * DAY_MS,
        )
        try:
            serial = world.house.book.mint(offer, 1 << 45)
        except CrashedError:
            world.after_crash()
            return None
        made = (invite_bytes(make_invite(world.signer, serial, offer)), [])
        self._invites.append(made)
        world.counts["mint", "changed"] += 1
        return made

    def quiet_line(self, renter: Renter) -> Line | None:
        """Return a line on which nothing is asked, once there is one."""
        world = self._world
        for _ in range(40):
            line = world.line_of(renter)
            if line is not None:
                return line
            if not world.turn():
                world.wait_a_moment()
        return None

    def _chore(self, name: str) -> None:
        house = self._world.house
        assert house is not None
        if name == "sweep" and house.is_sweeping:
            return
        house.start_chore(name, getattr(house.upkeep, name)())
        self._world.counts[name, "ok"] += 1

    def _long_chore(self, name: str) -> None:
        """Begin, or end, the emptying of a volume; or let the scrub go over everything."""
        house = self._world.house
        assert house is not None
        if house.is_at(name):
            return
        work = house.scrub() if name == "scrub" else house.move(self.rng)
        house.start_chore(name, work)
        self._world.counts[name, "ok"] += 1

    def _sleep(self) -> None:
        """Let hours, or days, pass while the farmer runs."""
        world = self._world
        hours = 1 + int(self.rng.random() * 4)
        if self.sleeps_days:
            hours, self.sleeps_days = 24 * self.sleeps_days, 0
            world.invites_may_expire = True
        world.counts["sleep", "ok"] += 1
        world.settle()
        # Whoever is in the middle of something finds that it took too long.
        world.network_was_slow = True
        for _ in range(hours * 6):
            world.pass_s(600.0)
            world.settle()

    def time_has_passed(self) -> None:
        """Do the chores that are due."""
        world, now_s = self._world, self._world.strands.now_s
        house = world.house
        assert house is not None
        for name, until_s in list(self._away_until_s.items()):
            if now_s >= until_s:
                del self._away_until_s[name]
                world.disk.drives[name].is_away = False
        if now_s >= self._next_tick_s:
            self._next_tick_s = now_s + 60.0
            house.start_chore("tick", house.upkeep.tick())
        if now_s >= self._next_probe_s:
            self._next_probe_s = now_s + 20.0
            house.start_chore("probe", house.upkeep.probe())
        if now_s >= self._next_sweep_s:
            self._next_sweep_s = now_s + 3600.0
            if not house.is_sweeping:
                house.start_chore("sweep", house.upkeep.sweep())

    # What befalls them.

    def _misfortune(self) -> None:
        profile, chance = self.profile, self.rng.random
        if profile.io and chance() < profile.io:
            self._break_something()
        if profile.media and chance() < profile.media:
            self._damage_something()
        if profile.network and chance() < profile.network:
            self._disturb_a_line()
        if profile.clock and chance() < profile.clock:
            self._turn_the_clock()

    def _drive(self) -> Drive:
        drives = list(self._world.disk.drives.values())
        return drives[int(self.rng.random() * len(drives))]

    def _break_something(self) -> None:
        world, drive, kind = self._world, self._drive(), self.rng.random()
        if kind < 0.7:
            call, fault = CALLS_THAT_FAIL[int(self.rng.random() * len(CALLS_THAT_FAIL))]
            drive.armed[call] = fault
        elif kind < 0.8:
            step, code = STEPS_THAT_FAIL[int(self.rng.random() * len(STEPS_THAT_FAIL))]
            world.databases.armed[step] = code
        elif kind < 0.88:
            left = int(self.rng.random() * 3 * MIB) // 4096 * 4096
            drive.others_bytes = max(0, drive.size_bytes - drive.used_bytes - left)
        elif kind < 0.94:
            drive.is_away = True
            self._away_until_s[drive.name] = world.strands.now_s + 5 + self.rng.random() * 100
        else:
            drive.broken = 1 + int(self.rng.random() * 6)

    def _damage_something(self) -> None:
        world, kind = self._world, self.rng.random()
        if kind < 0.4:
            drive = self._drive()
            drive.armed["sync_data"] = "lost" if kind < 0.2 else "misdirected"
        else:
            oracle.rot_a_shard(world)

    def _disturb_a_line(self) -> None:
        world = self._world
        lines = [line for line in world.lines if not line.is_lost and not line.is_half_open]
        if not lines:
            return
        line = lines[int(self.rng.random() * len(lines))]
        kind = self.rng.random()
        if kind < 0.4:
            world.struck("connection dropped")
            line.cut(ConnectionLost())
        elif kind < 0.6:
            world.struck("half-open connection")
            world.vanish(line)
        else:
            is_partition = kind > 0.85
            world.struck("partition" if is_partition else "delay")
            world.network_was_slow = True
            until_s = world.strands.now_s + self.rng.choice((1.0, 20.0, 100.0))
            for one in lines if is_partition else [line]:
                one.stalled_until_s = until_s

    def _turn_the_clock(self) -> None:
        world = self._world
        world.clock_was_wrong = world.invites_may_expire = True
        world.struck("clock jump")
        by_ms = self.rng.choice(
            (-60_000, 300_000, -7_200_000, 7_200_000, 9 * DAY_MS, -YEAR_MS, 30 * YEAR_MS)
        )
        if world.now_ms() + by_ms < YEAR_MS:
            by_ms = 40 * YEAR_MS
        world.wall_offset_ms += by_ms

    def calm(self) -> None:
        """Let every fault end; what they have done stays."""
        world = self._world
        world.calms += 1
        world.databases.armed.clear()
        self._away_until_s.clear()
        for drive in world.disk.drives.values():
            drive.armed.clear()
            drive.broken = drive.others_bytes = 0
            drive.is_away = False
        for line in world.lines:
            line.stalled_until_s = 0.0


assert SMALL_BYTES_MAX == MIB
assert DAY_S * 1000 == DAY_MS
