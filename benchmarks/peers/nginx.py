"""nginx: one worker, TLS 1.3, files by GET and DAV PUT."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from benchmarks.peers.install import debian_program, words
from benchmarks.peers.job import Target
from benchmarks.peers.peer import Traits
from benchmarks.peers.running import free_port, running
from farmer.identity.keys import Identity

CONFIGURATION: Final = Template("""\
daemon off;
worker_processes 1;
pid $folder/pid;
lock_file $folder/lock;
error_log stderr warn;
$user
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    client_max_body_size 0;
    client_body_buffer_size 256k;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/unused;
    fastcgi_temp_path $folder/unused;
    uwsgi_temp_path $folder/unused;
    scgi_temp_path $folder/unused;
    server {
        listen 127.0.0.1:$port ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate $folder/certificate.pem;
        ssl_certificate_key $folder/key.pem;
        location / {
            root $folder/files;
            dav_methods PUT;
        }
    }
}
""")
"""
The body's files lie on the same filesystem as the files, so that a PUT ends with a rename.  The
cipher is left to be agreed on, as with the others: it comes out the same.
"""


class Nginx:
    """The Debian package."""

    traits = Traits("nginx", tls=True, syncs=False, does="files, served by C")

    def set_up(self, cache: Path) -> str:
        """See `Peer`."""
        self._program = debian_program("nginx", "nginx", cache)
        return words("nginx", self._program, "-v").rpartition("/")[2].strip()

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Target]:
        """See `Peer`."""
        port = free_port()
        for name in ("files", "body", "unused"):
            (folder / name).mkdir()
        pin = _write_certificate(folder)
        settings = folder / "nginx.conf"
        settings.write_text(CONFIGURATION.substitute(folder=folder, port=port, user=_user_line()))
        command = (self._program, "-p", folder, "-e", "stderr", "-c", settings)
        with running(command, folder, port) as pid:
            yield Target("dav", pid, port, pin)


def _user_line() -> str:
    """Return who the worker is: we, not `nobody`, who may not enter our directories."""
    if os.getuid():
        return ""
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getgid()).gr_name};"


def _write_certificate(folder: Path) -> str:
    """Write a key and a certificate of the farmer's kind; return what a client pins."""
    identity = Identity.create(folder / "identity")
    key = identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(key)
    (folder / "certificate.pem").write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    return identity.certificate.fingerprint(SHA256()).hex()
