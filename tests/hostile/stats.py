"""How well two samples can be told apart."""

from __future__ import annotations

from collections.abc import Sequence


def auc(one: Sequence[float], other: Sequence[float]) -> float:
    """
    Return the chance that a value of *other* is above one of *one*; 0.5: nothing to tell.

    The area under the ROC curve, by ranks (Mann and Whitney); ties count half.
    """
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks, at = 0.0, 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        mean_rank = (at + end + 1) / 2
        ranks += mean_rank * sum(which for _, which in ranked[at:end])
        at = end
    return (ranks - len(other) * (len(other) + 1) / 2) / (len(one) * len(other))
