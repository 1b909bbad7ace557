from __future__ import annotations

from farmer.model.moments import SET_MS, Clocks, Moment

START_MS = 1_700_000_000_000


class Machine:
    """Two clocks: one that only runs, one that also is set."""

    def __init__(self) -> None:
        self.wall_ms = START_MS
        self.lived_s = 5000.0

    def live(self, seconds: float, wall_ms: float | None = None) -> None:
        self.lived_s += seconds
        self.wall_ms += int(seconds * 1000 if wall_ms is None else wall_ms)

    def started(self) -> Moment:
        return Moment(Clocks(lambda: self.wall_ms, lambda: self.lived_s))


def test_a_farmer_that_starts_before_the_clock_is_right_is_not_up_for_that_long() -> None:
    """A machine without a clock of its own begins where it was switched off."""
    machine = Machine()
    started = machine.started()
    machine.live(8, wall_ms=19 * 3_600_000)
    assert machine.wall_ms - started.at_ms() == 8000


def test_a_clock_that_is_set_back_makes_it_no_younger() -> None:
    machine = Machine()
    started = machine.started()
    machine.live(60)
    machine.live(0, wall_ms=-3_600_000)
    assert machine.wall_ms - started.at_ms() == 60_000


def test_it_stays_the_same_while_clocks_run_as_clocks_do() -> None:
    """A start that wavered would look like many."""
    machine = Machine()
    started = machine.started()
    for _ in range(100):
        machine.live(600, wall_ms=600_000 + SET_MS / 200)
        assert started.at_ms() == START_MS
