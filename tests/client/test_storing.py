"""What is hashed before it is stored."""

import io
from pathlib import Path

import pytest

from farmer.client import storing
from farmer.client.storing import Source
from farmer.protocol.limits import DATA_BYTES_SENT


def test_a_source_without_an_end_is_read_as_far_as_a_shard_goes(monkeypatch):
    """It was hashed for ever; and a file of terabytes for hours, to be refused then."""
    monkeypatch.setattr(storing, "SHARD_BYTES_MAX", 3 * DATA_BYTES_SENT)
    with Path("/dev/zero").open("rb") as endless, pytest.raises(OSError, match="split it"):
        Source.hashed(endless)


def test_a_source_of_just_as_much_as_a_shard_can_have_is_one(monkeypatch):
    monkeypatch.setattr(storing, "SHARD_BYTES_MAX", 1000)
    assert Source.hashed(io.BytesIO(bytes(1000))).size_bytes == 1000
    with pytest.raises(OSError, match="more than"):
        Source.hashed(io.BytesIO(bytes(1001)))
