"""Where a farmer keeps what it must not lose: one directory, which is ours or left alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Final, Self

from farmer.running.errors import OwnerError
from farmer.running.files import (
    draft_of,
    may_not_write,
    read_json,
    remove_drafts,
    write_json,
)
from farmer.settings.paths import absolute
from farmer.storage.rights import our_name, user_name

MARK_FILE: Final = "farmer-home.json"
SETTINGS_FILE: Final = "farmer.yaml"
FORMAT: Final = 1

IDENTITY: Final = "identity"
CONTRACTS_FILE: Final = "contracts.sqlite"
ANNEXES: Final = "annexes"
REGISTER_FILE: Final = "volumes.json"

_PUT_BACK: Final = frozenset({IDENTITY, CONTRACTS_FILE, REGISTER_FILE, ANNEXES})
"""What an owner brings from a backup to a home that is to be made anew."""

_MAY_BE_THERE_BEFORE_US: Final = _PUT_BACK | {SETTINGS_FILE, "lost+found"}
"""A directory with nothing else in it counts as empty."""

_SHOWN_STRANGERS: Final = 3

_ROOT: Final = 0


class HomeError(OwnerError):
    """The home cannot be used; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Home:
    """
    The places of one farmer.

    All of them lie in *state*, but for the settings of a farmer that the system runs.
    """

    state: Path
    settings: Path
    settings_named: bool = False
    """Whether somebody named the settings file; then it must be there."""
    options: str = ""
    """What a command line must say, after `farmer`, to mean this home."""

    @classmethod
    def at(cls, directory: Path, settings: Path | None = None) -> Self:
        """Return the home that has everything under one directory; raises as `absolute`."""
        state = Path(os.path.abspath(absolute(directory)))  # noqa: PTH100  # keeps symlinks
        return cls(state, settings or state / SETTINGS_FILE, settings is not None)

    @classmethod
    def find(
        cls,
        directory: str | None,
        settings: str | None,
        environ: Mapping[str, str],
        user_id: int,
    ) -> Self:
        """
        Return the home of the command line, else of `FARMER_HOME`, else the usual one.

        That is /var/lib/farmer with /etc/farmer/farmer.yaml for root, and the XDG
        directories for everybody else.

        Raises:
            ValueError: one begins with the home of a user that this machine does not know.
            HomeError: nothing is named, and we have no home of our own.

        """
        found = cls._find(directory, settings, environ, user_id)
        # Whoever types it later may have another environment, and be in another directory.
        is_named = directory or environ.get("FARMER_HOME")
        named = (("--home", found.state, is_named), ("--config", found.settings, settings))
        options = "".join(f" {option} {quote(str(path))}" for option, path, word in named if word)
        return replace(found, options=options)

    @classmethod
    def _find(
        cls,
        directory: str | None,
        settings: str | None,
        environ: Mapping[str, str],
        user_id: int,
    ) -> Self:
        chosen = absolute(settings) if settings else None
        directory = directory or environ.get("FARMER_HOME")
        if directory:
            return cls.at(Path(directory), chosen)
        if user_id == 0:
            usual = Path("/etc/farmer") / SETTINGS_FILE
            return cls(Path("/var/lib/farmer"), chosen or usual, chosen is not None)
        home = _user_home(environ)
        data = _xdg(environ, "XDG_DATA_HOME", home / ".local" / "share")
        config = _xdg(environ, "XDG_CONFIG_HOME", home / ".config")
        usual = config / "farmer" / SETTINGS_FILE
        return cls(data / "farmer", chosen or usual, chosen is not None)

    def command(self, words: str) -> str:
        """Return the command line that does this on this home."""
        return f"farmer{self.options} {words}"

    def naming(self, line: str) -> str:
        """Return a command line as it means this home; one of another program as it is."""
        words = line.removeprefix("farmer ")
        return line if words == line else self.command(words)

    @property
    def settings_to_read(self) -> Path | None:
        """The settings file; None if there is none and nobody named one."""
        return self.settings if self.settings_named or self.has_settings else None

    @property
    def has_settings(self) -> bool:
        """
        Whether there is a settings file: a link that leads nowhere is one that cannot be read.

        Raises:
            OSError: its directory does not say.

        """
        try:
            self.settings.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def keeping_settings(self) -> Self:
        """Return this home, whose settings file must be there from now on if it is there now."""
        return replace(self, settings_named=self.settings_to_read is not None)

    @property
    def mark(self) -> Path:
        """Says that the directory is a farmer's home, and of which format."""
        return self.state / MARK_FILE

    @property
    def identity(self) -> Path:
        """The directory of key and certificate."""
        return self.state / IDENTITY

    @property
    def contracts(self) -> Path:
        """The contract database."""
        return self.state / CONTRACTS_FILE

    @property
    def annexes(self) -> Path:
        """What is noted of volumes that can only be read (`farmer.storage.annex`)."""
        return self.state / ANNEXES

    @property
    def lock(self) -> Path:
        """Held by the one process that may change things here."""
        return self.state / "lock"

    @property
    def run(self) -> Path:
        """What the running farmer tells about itself; gone after an orderly stop."""
        return self.state / "run.json"

    @property
    def volume(self) -> Path:
        """Where the volume of a farmer without settings lies."""
        return self.state / "volume"

    @property
    def exists(self) -> bool:
        """Whether a farmer has lived here."""
        return self.mark.exists()

    def check(self) -> None:
        """
        Make sure that the directory may be used.

        Raises:
            HomeError: it is somebody else's, or of a newer release.

        """
        try:
            str(self.state).encode()
        except UnicodeEncodeError as error:
            raise HomeError(
                f"{str(self.state)!r} is not UTF-8, in which paths are shown and written. "
                "Name another directory with --home."
            ) from error
        try:
            strangers = sorted(
                entry.name
                for entry in self.state.iterdir()
                if entry.name not in _MAY_BE_THERE_BEFORE_US
                # A first start was killed, or another one is making this home just now.
                and draft_of(entry.name) != MARK_FILE
            )
        except FileNotFoundError:
            return
        except PermissionError as error:
            with suppress(OSError):
                self.check_owner()
            raise HomeError(f"{self.state}: {may_not_write(self.state)}") from error
        except OSError as error:
            raise HomeError(f"{self.state} cannot be used: {error.strerror}") from error
        if MARK_FILE in strangers:
            self._check_format()
        elif strangers:
            shown = ", ".join(repr(name) for name in strangers[:_SHOWN_STRANGERS])
            more = ", ..." if len(strangers) > _SHOWN_STRANGERS else ""
            raise HomeError(
                f"{self.state} is not a farmer's home: it holds {shown}{more} and no {MARK_FILE}. "
                "Nothing was touched; name an empty or new directory with --home."
            )

    def check_owner(self) -> None:
        """
        Make sure that the farmer whose home this is can read what we make.

        Raises:
            HomeError: it is another user's.

        """
        try:
            owner = self.state.stat().st_uid
        except FileNotFoundError:
            return
        if owner == os.geteuid():
            return
        ours = user_name(os.geteuid())
        raise HomeError(
            f"{self.state} belongs to the user {user_name(owner)}, whose farmer could not read "
            f"what {ours} makes. Nothing was touched; type {self._way_out(owner)}"
        )

    def _way_out(self, owner: int) -> str:
        """
        Return what to type, when the directory is another user's.

        Where root put back what is ours it is taken back; any other's farmer would stop at that.
        """
        if owner == _ROOT != os.geteuid() and any(map(_is_ours, self._inside())):
            return f"this, if root has put back a backup of yours: {self._given_to_us}"
        return f"it as that user: {self.typed_by(owner)}"

    def check_rights(self) -> None:
        """
        Make sure that what lies here may be used: what another user has put back may not.

        Raises:
            HomeError: which file, whose it is, and what to type.

        """
        for path in self._inside():
            with suppress(OSError):
                owner, wanted = path.stat().st_uid, self._wanted(path)
                if owner != os.geteuid() and not os.access(path, wanted, effective_ids=True):
                    raise HomeError(
                        f"{path} belongs to the user {user_name(owner)}, and {our_name()} may not "
                        "use it, as after another user has put back a backup. Nothing was "
                        f"touched; type: {self._given_to_us}"
                    )

    def _wanted(self, path: Path) -> int:
        """Return the rights that a start needs of one of these."""
        if path == self.identity:
            return os.R_OK | os.X_OK
        if path == self.mark or path.parent == self.identity:
            return os.R_OK
        return os.R_OK | os.W_OK | (os.X_OK if path == self.annexes else 0)

    def _inside(self) -> Iterator[Path]:
        """Return what is ours here, as far as it shows itself."""
        yield from (self.mark, self.identity, self.lock, self.state / REGISTER_FILE, self.annexes)
        yield from self.state.glob(f"{CONTRACTS_FILE}*")
        with suppress(OSError):
            yield from self.identity.glob("*")

    @property
    def _given_to_us(self) -> str:
        return f"sudo chown -R {quote(our_name())} {quote(str(self.state))}"

    def typed_by(self, user_id: int) -> str:
        """Return how another user's command line on this home begins."""
        words = f"--home {quote(str(self.state))}"
        if self.settings.parent != self.state:
            words += f" --config {quote(str(self.settings))}"
        return f"sudo -u {quote(user_name(user_id))} farmer {words} ..."

    def make(self) -> None:
        """
        Make the directory, 0700, and mark it as ours; harmless when that was done before.

        Raises:
            HomeError: as `check`, `check_owner` and `check_rights`, or it cannot be written.

        """
        self.check()
        self.check_owner()
        self.check_rights()
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.state.stat().st_mode & 0o077:
                self.state.chmod(0o700)
            if not self.mark.exists():
                write_json(self.mark, {"format": FORMAT, "what": "the home of a farmer"})
        except PermissionError as error:
            raise HomeError(
                f"{self.state}: {may_not_write(self.state)}, or name another directory with --home"
            ) from error
        except OSError as error:
            raise HomeError(
                f"{self.state} cannot be written: {error.strerror}. "
                "Name another directory with --home."
            ) from error

    def tidy(self) -> None:
        """Remove what writers that were killed have left; the lock must be held."""
        with suppress(OSError):
            # It takes a little room, and keeps nobody from anything.
            remove_drafts(self.state)

    def _check_format(self) -> None:
        mark = read_json(self.mark)
        found = mark.get("format") if mark is not None else None
        if not isinstance(found, int):
            raise HomeError(f"{self.mark} is damaged: bring it back from a backup")
        if found > FORMAT:
            raise HomeError(
                f"{self.state} was made by a newer release (format {found}, this one knows "
                f"{FORMAT}): use that release. Nothing was touched."
            )


def _is_ours(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def _user_home(environ: Mapping[str, str]) -> Path:
    try:
        return absolute(environ.get("HOME") or "~")
    except ValueError as error:
        raise HomeError(
            "this user has no home directory: name a directory for the farmer with --home or "
            "FARMER_HOME"
        ) from error


def _xdg(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    # The XDG specification says that a relative path is to be ignored.
    named = environ.get(variable, "")
    return Path(named) if named.startswith("/") else default
