"""What a renter must be ready for: each failure that is not the farmer's refusal is a class."""

from __future__ import annotations


class ClientError(Exception):
    """Anything that the client can raise on purpose; refusals are kinds of it too."""


class ConnectionFailedError(ClientError):
    """No address of the farmer answered, or the one that did could not finish a handshake."""


class WrongFarmerError(ConnectionFailedError):
    """Somebody else's key answered at the farmer's address; nothing was said to them."""


class ConnectionLostError(ClientError):
    """The connection broke in the middle of an exchange."""


class FarmerTooSlowError(ConnectionLostError):
    """The farmer answered too slowly, so we hung up."""


class FarmerBrokeProtocolError(ClientError):
    """The farmer said what it may not, or signed what is not true; we hung up."""


class WrongBytesError(ClientError):
    """The farmer sent bytes that are not those which the shard id names; do not use them."""


class SourceChangedError(ClientError):
    """What is being stored is not what was hashed before: it changed meanwhile."""


class NotJoinedError(ClientError):
    """The renter's home knows no such farmer."""
