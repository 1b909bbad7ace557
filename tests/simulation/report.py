"""What a campaign came to: counts of operations, faults, phases, and the floors under them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.simulation.run import Outcome

CHANGED_SHARE = 0.40
"""Of the operations, those that changed something."""

BUSY_CRASH_SHARE = 0.30
"""Of the crashes, those that met unsynced state, recovery, compaction or a move."""

PHASE_CRASH_SHARE = 0.01
"""Of the crashes, those that met any one phase."""

PHASES = (
    *("unsynced state", "recovery", "compaction or sweep", "move", "scrub"),
    *("look at the disks", "rest"),
)

OPERATIONS_PER_CRASH = 80
"""At most: five crashes a seed of 400 operations."""

FLOORS_FROM_SEEDS = 50
"""Fewer seeds are too few for shares and floors to mean anything."""

FAULTS = (
    *("crash", "EIO at fsync", "ENOSPC at fsync", "ENOSPC at write", "EIO at pread"),
    *("EIO at pwritev", "short write", "slow", "hung", "disk gone", "EMFILE at open"),
    *("rot", "misdirected write", "write lost though synced", "connection dropped"),
    *("half-open connection", "delay", "partition", "clock jump", "COMMIT failed"),
    *("EIO in write-back", "reordered writes", "torn write at 512", "torn write at 4096"),
    "requests reordered between connections",
)
"""Kinds that every campaign must have met."""

LEAST_PER_SEED = {
    "reordered writes": 0.04,
    "torn write at 512": 0.1,
    "torn write at 4096": 0.05,
    "requests reordered between connections": 10.0,
}
"""Of what every seed can meet."""

OPERATIONS = (
    *("store", "retrieve", "audit", "full audit", "delete", "erase", "undelete", "list", "stat"),
    *("redeem", "contract", "examine", "repair", "move", "scrub", "sweep", "compare", "probe"),
)
"""Under way when a fault or a crash came, in every campaign."""


@dataclass
class Report:
    """The sum of many seeds."""

    seeds: int = 0
    operations: int = 0
    faults: int = 0
    simulated_s: float = 0.0
    crashes: Counter[str] = field(default_factory=Counter)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    times: Counter[str] = field(default_factory=Counter)
    """How often each fault struck, whatever was under way."""
    struck: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By operation under way (of several each), fault and phase."""
    violations: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Take one seed in."""
        self.seeds += 1
        self.operations += outcome.operations
        self.faults += outcome.faults
        self.simulated_s += outcome.simulated_s
        self.crashes += outcome.crashes
        self.counts += outcome.counts
        self.times += outcome.times
        self.struck += outcome.struck
        if outcome.violation:
            self.violations.append(outcome)

    def lines(self) -> Iterator[str]:
        """Return the tables."""
        yield "operation      " + "".join(
            f"{word:>10}" for word in ("begun", "changed", "refused")
        )
        for name in sorted({name for name, _ in self.counts}):
            begun = sum(count for (one, _), count in self.counts.items() if one == name)
            refused = sum(
                count
                for (one, how), count in self.counts.items()
                if one == name and how not in {"ok", "changed", "left"}
            )
            changed = self.counts[name, "changed"]
            yield f"{name:<15}{begun:>10}{changed:>10}{refused:>10}"
        yield ""
        phases = PHASES
        heads = "".join(f"{phase:>21}" for phase in phases)
        yield f"{'fault x phase':<40}{'times':>9}{heads}"
        for fault in sorted(self.times):
            row = "".join(f"{self._met(fault, phase):>21}" for phase in phases)
            yield f"{fault:<40}{self.times[fault]:>9}{row}"
        yield ""
        names = sorted({name for name, _, _ in self.struck})
        yield "fault x operation: " + ", ".join(
            f"{name} {sum(n for (one, _, _), n in self.struck.items() if one == name)}"
            for name in names
        )
        yield ""
        yield from self._triples()
        years = self.simulated_s / 86_400 / 365
        yield f"changed {self.changed_share:.0%} of the operations; {years:.1f} simulated years"
        yield f"crashes in {dict(sorted(self.crashes.items()))}, busy {self.busy_crash_share:.0%}"

    def _triples(self) -> Iterator[str]:
        """Return operation x fault x phase: a line a fault, with the phases of each operation."""
        faults = sorted({*FAULTS, *(fault for _, fault, _ in self.struck)})
        names = [*OPERATIONS, *sorted({name for name, _, _ in self.struck} - {*OPERATIONS})]
        every = len(faults) * len(names) * len(PHASES)
        yield f"operation x fault x phase ({'/'.join(PHASES)}):"
        for fault in faults:
            rows = {name: [self.struck[name, fault, one] for one in PHASES] for name in names}
            met = (f"{name} {'/'.join(map(str, row))}" for name, row in rows.items() if any(row))
            yield f"  {fault}: {', '.join(met)}"
        met_count = sum(map(bool, self.struck.values()))
        yield f"  {met_count} of {every} were met, {every - met_count} never"

    def _met(self, fault: str, phase: str) -> int:
        return sum(n for (_, one, when), n in self.struck.items() if (one, when) == (fault, phase))

    @property
    def changed_share(self) -> float:
        changed = sum(count for (_, how), count in self.counts.items() if how == "changed")
        return changed / max(1, sum(n for (name, _), n in self.counts.items() if name != "hello"))

    @property
    def busy_crash_share(self) -> float:
        busy = sum(count for phase, count in self.crashes.items() if phase != "rest")
        return busy / max(1, sum(self.crashes.values()))

    def unmet(self) -> list[str]:
        """Return the floors that were not reached."""
        if self.seeds < FLOORS_FROM_SEEDS:
            return []
        found = [*self._unmet_by_crashes()]
        if self.changed_share < CHANGED_SHARE:
            found.append(f"only {self.changed_share:.0%} of the operations changed something")
        met = {fault for _, fault, _ in self.struck}
        found += [f"no {fault} was met" for fault in FAULTS if fault not in met]
        found += [
            f"too few {fault}: {self.times[fault]} in {self.seeds} seeds"
            for fault, least in LEAST_PER_SEED.items()
            if self.times[fault] < least * self.seeds
        ]
        met = {operation for operation, _, _ in self.struck}
        found += [f"nothing befell: {name}" for name in OPERATIONS if name not in met]
        return found

    def _unmet_by_crashes(self) -> Iterator[str]:
        every = sum(self.crashes.values())
        if every * OPERATIONS_PER_CRASH < self.operations:
            yield f"only {every} crashes in {self.operations} operations"
        if self.busy_crash_share < BUSY_CRASH_SHARE:
            yield f"only {self.busy_crash_share:.0%} of the crashes met anything"
        for phase in PHASES:
            if self.crashes[phase] < PHASE_CRASH_SHARE * every:
                yield f"only {self.crashes[phase]} of {every} crashes met: {phase}"

    def last_line(self) -> str:
        return (
            f"seeds {self.seeds} ops {self.operations} crashes {sum(self.crashes.values())}"
            f" faults {self.faults} violations {len(self.violations)}"
        )
