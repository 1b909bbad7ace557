"""How long one opening of a volume has its staging directory for itself."""

from __future__ import annotations

import threading

import pytest

from farmer.storage.tenure import Tenure


def test_it_lasts_until_it_is_ended() -> None:
    tenure = Tenure()
    with tenure.lasting() as lasts:
        assert lasts
    tenure.end()
    tenure.end()
    assert tenure.is_over
    with tenure.lasting() as lasts:
        assert not lasts


def test_it_does_not_end_while_somebody_is_inside_nor_wait_for_who_comes_later() -> None:
    tenure = Tenure()
    ends = threading.Thread(target=tenure.end, daemon=True)
    with tenure.lasting() as lasts:
        assert lasts
        ends.start()
        while not tenure.is_over:
            ends.join(0.01)
        assert ends.is_alive()
        with tenure.lasting() as inner:
            assert not inner
        assert ends.is_alive()
    ends.join(20)
    assert not ends.is_alive()


def test_who_fails_inside_does_not_keep_it() -> None:
    tenure = Tenure()
    with pytest.raises(OSError, match="bad"), tenure.lasting():
        raise OSError("bad")
    tenure.end()
    assert tenure.is_over
