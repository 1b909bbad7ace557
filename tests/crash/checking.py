"""After a crash: is what was acknowledged there, and nothing that was given up?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from farmer.audit.proof import ProofError, verify_sample
from farmer.model.audit import AuditEntry
from farmer.model.ids import InviteSerial, NodeId, ShardId
from farmer.model.shard import ShardState, StoredShard
from farmer.model.status import Alert, VolumeStatus
from farmer.storage import worthwhile
from farmer.storage.contracts import ContractDatabase
from farmer.storage.engine import Engine
from farmer.storage.errors import InviteSpentError, NoContractError, StorageError
from tests.crash.belief import Belief, Held, Item
from tests.crash.work import NOW_MS, OBSERVED_MS, QUOTA

DRIFT_BYTES_MAX = QUOTA // 256
"""Maps of extents, which the filesystem keeps in blocks of its own: the allowance for them."""

_HELD = {ShardState.LIVE: Held.LIVE, ShardState.TRASH: Held.TRASH}


def check_engine(
    engine: Engine, belief: Belief, path: Path, *, exact: bool = True, lost_index: bool = False
) -> tuple[dict[Item, Held], list[str]]:
    """
    Return what is there, and every violation of the promises, in words.

    *exact* also compares the ledger with what the disk says is allocated.
    """
    wrong: list[str] = []
    listed = dict(_listed(engine, {item.renter for item in belief.possible}))
    seen: dict[Item, Held] = {}
    for item, possible in belief.possible.items():
        stored = listed.pop((item.renter, item.shard), None)
        held = Held.ABSENT if stored is None else _HELD.get(stored.state)
        if held is None:
            wrong.append(f"{item} is in quarantine")
            continue
        if held not in possible:
            may = "/".join(sorted(one.value for one in possible))
            wrong.append(f"{item} is {held.value}, must be {may}")
        seen[item] = held
        if held is Held.LIVE:
            wrong += _check_bytes(engine, item)
    wrong += [f"nobody stored {shard}" for _, shard in listed]
    wrong += _check_numbers(engine, path, exact=exact, lost_index=lost_index)
    return seen, wrong


def _listed(
    engine: Engine, renters: set[int]
) -> Iterator[tuple[tuple[int, ShardId], StoredShard]]:
    for renter in renters:
        after = ShardId(bytes(32))
        while page := engine.page(NodeId(renter.to_bytes(32, "big")), after, 256):
            after = page[-1].shard
            for stored in page:
                yield (renter, stored.shard), stored


def _check_bytes(engine: Engine, item: Item) -> list[str]:
    try:
        reader = engine.open(item.renter_id, item.shard)
        try:
            data = b"".join(
                reader.read(start, min(65536, item.size_bytes - start))
                for start in range(0, item.size_bytes, 65536)
            )
        finally:
            reader.close()
        if data != item.data:
            return [f"{item} has wrong bytes"]
        if item.number % 8 == 0:
            nonce, entry = os.urandom(32), AuditEntry(item.shard, item.size_bytes, 2)
            proof = engine.prove_sample(item.renter_id, nonce, entry)
            verify_sample(item.shard, item.size_bytes, nonce, 2, proof)
    except (StorageError, ProofError) as error:
        return [f"{item} cannot be read: {error!r}"]
    return []


def _check_numbers(engine: Engine, path: Path, *, exact: bool, lost_index: bool) -> list[str]:
    wrong: list[str] = []
    # A shard that was crossing lies on both volumes until somebody looks.
    engine.mover.resolve()
    tally = _tally(engine)
    if exact:
        _settle(engine)
        engine.compare_with_disk()
    volumes = engine.volumes()
    counted = (
        sum(volume.used_bytes for volume in volumes),
        sum(volume.trash_bytes for volume in volumes),
        sum(volume.shards for volume in volumes),
    )
    if counted != (tally["used"], tally["trash"], tally["shards"]):
        wrong.append(f"the ledger says {counted}, the shards are {dict(tally)}")
    for volume in volumes:
        wrong += _check_volume(volume, exact=exact)
    for alert in engine.trouble():
        if not lost_index or not is_of_lost_index(alert, path):
            wrong.append(f"alert {alert.name}: {alert.message}")
    if not path.exists():
        wrong.append("the volume is gone")
    return wrong


def is_of_lost_index(alert: Alert, path: Path) -> bool:
    """
    Say whether this must or may be told when the indexes below *path* and beside it were lost.

    A rebuild cannot know whether what stands torn at the end of a log was ever acknowledged.
    Places are named in the order of the log: if the first is in its last segment, all are.
    """
    if alert.name == "IndexRebuilt":
        return True
    logs = [sorted(one.glob("log/*.seg")) for one in path.parent.glob(f"{path.name}*")]
    ends = [f"({segments[-1].name} at " for segments in logs if segments]
    return alert.name == "LogDamaged" and any(end in alert.message for end in ends)


def _check_volume(volume: VolumeStatus, *, exact: bool) -> list[str]:
    wrong = []
    if exact and abs(volume.drift_bytes) > DRIFT_BYTES_MAX:
        wrong.append(f"the disk takes {volume.drift_bytes} bytes more than the ledger says")
    if exact and volume.allocated_bytes > volume.quota_bytes:
        wrong.append(f"{volume.allocated_bytes} bytes on the disk, the quota is smaller")
    if volume.state.value not in {"healthy", "full"}:
        wrong.append(f"the volume is {volume.state.value}: {volume.reason}")
    return wrong


def _settle(engine: Engine) -> None:
    """Give back again what was given back just before the crash, marks too: now it is known."""
    slack = worthwhile.MARKS_SLACK_BYTES
    worthwhile.MARKS_SLACK_BYTES = 0  # type: ignore[misc]
    try:
        engine.sweep(NOW_MS, OBSERVED_MS)
    finally:
        worthwhile.MARKS_SLACK_BYTES = slack  # type: ignore[misc]


def _tally(engine: Engine) -> Counter[str]:
    """Return what all shards are charged, by state, and how many there are."""
    tally: Counter[str] = Counter()
    for renter in engine.renters():
        after = ShardId(bytes(32))
        while page := engine.page(renter, after, 256):
            after = page[-1].shard
            for stored in page:
                state = "trash" if stored.state is ShardState.TRASH else "used"
                tally[state] += stored.charge_bytes
                tally["shards"] += 1
    return tally


def check_book(book: ContractDatabase, belief: Belief) -> list[str]:
    """Invites that were spent stay spent, contracts that were made are there."""
    wrong: list[str] = []
    for serial, renter in belief.redeemed.items():
        try:
            book.find(renter)
        except NoContractError:
            wrong.append(f"the contract of {renter} is lost")
        try:
            book.redeem(InviteSerial(serial), NodeId(b"\xff" * 32))
            wrong.append(f"the invite {serial.hex()} was redeemed twice")
        except InviteSpentError:
            pass
        except StorageError as error:
            wrong.append(f"the invite {serial.hex()} is lost: {error!r}")
    return wrong
