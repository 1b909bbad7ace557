"""What each peer is asked."""

from __future__ import annotations

from benchmarks.peers.dialects import dav, swift, tahoe

NAME = "00000405" + "ab" * 28


def test_dav_is_a_file() -> None:
    """One PUT, one GET."""
    [put] = dav().storing(NAME, 5)
    assert (put.method, put.path, put.sends_shard) == ("PUT", f"/{NAME}", True)
    assert dav().retrieving(NAME, 5).path == put.path


def test_swift_is_told_device_partition_account_container_and_object() -> None:
    """The partition follows from the name, as in a ring; a write has a timestamp."""
    [put] = swift().storing(NAME, 5)
    assert put.path == f"/disk/5/account/container/{NAME}"
    assert "X-Timestamp" in dict(put.headers)
    assert swift().retrieving(NAME, 5).path == put.path


def test_tahoe_has_its_allocation_in_cbor() -> None:
    """Byte for byte what RFC 8949 makes of it: {"share-numbers": {0}, "allocated-size": 5}."""
    post, patch = tahoe("secret").storing(NAME, 5)
    assert post.body == (
        b"\xa2\x6dshare-numbers\xd9\x01\x02\x81\x00"
        b"\x6eallocated-size\x1b\x00\x00\x00\x00\x00\x00\x00\x05"
    )
    assert patch.path == post.path + "/0" and patch.sends_shard
    assert ("Content-Range", "bytes 0-4/5") in patch.headers
    assert ("Range", "bytes=0-4") in tahoe("secret").retrieving(NAME, 5).headers


def test_tahoe_gets_the_same_upload_secret_twice() -> None:
    """Who allocates is who writes."""
    post, patch = tahoe("secret").storing(NAME, 5)
    shared = [header for header in patch.headers if header in post.headers]
    assert [value.split()[0] for _, value in shared] == ["Tahoe-LAFS", "upload-secret"]
