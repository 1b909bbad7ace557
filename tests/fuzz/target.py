"""What a decoder must bring to be fuzzed."""

from __future__ import annotations

from tests.fuzz.mutate import Picker, havoc


class Target:
    """
    One decoder, its first inputs, and what must be true of whatever it is given.

    An input is bytes, also where it stands for a sequence of steps, so that every one can be
    kept in a file and run again.
    """

    name = ""
    executions = 60_000
    """Its share of a campaign, beside those of the others."""
    mended = 0.6
    """How many of the inputs have their lengths, checksums and signatures made right again."""
    memory_bytes = 2 << 20
    """What a run may allocate at most, beside 64 times its input."""
    cost = 1
    """Roughly how long a run takes; the slow ones go first, so that no process waits long."""

    def seeds(self) -> list[bytes]:
        """Return inputs that are right."""
        raise NotImplementedError

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        """Return a changed input."""
        return havoc(pick, seed, other, grow=pick.chance() < 0.5)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        """Make lengths, checksums and signatures of a changed input right again."""
        raise NotImplementedError

    def run(self, data: bytes) -> bool:
        """
        Decode; tell whether the input got past the door.

        The door is what turns noise away: lengths, checksums, signatures.  Raises what is no
        documented error of the decoder, and AssertionError for a broken promise.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Remove what the target keeps outside of memory."""
