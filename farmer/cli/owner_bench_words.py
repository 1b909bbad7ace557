"""What was measured, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from farmer.benching.disk import DiskFigures
from farmer.benching.load import Cell
from farmer.benching.processor import ProcessorFigures
from farmer.cli.tables import table
from farmer.model.shard import BLOCK_BYTES

HEAD: Final = ("WORK", "SHARD", "AT ONCE", "PER S", "MB/S", "MEDIAN", "P99", "FARMER'S CPU")
KIB: Final = 1024
SLOW_FLUSH_MS: Final = 4.0
"""A solid-state disk answers sooner, a spinning one later."""

FROM_MEMORY: Final = (
    " from memory, where what was just stored still lies: what has to come from the disk comes no"
    " faster than that reads"
)


def disk_words(disk: DiskFigures) -> Iterator[str]:
    """Yield what the disk does by itself."""
    yield (
        f"Your disk writes {disk.write_mb_per_s:,.0f} MB/s and reads {disk.read_mb_per_s:,.0f}"
        f" MB/s in a row; it answers {disk.flushes_per_s:,.0f} flushes a second"
        f" ({_ms(disk.flush_ms)} each) and {disk.random_reads_per_s:,.0f} reads of 64 KiB from"
        " anywhere."
    )
    if disk.flush_ms > SLOW_FLUSH_MS:
        yield "That is a spinning disk, or a busy or distant one: single stores wait for it."


def processor_words(processor: ProcessorFigures) -> Iterator[str]:
    """Yield what one core does."""
    yield (
        f"One core hashes {processor.hash_mb_per_s:,.0f} MB/s, moves {processor.tls_mb_per_s:,.0f}"
        f" MB/s through TLS (both ends), and does {processor.handshakes_per_s:,.0f} handshakes a"
        " second (both ends)."
    )


def load_words(cells: Sequence[Cell]) -> list[str]:
    """Return the table of all cells."""
    return table(HEAD, [_row(cell) for cell in cells])


def verdicts(disk: DiskFigures, cells: Sequence[Cell]) -> Iterator[str]:
    """Yield what that comes to."""
    blocks = [cell for cell in cells if cell.what == "store" and cell.size_bytes == BLOCK_BYTES]
    if blocks:
        alone = min(blocks, key=lambda cell: cell.at_once)
        together = max(blocks, key=lambda cell: cell.per_s)
        more = (
            "no more with several at once."
            if together is alone
            else f"{together.per_s:,.0f} ({together.per_s / disk.durable_per_s:.0%}) with"
            f" {together.at_once} at once: one flush is for all of them."
        )
        yield (
            f"Your disk allows {disk.durable_per_s:,.0f} durable writes of 64 KiB a second, one"
            f" after the other; your farmer reached {alone.per_s:,.0f} stores"
            f" ({alone.per_s / disk.durable_per_s:.0%}) one at a time, and {more}"
        )
    for what, verb, where in (("store", "takes", ""), ("retrieve", "serves", FROM_MEMORY)):
        best = max(
            (cell for cell in cells if cell.what == what),
            key=lambda cell: cell.mb_per_s,
            default=None,
        )
        if best is not None:
            mbit_per_s = 8 * best.mb_per_s
            yield f"It {verb} up to {best.mb_per_s:,.0f} MB/s ({mbit_per_s:,.0f} Mbit/s){where}."
    yield "The renters ran on this machine, too: alone, the farmer has more of it."


def _row(cell: Cell) -> tuple[str, ...]:
    return (
        cell.what,
        _size(cell.size_bytes),
        str(cell.at_once),
        f"{cell.per_s:,.0f}" if cell.per_s >= 10 else f"{cell.per_s:.2g}",
        f"{cell.mb_per_s:,.0f}" if cell.mb_per_s else "",
        _ms(cell.median_ms),
        _ms(cell.p99_ms),
        f"{cell.processor_us:,.0f} us",
    )


def _ms(took_ms: float) -> str:
    return f"{took_ms:,.0f} ms" if took_ms >= 100 else f"{took_ms:.3g} ms"


def _size(size_bytes: int) -> str:
    kib = size_bytes >> 10
    return f"{kib} KiB" if kib < KIB else f"{kib >> 10} MiB"
