from __future__ import annotations

from tests.hostile.stats import auc


def test_equal_samples_cannot_be_told_apart() -> None:
    assert auc([1, 2, 3], [1, 2, 3]) == 0.5
    assert auc([1, 1], [1, 1, 1]) == 0.5


def test_a_clear_difference_is_seen_with_its_sign() -> None:
    assert auc([1, 2], [3, 4]) == 1
    assert auc([3, 4], [1, 2]) == 0
    assert auc([1, 3], [2, 4]) == 0.75
