"""
The settings file, written anew by owner's commands and by the farmer that runs.

Both do it in one short step under one lock, from the text that is there at that moment: what
the other wrote meanwhile stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from farmer.running.files import may_not_write, write_whole
from farmer.running.home import Home, HomeError
from farmer.running.locks import for_a_moment
from farmer.settings.loader import load_text
from farmer.settings.schema import Settings
from farmer.settings.written import HEAD

SETTINGS_LOCK: Final = "settings.lock"
"""In the home: the settings may lie where nothing else can be made."""


def settings_place(home: Home) -> Path:
    """Return where the settings file lies, if it is a link: some keep theirs with others."""
    return Path(os.path.realpath(home.settings))


def settings_now(home: Home) -> str:
    """Return the text of the settings, that of a new file if there is none."""
    try:
        # Line ends as they are, and the letters that the loader sees, whatever the locale says.
        return home.settings.read_bytes().decode("utf-8-sig") if home.has_settings else HEAD
    except (OSError, UnicodeDecodeError) as error:
        raise HomeError(f"{home.settings} cannot be read: {error}") from error


def change_settings(
    home: Home,
    environ: Mapping[str, str],
    change: Callable[[str], str],
    check: Callable[[Settings], None] = lambda _settings: None,
) -> Settings:
    """
    Write the settings as *change* makes them from the text of this moment; return them.

    What *change* and *check* raise is raised, and nothing is written.  They ask nobody: others
    wait for the lock meanwhile.

    Raises:
        SettingsError: they would be bad.
        HomeError: they cannot be read or written.

    """
    try:
        with for_a_moment(home.state / SETTINGS_LOCK):
            text = change(settings_now(home))
            settings = load_text(text, str(home.settings), environ).settings
            check(settings)
            write_settings(home, text)
    except OSError as error:
        raise HomeError(f"{home.settings} was not changed: {error}") from error
    return settings


def write_settings(home: Home, text: str) -> None:
    """Write the settings file; raises `HomeError` with what to do."""
    path = settings_place(home)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except PermissionError as error:
        by_hand = "or change that file yourself, as whoever may"
        raise HomeError(f"{home.settings}: {may_not_write(path.parent)}; {by_hand}") from error
    except OSError as error:
        raise HomeError(f"{home.settings} cannot be written: {error.strerror}") from error
