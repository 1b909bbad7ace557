"""The program `renter`: what can be typed; what is done stands in the modules beside it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from farmer.cli import exits
from farmer.cli.exits import CommandError
from farmer.cli.tables import visible
from farmer.cli.terminal import drop_output, flushed, print_document, warn

if TYPE_CHECKING:
    from farmer.client.home import Home

DESCRIPTION: Final = "Store shards at farmers, have them proved, fetch them back."

HOMES: Final = (
    "What is joined is kept in a home, with the identity and the receipts: renter --home DIR "
    "join ..., or the variable RENTER_HOME, else the directory renter in ~/.local/share."
)

NAMED: Final = "its id, or the first 8 digits of one stored"

Verbs = Any
"""What `add_subparsers` returns; argparse does not name it in public."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    options = parser().parse_args(words)
    return flushed(_ended(options))


def _ended(options: argparse.Namespace) -> int:
    try:
        return _run(options)
    except CommandError as error:
        return _fail(error, options, error.code)
    except KeyboardInterrupt:
        return _fail("interrupted", options, exits.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has enough.
        drop_output()
        return exits.FAILED
    except Exception as error:
        return _translated(error, options)


def parser() -> argparse.ArgumentParser:
    """Return the grammar of the command line."""
    top = argparse.ArgumentParser("renter", description=DESCRIPTION)
    top.add_argument(
        "--home",
        metavar="DIR",
        help="identity and receipts; default: RENTER_HOME, else renter in ~/.local/share",
    )
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_contracts(verbs)
    _add_transfers(verbs)
    _add_keeping(verbs)
    return top


def _add_contracts(verbs: Verbs) -> None:
    join = _add(verbs, "join", "redeem a farmer's invite", "renter_joining:join", farmer=False)
    join.epilog = HOMES
    join.add_argument("invite", metavar="INVITE", help="the line that the farmer printed")
    join.add_argument(
        "--anyway",
        action="store_true",
        help="spend it also if your contract there has no more space, no later end by it, and "
        "take a contract that has less than the invite or than the one before",
    )
    contract = _add(
        verbs, "contract", "show the contract and what it uses", "renter_contract:contract"
    )
    contract.add_argument(
        "--anyway",
        action="store_true",
        help="take it also if it is older or dearer than the one before",
    )
    _add(verbs, "ping", "ask how the farmer is", "renter_asking:ping")
    words = "the release, and which build of it"
    version = _add(verbs, "version", words, "renter_version:version", farmer=False)
    version.set_defaults(homeless=True)


def _add_transfers(verbs: Verbs) -> None:
    store = _add(verbs, "store", "store files, as they are", "renter_storing:store")
    store.add_argument("files", metavar="FILE", nargs="+", help="- is standard input")
    retrieve = _add(verbs, "retrieve", "fetch a shard back", "renter_retrieving:retrieve")
    _add_shard(retrieve)
    retrieve.add_argument(
        *("-o", "--output"),
        metavar="FILE",
        default="",
        help="where to, - is standard output; default: that, if it is no terminal",
    )
    retrieve.add_argument(
        "--offset",
        type=_count,
        metavar="BYTES",
        default=0,
        help="where a part begins, which is proved to be of the shard; default: 0",
    )
    retrieve.add_argument(
        "--length", type=_count, metavar="BYTES", help="how much of it; default: to its end"
    )
    repair = _add(verbs, "repair", "send damaged blocks again", "renter_repairing:repair")
    _add_shard(repair)
    repair.add_argument(
        "--from", dest="copy", metavar="FILE", default="", help="your copy; default: as stored"
    )
    audit = _add(
        verbs,
        "audit",
        "have the farmer prove what it holds",
        "renter_auditing:audit",
        otherwise="all that hold something",
    )
    audit.add_argument("shards", metavar="SHARD", nargs="*", help="only these; default: all")
    audit.add_argument(
        "--all",
        action="store_true",
        help="all that the receipts say is stored, as without SHARD",
    )
    audit.add_argument(
        "--samples",
        type=_samples,
        metavar="K",
        help="pieces of 4 KiB to have proved of each shard, drawn by lot; default: of all shards "
        "together enough to find a loss of 1 %% with 99 %%, but 20 of each at most",
    )
    audit.add_argument(
        "--full",
        action="store_true",
        help="every byte, not samples; without your file of it, a shard is fetched",
    )


def _add_keeping(verbs: Verbs) -> None:
    _add(verbs, "list", "list the shards at the farmer", "renter_asking:list_shards")
    _add_shard(_add(verbs, "stat", "show one shard", "renter_asking:stat"))
    delete = _add(verbs, "delete", "move shards to the trash", "renter_deleting:delete")
    _add_shards(delete)
    delete.add_argument("--erase", action="store_true", help="erase them now, for good")
    undelete = _add(verbs, "undelete", "take them out of the trash", "renter_deleting:undelete")
    _add_shards(undelete)


def _add(
    verbs: Verbs,
    name: str,
    what: str,
    action: str,
    *,
    farmer: bool = True,
    otherwise: str = "who has the shard, else the last joined",
) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=what)
    verb.set_defaults(action=action, homeless=False)
    verb.add_argument("--json", action="store_true", help="answer with JSON")
    if farmer:
        verb.add_argument(
            *("--farmer", "-f"),
            metavar="ID",
            default="",
            help=f"first digits of its id; default: {otherwise}",
        )
    return verb


def _add_shard(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("shard", metavar="SHARD", help=NAMED)


def _add_shards(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("shards", metavar="SHARD", nargs="+", help=NAMED)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(text)


def _samples(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= 6
    if not is_number or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"between 1 and 1024 samples, not {text!r}")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    module, _, name = options.action.partition(":")
    command: Callable[[Home | None, argparse.Namespace], int]
    command = getattr(import_module(f"farmer.cli.{module}"), name)
    if options.homeless:
        return command(None, options)
    from farmer.client.home import Home, default_home, named_home

    home = Home.open(named_home(options.home) if options.home else default_home(os.environ))
    try:
        return command(home, options)
    finally:
        for damaged in home.ledger.damaged:
            warn(f"renter: {damaged}")
        home.ledger.close()


def _translated(error: Exception, options: argparse.Namespace) -> int:
    """Turn the errors of the slow imports into words; what is left is our bug."""
    from farmer.client.dial import AddressError
    from farmer.client.errors import ClientError
    from farmer.client.home import NotStoredError, UnknownHomeError, UnknownShardError
    from farmer.client.refusals import RefusedError
    from farmer.identity.keys import IdentityError
    from farmer.identity.signing import InviteLinkError

    match error:
        case NotStoredError():
            return _fail(error, options, exits.FAILED)
        case UnknownHomeError() | UnknownShardError() | InviteLinkError() | AddressError():
            return _fail(error, options, exits.USAGE)
        case RefusedError():
            return _fail(error, options, exits.FAILED, refusal=error.as_json())
        case ClientError() | IdentityError():
            return _fail(error, options, exits.FAILED)
        case OSError():
            named = f"{error.filename}: " if error.filename else ""
            return _fail(f"{named}{error.strerror or error}", options, exits.FAILED)
        case _:
            raise error


def _fail(
    error: object,
    options: argparse.Namespace,
    code: int,
    refusal: dict[str, object] | None = None,
) -> int:
    # A name in it may have lines of its own.
    warn(visible(f"renter: {error}"))
    if options.json:
        # If it is the output that fails, the last flush tells it.
        with suppress(OSError):
            print_document({"error": str(error), "refusal": refusal})
    return code


if __name__ == "__main__":
    sys.exit(main())
