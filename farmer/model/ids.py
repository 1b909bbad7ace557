"""The names of things: fixed-size byte strings, checked once, at birth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True, order=True)
class _Name:
    """Some raw bytes of one fixed length, shown and parsed as lower-case hex."""

    raw: bytes

    SIZE_BYTES: ClassVar[int] = 32
    NOUN: ClassVar[str] = "name"

    def __post_init__(self) -> None:
        if len(self.raw) != self.SIZE_BYTES:
            raise ValueError(f"a {self.NOUN} has {self.SIZE_BYTES} bytes, not {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read the hex form.

        Raises:
            ValueError: not exactly the right number of hex digits; says what was expected.

        """
        try:
            raw = bytes.fromhex(text)
        except ValueError:
            raw = b""
        if len(raw) != cls.SIZE_BYTES or len(text) != 2 * cls.SIZE_BYTES:
            raise ValueError(f"{text!r} is not a {cls.NOUN}: {2 * cls.SIZE_BYTES} hex digits")
        return cls(raw)

    def __str__(self) -> str:
        return self.raw.hex()

    @property
    def short(self) -> str:
        """The first eight digits: enough for a person, never for a look-up."""
        return self.raw[:4].hex()


@dataclass(frozen=True, slots=True, order=True)
class NodeId(_Name):
    """Who somebody is: SHA-256 of the SubjectPublicKeyInfo of their Ed25519 key."""

    NOUN: ClassVar[str] = "node id"


@dataclass(frozen=True, slots=True, order=True)
class ShardId(_Name):
    """Which bytes: SHA-256 over domain, size, leaf size and the root of their hash tree."""

    NOUN: ClassVar[str] = "shard id"


@dataclass(frozen=True, slots=True, order=True)
class ContractId(_Name):
    """Which contract: random, made by the farmer when an invite is first redeemed."""

    SIZE_BYTES: ClassVar[int] = 16
    NOUN: ClassVar[str] = "contract id"


@dataclass(frozen=True, slots=True, order=True)
class InviteSerial(_Name):
    """Which invite: random, spent once."""

    SIZE_BYTES: ClassVar[int] = 16
    NOUN: ClassVar[str] = "invite serial"
