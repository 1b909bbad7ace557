"""Who the farmer of a home is: a new home gets an identity, an old one keeps its own or none."""

from __future__ import annotations

from farmer.identity.keys import CERTIFICATE_FILE, KEY_FILE, Identity, IdentityError
from farmer.running.home import REGISTER_FILE, Home


def own_identity(home: Home) -> Identity:
    """
    Return the identity of a home; one is made only where nothing was made with another yet.

    Raises `IdentityError`.
    """
    if not any((home.identity / name).exists() for name in (KEY_FILE, CERTIFICATE_FILE)):
        for path in (home.contracts, home.state / REGISTER_FILE):
            if path.exists():
                raise IdentityError(
                    f"{home.identity} is missing, and {path.name} beside it was made with it: "
                    "bring it back from your backup. Nothing was made in its place: another "
                    "identity would be another farmer, to whom neither contracts nor shards belong"
                )
    return Identity.load_or_create(home.identity)
