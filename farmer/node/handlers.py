"""A whole conversation with one renter: greeting, then request after request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar, cast, get_args
from typing import Protocol as Shape

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from farmer.model.contract import ContractStage
from farmer.model.ids import NodeId
from farmer.node.admission import TurnedAway, Welcomed
from farmer.node.asking import (
    delete,
    list_shards,
    ping,
    redeem,
    show_contract,
    stat,
    undelete,
)
from farmer.node.auditing import audit
from farmer.node.exchange import Exchange
from farmer.node.farm import SOFTWARE, Farm
from farmer.node.ports import CloseReason, Result, Verb
from farmer.node.refusals import OUR_FAULT, TurnedDownError, refused_for
from farmer.node.repairing import examine, repair
from farmer.node.retrieving import retrieve
from farmer.node.session import RenterLeftError, Session
from farmer.node.storing import store
from farmer.protocol.connection import DataReceived, UnknownReceived
from farmer.protocol.limits import VERSION_MAX, VERSION_MIN
from farmer.protocol.messages import Request
from farmer.protocol.opening import End, Hello, Welcome
from farmer.protocol.questions import Delete, List, Ping, Redeem, ShowContract, Stat, Undelete
from farmer.protocol.refusals import Refusal, Refused, RemoteProtocolError
from farmer.protocol.repairs import Examine, Repair
from farmer.protocol.state import Side, State, may
from farmer.protocol.transfers import Audit, Retrieve, Store
from farmer.protocol.types import Type
from farmer.storage.errors import NoContractError, StorageError

M = TypeVar("M", bound=Request)
Coro = Coroutine[Deferred[Any], Any, None]
Handler = Callable[[Farm, Exchange, Any], Coro]


def _row(
    asked: type[M], verb: Verb, handler: Callable[[Farm, Exchange, M], Coro]
) -> tuple[type[object], tuple[Verb, Handler]]:
    return asked, (verb, handler)


_ROWS: Final = (
    _row(Redeem, Verb.REDEEM, redeem),
    _row(ShowContract, Verb.CONTRACT, show_contract),
    _row(Store, Verb.STORE, store),
    _row(Retrieve, Verb.RETRIEVE, retrieve),
    _row(Audit, Verb.AUDIT, audit),
    _row(Stat, Verb.STAT, stat),
    _row(List, Verb.LIST, list_shards),
    _row(Delete, Verb.DELETE, delete),
    _row(Undelete, Verb.UNDELETE, undelete),
    _row(Examine, Verb.EXAMINE, examine),
    _row(Repair, Verb.REPAIR, repair),
    _row(Ping, Verb.PING, ping),
)

HANDLERS: Final[dict[type[object], tuple[Verb, Handler]]] = dict(_ROWS)
"""Who serves which request, and what it is counted as."""
assert set(HANDLERS) == set(get_args(Request))

INVITES_REFUSED_MAX: Final = 8
"""Of one session; then we hang up.  Each costs a signature or a transaction, and a slip is one."""

_INVITE_REFUSALS: Final = frozenset(
    {Refusal.INVITE_INVALID, Refusal.INVITE_SPENT, Refusal.INVITE_EXPIRED}
)
_NEEDS_NO_CONTRACT: Final = frozenset({Verb.REDEEM, Verb.PING})


class Introduce(Shape):
    """Says whether there is room for a session, now that its renter is known."""

    def __call__(self, session: Session, renter: NodeId, *, known: bool) -> Welcomed | TurnedAway:
        """Note whose it is, if there is."""


class Conversation:
    """Serves sessions; holds nothing of them."""

    log = Logger()

    def __init__(
        self,
        farm: Farm,
        began: Callable[[Session], None] = lambda _: None,
        ended: Callable[[Session], None] = lambda _: None,
        introduce: Introduce = lambda _session, _renter, *, known: Welcomed(),
    ) -> None:
        """
        *began* and *ended* hear of every request that is being served.

        *ended* hears of what is no request and is done, too.
        *introduce* says whether there is room for a renter's session, once it is known whose, and
        once more when it turns out later that the renter has a contract.
        """
        self._farm = farm
        self._began = began
        self._ended = ended
        self._introduce = introduce

    async def serve(self, session: Session) -> None:
        """Talk with one renter until one of the two hangs up."""
        try:
            renter = await self._greet(session)
            while True:
                await session.room()
                await self._next(session, renter)
        except RenterLeftError:
            pass
        except RemoteProtocolError as error:
            self.log.debug("a renter broke the protocol: {error!r}", error=str(error))
            session.hang_up(error.refused, CloseReason.PROTOCOL)
        except StorageError as error:
            self.log.debug("a renter could not be looked up: {error}", error=error)
            session.hang_up(refused_for(error, self._farm.now_ms()), CloseReason.ERROR)
        except Exception:
            session.hang_up(Refused(Refusal.INTERNAL), CloseReason.ERROR)
            raise

    async def _greet(self, session: Session) -> NodeId:
        hello = await session.next_event()
        assert isinstance(hello, Hello), hello
        renter = session.renter()
        version = min(hello.version_max, VERSION_MAX)
        if version < max(hello.version_min, VERSION_MIN):
            refused = Refused(Refusal.UNSUPPORTED_VERSION, VERSION_MIN, VERSION_MAX)
            session.hang_up(refused, CloseReason.VERSION)
            raise RenterLeftError
        known = await self._farm.disk.run(_has_contract, self._farm, renter)
        self._make_room(session, renter, known=known)
        terms, now_ms = self._farm.terms, self._farm.now_ms()
        session.answer(Welcome(version, now_ms, terms.shard_bytes_max, SOFTWARE))
        session.greeted(known=known)
        self.log.debug(
            "{renter} speaks {software!r}", renter=renter.short, software=hello.software
        )
        return renter

    def _make_room(self, session: Session, renter: NodeId, *, known: bool) -> None:
        """Take a place among the renter's and all others; hang up if there is none."""
        if session.over:
            raise RenterLeftError
        match self._introduce(session, renter, known=known):
            case TurnedAway(have, allowed):
                refused = Refused(Refusal.TOO_MANY_SESSIONS, have, allowed)
                session.hang_up(refused, CloseReason.CROWD)
                raise RenterLeftError
            case Welcomed(instead):
                if instead is not None:
                    instead.abort(CloseReason.SHED)

    async def _next(self, session: Session, renter: NodeId) -> None:
        discarding = session.state is State.DISCARDING
        match await session.next_event():
            case UnknownReceived(kind):
                session.refuse(Refused(Refusal.UNKNOWN_MESSAGE, kind))
                self._farm.meter.refused(Refusal.UNKNOWN_MESSAGE.name)
                self._ended(session)
            case DataReceived():
                assert discarding, session.state
            case End():
                assert discarding, session.state
                session.discarded()
                self._ended(session)
            case event:
                await self._request(session, renter, cast(Request, event))

    async def _request(self, session: Session, renter: NodeId, asked: Request) -> None:
        verb, handler = HANDLERS[type(asked)]
        take_place = partial(self._make_room, session, renter, known=True)
        exchange = Exchange(self._farm, session, renter, verb, take_place)
        meter, result = self._farm.meter, Result.LEFT
        session.begin()
        self._began(session)
        meter.request_started(verb)
        try:
            result = await self._handled(session, exchange, handler, asked)
        finally:
            took_s, served = exchange.seconds, self._farm.served
            meter.request_finished(verb, result, took_s)
            if result is Result.OK and exchange.is_known:
                meter.renter_served()
            served.requests += 1
            served.took_s += took_s
            self._ended(session)

    async def _handled(
        self, session: Session, exchange: Exchange, handler: Handler, asked: Request
    ) -> Result:
        """Serve one request; every error but a lost or rude renter becomes a refusal."""
        try:
            await self._recognize(session, exchange)
            await handler(self._farm, exchange, asked)
        except TurnedDownError as no:
            refused = no.refused
        except StorageError as error:
            refused = refused_for(error, self._farm.now_ms())
            if refused.refusal in OUR_FAULT:
                self.log.debug("{verb}: {error}", verb=exchange.verb.value, error=error)
        except (RenterLeftError, RemoteProtocolError):
            raise
        except Exception:
            self.log.failure("{verb} failed", verb=exchange.verb.value)
            refused = Refused(Refusal.INTERNAL)
        else:
            return Result.OK
        self._refuse(session, refused)
        return Result.ERROR if refused.refusal in OUR_FAULT else Result.REFUSED

    async def _recognize(self, session: Session, exchange: Exchange) -> None:
        """Notice a contract that has come since HELLO, say by another connection."""
        if session.known or exchange.verb in _NEEDS_NO_CONTRACT:
            return
        if await exchange.of_stranger(_has_contract, self._farm, exchange.renter):
            exchange.known()

    def _refuse(self, session: Session, refused: Refused) -> None:
        """Refuse the open exchange; if it was answered already, hang up before we confuse."""
        answered = session.state is State.IDLE
        session.invites_refused += refused.refusal in _INVITE_REFUSALS
        if answered or not may(session.state, Type.REFUSE, Side.FARMER):
            session.hang_up(refused, CloseReason.ERROR)
        elif session.invites_refused >= INVITES_REFUSED_MAX:
            session.hang_up(refused, CloseReason.PROTOCOL)
        else:
            session.refuse(refused)
            self._farm.meter.refused(refused.refusal.name)


def _has_contract(farm: Farm, renter: NodeId) -> bool:
    try:
        _contract, stage = farm.book.find(renter)
    except NoContractError:
        return False
    return stage is not ContractStage.GONE
