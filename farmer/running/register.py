"""The home remembers every volume that was ever made: where, how large, its id and its name."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from farmer.running.answering import answer_of
from farmer.running.files import write_json
from farmer.running.home import REGISTER_FILE, Home, HomeError
from farmer.running.locks import for_a_moment
from farmer.storage.outside import Holdings, holdings, volume_id
from farmer.units import counted, format_size

REGISTER_LOCK: Final = "volumes.lock"

REGISTER_BYTES_MAX: Final = 16 * 1024 * 1024
"""Volumes that were given up stay in it: with paths of usual length, a hundred thousand."""

_Retired = dict[str, Any]
"""By path."""

_Known = tuple[dict[str, int], dict[str, str], _Retired, dict[str, str]]
"""Quotas, ids, those that were given up, and names; all by path."""

_NO_NAMES: Final[Mapping[Path, str]] = {}


@dataclass(frozen=True, slots=True)
class KnownVolume:
    """A volume that was made for this home, as far as it can be seen without opening it."""

    path: Path
    quota_bytes: int
    """As it was last opened."""
    volume: str
    """Its id, in hex; empty if it was never seen."""
    held: Holdings | None
    """What it holds; None if that cannot be told now: a disk that is not mounted."""

    @property
    def was_used(self) -> bool:
        """Whether a shard lies on it, or may."""
        return self.held is None or self.held.shards > 0

    @property
    def shown(self) -> str:
        """Return `with 3 shards`, for a person."""
        if self.held is None:
            return "that cannot be read now"
        return f"with {counted(self.held.shards, 'shard')}"


@dataclass(frozen=True, slots=True)
class RetiredVolume:
    """A volume that its owner gave up, and whose shards are elsewhere."""

    path: Path
    why: str
    """For a person: what became of its shards."""
    at_ms: int


def quotas(home: Home) -> dict[str, int]:
    """
    Return path and quota in bytes of all volumes that the home knows.

    Raises:
        HomeError: that cannot be told now, as in all functions here.

    """
    made: dict[str, int] = _register(home).get("made", {})
    return made


def names(home: Home) -> dict[str, str]:
    """Return path and short name of the volumes that were given one; no two have the same."""
    return dict(_register(home).get("names", {}))


def not_among(
    home: Home, paths: Iterable[Path], silent: Collection[Path] = ()
) -> list[KnownVolume]:
    """
    Return the volumes that the home knows, that hold shards, and that *paths* leave out.

    A volume that lies at one of *paths* now, since its disk was mounted elsewhere, is none.
    The disks of the *silent* ones do not answer, and are not asked.
    """
    listed, remembered = list(paths), _ids(home)
    ids = {
        (None if path in silent else answer_of(partial(volume_id, path)))
        or remembered.get(str(path), "")
        for path in listed
    } - {""}
    left = {path: quota for path, quota in quotas(home).items() if Path(path) not in listed}
    return [
        known for known in _looked_at(home, left) if known.volume not in ids and known.was_used
    ]


def _looked_at(home: Home, quotas_bytes: dict[str, int]) -> list[KnownVolume]:
    ids = _ids(home)
    found = []
    for path, quota_bytes in quotas_bytes.items():
        volume, held = answer_of(partial(_look, Path(path), home.annexes)) or ("", None)
        found.append(KnownVolume(Path(path), quota_bytes, volume or ids.get(path, ""), held))
    return found


def _look(path: Path, annexes: Path) -> tuple[str, Holdings | None]:
    volume = volume_id(path)
    return volume, holdings(path, annexes) if volume else None


def remember(
    home: Home, volumes: Iterable[tuple[Path, int]], called: Mapping[Path, str] = _NO_NAMES
) -> None:
    """
    Note, durably, that these volumes have been made, and with which quota in bytes.

    Those that are *called* something keep their first name; one that is not in use, and had
    it before, loses it.
    """
    # Asked before the lock is taken: a disk may keep us waiting.
    seen = [(str(path), quota, answer_of(partial(volume_id, path))) for path, quota in volumes]
    with _changed(home) as (made, ids, given_up, given):
        for path, quota_bytes, volume in seen:
            given_up.pop(path, None)
            made[path] = quota_bytes
            ids[path] = volume or ids.get(path, "")
        for path, name in ((str(path), name) for path, name in called.items()):
            if path not in given:
                for other in [other for other, its in given.items() if its == name]:
                    del given[other]
                given[path] = name


def forget(home: Home, path: Path) -> None:
    """Note, durably, that nothing is to be known of this volume any more."""
    with _changed(home) as all_known:
        for known in all_known:
            known.pop(str(path), None)


def retire(home: Home, volume: RetiredVolume) -> None:
    """Note, durably, that this volume was emptied and given up."""
    with _changed(home) as (made, ids, given_up, given):
        for known in (made, ids, given):
            known.pop(str(volume.path), None)
        given_up[str(volume.path)] = {"why": volume.why, "at_ms": volume.at_ms}


def retired(home: Home) -> list[RetiredVolume]:
    """Return the volumes that were given up; asks no disk but the home's."""
    found = []
    for path, fields in _retired(home).items():
        if isinstance(fields, dict) and isinstance(at_ms := fields.get("at_ms"), int):
            found.append(RetiredVolume(Path(path), str(fields.get("why", "")), at_ms))
    return found


@contextmanager
def _changed(home: Home) -> Iterator[_Known]:
    """Give what is known at this moment to be changed, and write it; others wait meanwhile."""
    with for_a_moment(home.state / REGISTER_LOCK):
        known = dict(quotas(home)), _ids(home), _retired(home), names(home)
        yield known
        _write(home, *known)


def _write(
    home: Home,
    made: dict[str, int],
    ids: dict[str, str],
    given_up: _Retired,
    given: dict[str, str],
) -> None:
    document = {"made": made, "ids": ids, "retired": given_up, "names": given}
    if document != _register(home):
        write_json(home.state / REGISTER_FILE, document)


def _retired(home: Home) -> _Retired:
    return dict(_register(home).get("retired", {}))


def _ids(home: Home) -> dict[str, str]:
    return dict(_register(home).get("ids", {}))


def _register(home: Home) -> dict[str, Any]:
    # What cannot be read is not empty: all volumes would count as never made, and be made anew
    # where their disks are not mounted.
    path = home.state / REGISTER_FILE
    try:
        with path.open("rb") as file:
            content = file.read(REGISTER_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if len(content) > REGISTER_BYTES_MAX:
        raise _unusable(path, f"it is larger than {format_size(REGISTER_BYTES_MAX)}")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _unusable(path, "it is damaged") from error
    if not isinstance(document, dict) or not _is_well_formed(document):
        raise _unusable(path, "it is not what a farmer writes there")
    return document


def _is_well_formed(document: dict[str, Any]) -> bool:
    made, ids, given = document.get("made"), document.get("ids", {}), document.get("names", {})
    return (
        isinstance(made, dict)
        and isinstance(ids, dict)
        and isinstance(given, dict)
        and isinstance(document.get("retired", {}), dict)
        and all(isinstance(quota_bytes, int) for quota_bytes in made.values())
        and all(isinstance(text, str) for text in (*ids.values(), *given.values()))
    )


def _unusable(path: Path, why: str) -> HomeError:
    return HomeError(
        f"{path} says which volumes were made, and cannot be used: {why}. Without it a disk that "
        "is not mounted would be taken for a new volume, so nothing was touched. Let this user "
        "read it, or bring it back from a backup; or, while all disks are mounted, remove it: "
        "volumes that are not there would then be made anew."
    )
