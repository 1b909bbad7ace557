"""
Run a program as `farmer-socket.service` would, as far as that goes without systemd.

    python -m tests.process.sandbox PORT,PORT WRITABLE,WRITABLE PROGRAM ARGUMENT...

The last of the writable directories is the RuntimeDirectory=.  As root: binds the ports (shards,
page) on loopback and passes them as systemd does; then a network of its own without
interfaces, private mounts with everything read-only but the named directories, IPC and host
name of its own, umask 0077, no capability, no new privileges, and the unit's own system call
filter, as `systemd-analyze syscall-filter` expands it, with sockets for AF_UNIX alone.

What is missing: the user of its own (the tests' interpreter may lie where another user cannot
read), PrivateUsers, ProtectProc, ProtectHome, device and memory limits, which are systemd's
own doing.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path

HEADERS = (
    Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    Path("/usr/include/asm/unistd_64.h"),
)
UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "farmer-socket.service"

_NEWNS, _NEWUTS, _NEWIPC, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x40000000
_RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_PR_CAPBSET_DROP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 24, 22, 38
_LIBC = ctypes.CDLL(None, use_errno=True)

_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER_AT, _FIRST_ARGUMENT_AT = 0, 16


def missing() -> str:
    """Return why this cannot be done here, or nothing."""
    if os.geteuid() != 0:
        return "needs to be root"
    if os.uname().machine != "x86_64" or not any(path.exists() for path in HEADERS):
        return "needs the system call numbers of x86-64 (linux-libc-dev)"
    return ""


def main() -> None:
    ports, writable, *command = sys.argv[1:]
    allowed = allowed_calls()
    sockets = [_listening(int(port)) for port in ports.split(",")]
    for at, one in enumerate(sockets):
        os.dup2(one.fileno(), 3 + at, inheritable=True)
    _must("unshare", _NEWNS | _NEWUTS | _NEWIPC | _NEWNET)
    _read_only_but([Path(place) for place in writable.split(",")])
    os.umask(0o077)
    _drop_all()
    _filter(allowed)
    os.environ |= {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(sockets)),
        "LISTEN_FDNAMES": "shards:page",
        "RUNTIME_DIRECTORY": writable.split(",")[-1],
    }
    os.execvp(command[0], command)


def _must(call: str, *arguments: object) -> None:
    if getattr(_LIBC, call)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def _listening(port: int) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    one.listen(128)
    # Out of the way of the descriptors that are passed.
    high = socket.socket(fileno=fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, 50))
    one.close()
    return high


def _read_only_but(writable: list[Path]) -> None:
    _must("mount", None, b"/", None, _REC | _PRIVATE, None)
    for place in writable:
        _must("mount", os.fsencode(place), os.fsencode(place), None, _BIND, None)
    # PrivateTmp=; not over /tmp, where the tests' own directories are.
    _must("mount", b"tmpfs", b"/var/tmp", b"tmpfs", 0, None)
    _must("mount", None, b"/", None, _REMOUNT | _BIND | _RDONLY, None)


def _drop_all() -> None:
    for number in range(64):
        if _LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
            break
    # Version 3 of the structure: this process, and two words of each set, all empty.
    header, empty = struct.pack("=II", 0x20080522, 0), bytes(24)
    _must("capset", header, empty)
    _must("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def allowed_calls() -> dict[str, int]:
    """Return names and numbers of the calls that the unit's SystemCallFilter= lets through."""
    words = re.findall(r"(?m)^SystemCallFilter=(~?)(.+)$", UNIT.read_text())
    names: set[str] = set()
    for sign, groups in words:
        some = {name for group in groups.split() for name in _expanded(group)}
        names = names - some if sign else names | some
    header = next(path for path in HEADERS if path.exists()).read_text()
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", header))
    return {name: int(numbers[name]) for name in sorted(names) if name in numbers}


def _expanded(group: str) -> set[str]:
    told = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", group],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names: set[str] = set()
    for line in told.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            names |= _expanded(word)
        elif word and not word.startswith("#"):
            names.add(word)
    return names


def _filter(allowed: dict[str, int]) -> None:
    """Load a filter: sockets of AF_UNIX, the calls allowed, EPERM for all others."""
    refuse = _REFUSE | 1
    rules = [(_LOAD, 0, 0, _NUMBER_AT)]
    rules += [(_EQUALS, 0, 4, allowed["socket"]), (_LOAD, 0, 0, _FIRST_ARGUMENT_AT)]
    rules += [(_EQUALS, 0, 1, socket.AF_UNIX), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, refuse)]
    for name, number in allowed.items():
        if name != "socket":
            rules += [(_EQUALS, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    rules.append((_RETURN, 0, 0, refuse))
    program = b"".join(struct.pack("=HBBI", *rule) for rule in rules)
    buffer = ctypes.create_string_buffer(program)
    described = struct.pack("=HxxxxxxQ", len(rules), ctypes.addressof(buffer))
    _must("prctl", _PR_SET_SECCOMP, 2, described, 0, 0)


if __name__ == "__main__":
    main()
