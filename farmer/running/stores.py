"""Everything durable of one farmer, opened: identity, volumes, contract database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Final

from farmer.identity.keys import Identity
from farmer.identity.signing import contract_digest
from farmer.model.status import Alert
from farmer.protocol.limits import SHARDS_PER_CONTRACT_MAX, UPLOADS_PER_RENTER_MAX
from farmer.running.home import Home
from farmer.running.making import Unmade
from farmer.running.own_identity import own_identity
from farmer.running.register import KnownVolume, not_among
from farmer.running.remembering import compare, consult, note
from farmer.running.volumes import VolumePlan, check_quotas, plan_volumes
from farmer.settings.kinds import VOLUME_BYTES_MIN
from farmer.settings.schema import Settings
from farmer.storage.contracts import ContractDatabase
from farmer.storage.directory import VolumeSettings
from farmer.storage.engine import Engine, EngineLimits
from farmer.storage.files import OsFiles
from farmer.storage.fill import Fill
from farmer.storage.opening import in_a_thread, rebuild_index
from farmer.storage.outside import live_shards
from farmer.units import exact_size

Told = Callable[[str], None]
"""Takes a line about something that takes long."""

SEGMENTS_PER_LINE: Final = 16

AGAIN: Final = "making an index from the shards, for it is lost or of an older release's format"
WANTED: Final = "making a new index from the shards"


@dataclass(frozen=True, slots=True)
class Stores:
    """What a farmer must not lose, open.  Blocking; close it."""

    identity: Identity
    engine: Engine
    book: ContractDatabase
    unmade: Unmade
    silent: frozenset[Path]
    """The volumes whose disks did not say how large they are: they must be asked again."""

    def close(self) -> None:
        """Close all in order."""
        try:
            self.engine.close()
        finally:
            self.book.close()


def open_stores(home: Home, settings: Settings, now_ms: Callable[[], int], tell: Told) -> Stores:
    """
    Open all, making what never existed: identity, contract database, new volumes.

    Raises:
        HomeError, IdentityError, StorageError, VolumeSetupError, OSError: with what to do.

    """
    identity = own_identity(home)
    plans = plan_volumes(home, settings)
    check_quotas(plans)
    unmade = Unmade(home, identity, now_ms)
    for plan in plans:
        unmade.make(plan)
    book = open_book(home, identity, now_ms)
    try:
        engine = Engine(
            [*map(volume_settings, plans), *left_out(home, plans, now_ms())],
            identity.node_id,
            OsFiles(),
            clock_ms=now_ms,
            observed_ms=lambda: book.clock.observed_ms,
            limits=EngineLimits(
                uploads_per_renter_max=UPLOADS_PER_RENTER_MAX,
                shards_per_contract_max=SHARDS_PER_CONTRACT_MAX,
                shard_bytes_max=settings.shards.size_max,
            ),
            progress=_progress(tell, AGAIN),
            spawn=in_a_thread,
            annexes=home.annexes,
        )
    except BaseException:
        book.close()
        raise
    engine.fill = Fill(settings.shards.fill)
    book.witness = partial(note, engine)
    book.consult = partial(consult, book, engine)
    compare(book, engine)
    silent = frozenset(plan.path for plan in plans if plan.is_guess)
    return Stores(identity, engine, book, unmade, silent)


def open_book(home: Home, identity: Identity, now_ms: Callable[[], int]) -> ContractDatabase:
    """Open the contract database, making it if this is the first time."""
    return ContractDatabase(
        home.contracts, farmer_key=identity.public_key, now_ms=now_ms, digest=contract_digest
    )


def left_out(home: Home, plans: Sequence[VolumePlan], now_ms: int) -> list[VolumeSettings]:
    """Return the volumes that hold shards but are not planned, each to be left shut."""
    return [
        VolumeSettings(
            known.path,
            max(known.quota_bytes, VOLUME_BYTES_MIN),
            name=str(known.path),
            left_shut=_not_in_settings(home, known, now_ms),
        )
        for known in not_among(
            home, [plan.path for plan in plans], {plan.path for plan in plans if plan.is_guess}
        )
    ]


def _not_in_settings(home: Home, known: KnownVolume, now_ms: int) -> Alert:
    size = exact_size(known.quota_bytes)
    return Alert(
        name="VolumeNotInSettings",
        since_ms=now_ms,
        message=f"{known.path}, a volume of this farmer {known.shown}, is not in the settings: it "
        "is not opened, and what renters stored there cannot be read. Add it again and restart; "
        f"or give its shards up with: {home.command('volume forget')} {quote(str(known.path))}",
        command=f"farmer volume add {quote(f'{known.path}={size}')}",
        about=str(known.path),
    )


def rebuild(
    home: Home, plan: VolumePlan, tell: Told, *, may_overwrite: bool = False
) -> tuple[int, int]:
    """
    Make a volume's index anew from its records; return its live shards and their bytes.

    What the disk cannot read ends it, unless it may be written over.
    """
    identity = Identity.load(home.identity)
    settings = volume_settings(plan)
    told = _progress(tell, WANTED)

    def overwritten(path: Path, offset: int, length: int) -> None:
        tell(f"{path}: {length} bytes at {offset} cannot be read, and are written over")

    if may_overwrite:
        tell("looking for what cannot be read; that takes as long as reading the whole volume")
    recovered = rebuild_index(
        settings,
        identity.node_id,
        OsFiles(),
        told,
        home.annexes,
        overwritten if may_overwrite else None,
    )
    for place in recovered.damaged:
        tell(f"{place}: damaged, and what was there is not known any more")
    return live_shards(plan.path, home.annexes) or (0, 0)


def volume_settings(plan: VolumePlan) -> VolumeSettings:
    """Return a plan as the engine takes it."""
    return VolumeSettings(plan.path, plan.quota_bytes, plan.keep_free_bytes, plan.name)


def _progress(tell: Told, what: str) -> Callable[[int, int], None]:
    def read(segment: int, last: int) -> None:
        if segment % SEGMENTS_PER_LINE == 1 or segment == last:
            tell(f"{what}: segment {segment} of {last}")

    return read
