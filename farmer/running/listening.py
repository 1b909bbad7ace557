"""The doors of a running farmer: renters', page, and the owner's control socket."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTCP,
)

from farmer.node.accepting import accept_few
from farmer.node.admission import Sessions
from farmer.node.farm import Farm
from farmer.node.listen_errors import why_not
from farmer.node.service import FarmerService, ListenError
from farmer.running.addresses import has_ipv6
from farmer.running.control import socket_path
from farmer.running.every_address import EVERY_4, EVERY_6, EveryAddress
from farmer.running.home import Home
from farmer.running.last_ports import PAGE, SHARDS, remember_ports, with_last_ports
from farmer.running.passed import PassedSockets
from farmer.settings.kinds import join_address, split_address

L = TypeVar("L")

PAGE_BACKLOG: Final = 16

PAGE_ACCEPTS_PER_TURN: Final = 1
"""Connections to the page: each is one answer, and between two of them renters have a turn."""


class Doors:
    """
    Opens ports on *reactor*; port 0 is the last run's port if it is still free.

    All raise `ListenError`, naming the address and the setting.
    """

    def __init__(self, reactor: Any, home: Home, passed: PassedSockets) -> None:  # noqa: ANN401  # many interfaces at once
        """*passed* are sockets of the service manager; they count instead of the settings."""
        self._reactor = reactor
        self._home = home
        self._passed = passed
        self.by_settings: dict[str, Sequence[str]] = {}
        """By the setting that names them, the real addresses; none of a passed socket."""

    def for_renters(
        self,
        farm: Farm,
        side: IOpenSSLServerConnectionCreator,
        asked: Sequence[str],
        sessions: Sessions,
    ) -> FarmerService:
        """Return the serving side, listening."""

        def listen(addresses: Sequence[str]) -> FarmerService:
            where = [split_address(address) for address in _possible(addresses)]
            tcp = cast(IReactorTCP, EveryAddress(self._reactor, where))
            service = FarmerService(tcp, farm, side, where, sessions)
            service.start()
            return service

        if given := self._passed.addresses(SHARDS):
            tcp = cast(IReactorTCP, self._passed)
            service = FarmerService(tcp, farm, side, given, sessions)
            service.start()
            return service
        try:
            service = self._on_last_ports(SHARDS, asked, listen)
        except ListenError as error:
            raise ListenError(f"{error}, {self._where('FARMER_LISTEN__SHARDS')}") from error
        remember_ports(self._home, SHARDS, asked, service.addresses)
        self.by_settings["listen.shards"] = service.addresses
        return service

    def for_page(self, factory: IProtocolFactory, asked: str) -> tuple[list[IListeningPort], str]:
        """Return the ports of the page, and its real address, or the first of several."""

        def listen(addresses: Sequence[str]) -> Any:  # noqa: ANN401  # an IListeningPort, on TCP
            [address] = _possible(addresses)
            host, port = split_address(address)
            try:
                tcp = EveryAddress(self._reactor, [(host, port)])
                return tcp.listenTCP(port, factory, PAGE_BACKLOG, host)
            except CannotListenError as error:
                raise ListenError(
                    f"cannot serve the page on {address}: {why_not(error.socketError)}. "
                    "Choose another address in listen.page, " + self._where("FARMER_LISTEN__PAGE")
                ) from error

        if given := self._passed.addresses(PAGE):
            ports = [
                self._passed.listenTCP(number, factory, PAGE_BACKLOG, host)
                for host, number in given
            ]
            for passed in ports:
                accept_few(passed, PAGE_ACCEPTS_PER_TURN)
            return ports, join_address(*given[0])
        port = self._on_last_ports(PAGE, [asked], listen)
        accept_few(port, PAGE_ACCEPTS_PER_TURN)
        found = join_address(split_address(asked)[0], port.getHost().port)
        remember_ports(self._home, PAGE, [asked], [found])
        self.by_settings["listen.page"] = shown = _possible([found])
        return [port], shown[0]

    def page_hosts(self, asked: str) -> tuple[str, ...]:
        """
        Return the names under which the owner may call the page, before it is served.

        A passed socket decides where the page is; the settings may still name that place.
        """
        given = [join_address(*address) for address in self._passed.addresses(PAGE)]
        return tuple(name for address in (asked, *given) for name in _names_of(address))

    def for_owner(
        self, factory: IProtocolFactory, environ: Mapping[str, str]
    ) -> tuple[IListeningPort, Path]:
        """Return the port of the control socket, and its path."""
        path = socket_path(self._home.state, environ, os.getuid())
        # The home is locked by us: a socket that is there belongs to nobody alive.
        path.unlink(missing_ok=True)
        try:
            port: IListeningPort = self._reactor.listenUNIX(str(path), factory, mode=0o600)
        except CannotListenError as error:
            raise ListenError(
                f"cannot make the control socket {path}: {error.socketError}"
            ) from error
        return port, path

    def _where(self, variable: str) -> str:
        there = "" if self._home.settings.exists() else " (there is none yet)"
        return f"in {self._home.settings}{there}, or by {variable}=HOST:PORT"

    def _on_last_ports(
        self, role: str, asked: Sequence[str], listen: Callable[[Sequence[str]], L]
    ) -> L:
        last = with_last_ports(self._home, role, asked)
        try:
            return listen(last)
        except ListenError:
            if last == list(asked):
                raise
            return listen(asked)


def _names_of(address: str) -> tuple[str, ...]:
    """Return the names under which the owner may call a page that listens on *address*."""
    host, _ = split_address(address)
    return ("*",) if host in {EVERY_4, EVERY_6} else (host,)


def _possible(addresses: Sequence[str]) -> list[str]:
    """On a machine without IPv6, every address means every IPv4 one."""
    if has_ipv6():
        return list(addresses)
    split = (split_address(address) for address in addresses)
    return [join_address(EVERY_4 if host == EVERY_6 else host, port) for host, port in split]
