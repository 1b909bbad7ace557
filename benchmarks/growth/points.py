"""What was measured, as values that pass as JSON: series of points, each of several rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from benchmarks.harness import percentile

OPERATIONS: Final = ("store", "retrieve", "audit", "erase")


@dataclass(frozen=True, slots=True)
class Round:
    """One kind of operation, one after the other, for a short time."""

    count: int
    median_ms: float
    p99_ms: float
    cpu_us: float
    """The farmer's processor time for one operation, all its threads."""

    @classmethod
    def of(cls, took_s: Sequence[float], cpu_s: float) -> Self:
        """Make one of the time that each operation took."""
        return cls(
            count=len(took_s),
            median_ms=statistics.median(took_s) * 1000,
            p99_ms=percentile(took_s, 0.99) * 1000,
            cpu_us=cpu_s / len(took_s) * 1e6,
        )


@dataclass(frozen=True, slots=True)
class Point:
    """Everything at one x: the rounds of each operation, and what stands whatever is asked."""

    x: float
    rounds: Mapping[str, Sequence[Round]]
    standing: Mapping[str, float] = field(default_factory=dict)
    """Single figures with their unit in the name, such as `start_s`."""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return what `asdict` made."""
        rounds = {
            name: tuple(Round(**one) for one in some) for name, some in fields["rounds"].items()
        }
        return cls(fields["x"], rounds, dict(fields["standing"]))


@dataclass(frozen=True, slots=True)
class Series:
    """One axis: how everything goes as one thing grows."""

    axis: str
    label: str
    """What x counts, with its unit, for people."""
    about: str
    """What was grown, and what stayed as it was; a sentence or two."""
    scale: str
    """`quick`, `usual` or `large`."""
    points: Sequence[Point] = ()
    per_x: bool = False
    """Whether a cost counts divided by x, as for sizes: what a byte costs."""

    def to_fields(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return what `to_fields` gave."""
        points = tuple(Point.from_fields(one) for one in fields["points"])
        return cls(**{**fields, "points": points})

    def values(
        self, operation: str, figure: Callable[[Round], float]
    ) -> list[tuple[float, list[float]]]:
        """Return for each x one figure of all rounds of an operation; divided by x if `per_x`."""
        return [
            (point.x, [figure(one) / (point.x if self.per_x else 1) for one in rounds])
            for point in self.points
            if (rounds := point.rounds.get(operation))
        ]

    def standing(self, name: str) -> list[tuple[float, list[float]]]:
        """Return for each x a standing figure, where there is one."""
        return [
            (point.x, [point.standing[name]]) for point in self.points if name in point.standing
        ]
