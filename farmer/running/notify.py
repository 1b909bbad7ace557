"""Telling systemd how we are (sd_notify(3)): one datagram to the socket it named."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class ServiceNotifier:
    """
    Speaks to the service manager named in the environment; silent when there is none.

    Never raises: a service manager that is gone is no reason to stop serving.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environ)
        """How often the manager wants to hear from us; 0 if it does not."""

    def ready(self, status: str) -> None:
        """Serving now."""
        self._tell(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self, monotonic_us: int) -> None:
        """Reading the settings again; `ready` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={monotonic_us}")

    def stopping(self) -> None:
        """On the way out."""
        self._tell("STOPPING=1\nSTATUS=finishing what runs")

    def lingering(self) -> None:
        """All is done, but the process may not end before a disk answers."""
        self._tell("STATUS=done; the kernel waits for a disk that does not answer")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
                wire.setblocking(False)
                wire.sendto(text.encode(), self._address)
        except OSError:
            pass


def _watchdog_s(environ: Mapping[str, str]) -> float:
    meant_for = environ.get("WATCHDOG_PID")
    if meant_for not in (None, "", str(os.getpid())):
        return 0.0
    try:
        return int(environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return 0.0


def _line(text: str) -> str:
    return " ".join(text.split())
