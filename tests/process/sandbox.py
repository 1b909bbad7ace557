"""
Run a program as one of the units would, as far as that goes without systemd.

    python -m tests.process.sandbox UNIT PORT,PORT|- WRITABLE,WRITABLE UID PROGRAM ARGUMENT...

The last of the writable directories is the RuntimeDirectory=.  Begun as root: binds the ports
(shards, page) on loopback and passes them as systemd does; then private mounts with everything
read-only but the named directories and the homes hidden, IPC and host name of its own, and where
the unit says so a network of its own without interfaces; umask 0077; the user and group UID, no
other group, no capability, no new privileges; and the unit's own system call filter, as
`systemd-analyze syscall-filter` expands it, with sockets of the unit's address families.

/proc shows the user's own processes, and nothing else where the unit says so.

What is missing: PrivateUsers, device and memory limits, which are systemd's own doing.
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
ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
OWN_USER = 61_234
"""Nobody's, from the range in which systemd's DynamicUser= looks for one."""

_NEWNS, _NEWUTS, _NEWIPC, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x40000000
_RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_PR_CAPBSET_DROP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 24, 22, 38
_LIBC = ctypes.CDLL(None, use_errno=True)

_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER_AT, _FIRST_ARGUMENT_AT = 0, 16


def missing() -> str:
    """Return what is missing for this here, or nothing."""
    if os.geteuid() != 0:
        return "to be root"
    if os.uname().machine != "x86_64" or not any(path.exists() for path in HEADERS):
        return "the system call numbers of x86-64 (linux-libc-dev)"
    return ""


def main() -> None:
    unit, ports, writable, user, *command = sys.argv[1:]
    # Whatever it was where the tests run: what is made below on the way is for all to pass.
    os.umask(0o022)
    text = (UNITS / unit).read_text()
    allowed, families = allowed_calls(text), address_families(text)
    sockets = [_listening(int(port)) for port in ports.split(",") if port != "-"]
    for at, one in enumerate(sockets):
        os.dup2(one.fileno(), 3 + at, inheritable=True)
    has_network = "PrivateNetwork=yes" not in text
    _must("unshare", _NEWNS | _NEWUTS | _NEWIPC | (0 if has_network else _NEWNET))
    _must("mount", None, b"/", None, _REC | _PRIVATE, None)
    own_alone = b"hidepid=invisible" + (b",subset=pid" if "ProcSubset=pid" in text else b"")
    _must("mount", b"proc", b"/proc", b"proc", 0, own_alone)
    _hide_homes_but([Path(sys.base_prefix), Path(sys.prefix), ROOT])
    _read_only_but([Path(place) for place in writable.split(",")])
    os.umask(0o077)
    _become(int(user))
    _filter(allowed, families)
    if sockets:
        os.environ |= {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": "shards:page",
        }
    os.environ |= {"RUNTIME_DIRECTORY": writable.split(",")[-1], "HOME": "/"}
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


def _hide_homes_but(needed: list[Path]) -> None:
    """
    Put an empty directory over each that the user may not look into (ProtectHome=).

    What the interpreter needs from there stands in it again.
    """
    held = {place.resolve(): os.open(place, os.O_PATH) for place in needed}
    for place, fd in held.items():
        closed = [one for one in place.parents if not one.stat().st_mode & 0o001]
        if closed:
            _must("mount", b"tmpfs", os.fsencode(closed[-1]), b"tmpfs", 0, b"mode=755")
        place.mkdir(parents=True, exist_ok=True)
        if not os.path.samestat(place.stat(), os.fstat(fd)):
            here = os.fsencode(f"/proc/self/fd/{fd}")
            _must("mount", here, os.fsencode(place), None, _BIND | _REC, None)
        os.close(fd)


def _read_only_but(writable: list[Path]) -> None:
    for place in writable:
        _must("mount", os.fsencode(place), os.fsencode(place), None, _BIND, None)
    # PrivateTmp=; not over /tmp, where the tests' own directories are.
    _must("mount", b"tmpfs", b"/var/tmp", b"tmpfs", 0, None)
    _must("mount", None, b"/", None, _REMOUNT | _BIND | _RDONLY, None)


def _become(user: int) -> None:
    """Be this user and group alone, without a capability, for good."""
    for number in range(64):
        if _LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
            break
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # Version 3 of the structure: this process, and two words of each set, all empty.
    header, empty = struct.pack("=II", 0x20080522, 0), bytes(24)
    _must("capset", header, empty)
    _must("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def address_families(unit: str) -> list[int]:
    """Return the families that the unit's RestrictAddressFamilies= lets through."""
    (names,) = re.findall(r"(?m)^RestrictAddressFamilies=(.+)$", unit)
    return [getattr(socket, name) for name in names.split()]


def allowed_calls(unit: str) -> dict[str, int]:
    """Return names and numbers of the calls that the unit's SystemCallFilter= lets through."""
    words = re.findall(r"(?m)^SystemCallFilter=(~?)(.+)$", unit)
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


def _filter(allowed: dict[str, int], families: list[int]) -> None:
    """Load a filter: sockets of these families, the calls allowed, EPERM for all others."""
    refuse = _REFUSE | 1
    sockets = [(_LOAD, 0, 0, _FIRST_ARGUMENT_AT)]
    for family in families:
        sockets += [(_EQUALS, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    sockets.append((_RETURN, 0, 0, refuse))
    rules = [(_LOAD, 0, 0, _NUMBER_AT), (_EQUALS, 0, len(sockets), allowed["socket"]), *sockets]
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
