"""The owner's page: one status in, HTML out; nothing here knows HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from farmer.model.contract import ContractStage
from farmer.model.status import (
    Alert,
    NodeState,
    NodeStatus,
    ScrubStatus,
    VolumeState,
    VolumeStatus,
)
from farmer.monitor.status import Activity
from farmer.monitor.words import count, percent, problem_of, size, together
from farmer.units import format_duration, format_moment
from farmer.version import release_words

REFRESH_S: Final = 60
"""Whoever reads is thrown back by it, to the left of a table that is wider than the window."""

_NODE_WORDS: Final = {
    NodeState.STARTING: ("warn", "Starting"),
    NodeState.RUNNING: ("ok", "Running, everything in order"),
    NodeState.DEGRADED: ("bad", "Running, but something needs you"),
    NodeState.DRAINING: ("warn", "Finishing its work, then stopping"),
}
_VOLUME_WORDS: Final = {
    VolumeState.HEALTHY: "ok",
    VolumeState.SLOW: "warn",
    VolumeState.FULL: "warn",
    VolumeState.READ_ONLY: "warn",
    VolumeState.FAILING: "bad",
    VolumeState.GONE: "bad",
    VolumeState.RETIRED: "ok",
}
_VOLUME_FIGURES: Final = ("Stored", "Quota", "Free", "Shards", "Errors", "Read through")
MAPS_BYTES_MAX: Final = 64 * 1024
"""What maps of extents may take of a volume's disk beside its shards: a few blocks."""

_GAPS: Final = (
    ("leaving", "Offered on volumes that are being emptied"),
    ("shut", "Offered on volumes that take nothing now"),
    ("gap", "Offered, but not there on the disks now"),
)


def page(status: NodeStatus, activity: Activity, now_s: float) -> str:
    """Return the whole page; every text in it is escaped."""
    title = escape(status.name or status.node_id.short)
    parts = (
        _header(status, activity, now_s),
        *(_alert(alert, now_s) for alert in status.alerts),
        '<div class="grid">',
        *_figures(status, activity, now_s),
        _bytes_card(status.volumes),
        _renting_card(status),
        _volumes_card(status.volumes),
        _about_card(status),
        "</div>",
    )
    return _document(title, "\n".join(parts))


def message(heading: str, text: str, *, leads_on: bool = True) -> str:
    """Return a small page of some words: for what went wrong."""
    link = ' <a href="/">To the status page</a>' if leads_on else ""
    body = f"<h1>{escape(heading)}</h1><p>{escape(text)}{link}</p>"
    return _document(escape(heading), body, refresh=False)


def _document(title: str, body: str, *, refresh: bool = True) -> str:
    again = f'<meta http-equiv="refresh" content="{REFRESH_S}">' if refresh else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark">{again}'
        f'<title>{title} · farmer</title><link rel="stylesheet" href="/style.css">'
        '<link rel="icon" href="data:,"></head>'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _header(status: NodeStatus, activity: Activity, now_s: float) -> str:
    kind, words = _NODE_WORDS[status.state]
    seen = activity.last_contact_s
    facts = (
        ("up", _span(now_s - status.started_at_ms / 1000)),
        ("last renter", f"{_span(now_s - seen)} ago" if seen else "none yet"),
        ("version", release_words(status.version, status.build)),
    )
    meta = "".join(f"<span>{name} <b>{escape(value)}</b></span>" for name, value in facts)
    return (
        f"<header><h1>{escape(status.name or status.node_id.short)}</h1>"
        f'<span class="pill {kind}">{words}</span><div class="meta">{meta}</div></header>'
    )


def _alert(alert: Alert, now_s: float) -> str:
    command = f"<div>Type: <code>{escape(alert.command)}</code></div>" if alert.command else ""
    since = _span(now_s - alert.since_ms / 1000)
    return (
        f'<section class="note"><b>{escape(alert.name)}</b>'
        f'<div>{escape(alert.message)} <span class="mute">for {since}</span>{command}</div>'
        "</section>"
    )


def _figures(status: NodeStatus, activity: Activity, now_s: float) -> Iterator[str]:
    quota = sum(volume.quota_bytes for volume in status.volumes)
    used = sum(volume.used_bytes for volume in status.volumes)
    free = sum(volume.free_bytes for volume in status.volumes)
    yield _figure(
        "Space",
        f"{size(used)} <small>stored of {size(quota)}</small>",
        percent(used, quota),
        f"{size(status.promised_bytes)} promised",
        f"{size(free)} free",
    )
    proved, failed = activity.audits_passed, activity.audits_failed
    absent = activity.audits_missing
    yield _figure(
        "Audits since start",
        percent(proved, proved + failed) if proved + failed else "none yet",
        f"{count(proved)} passed",
        f"{count(failed)} failed",
        *([f"{count(absent)} of shards not held"] if absent else []),
    )
    yield _figure(
        "Traffic since start",
        f"{size(activity.received_bytes)} <small>in</small>",
        f"{size(activity.sent_bytes)} out",
        f"shards stored: {count(activity.stored)}",
    )
    yield _figure(
        "Renters",
        count(status.renters),
        f"{count(status.sessions)} connections",
        f"open invites: {count(status.open_invites)}",
    )


def _figure(heading: str, value: str, *below: str) -> str:
    """Return a card; lines end between the facts below, not within one."""
    facts = " · ".join(together(fact) for fact in below)
    return (
        f'<section class="card k"><h2>{heading}</h2><div class="v">{value}</div>'
        f'<div class="mute">{facts}</div></section>'
    )


def _bytes_card(volumes: tuple[VolumeStatus, ...]) -> str:
    parts = (
        ("live", "Stored", sum(v.used_bytes for v in volumes)),
        ("trash", "Trash, gone within 7 days", sum(v.trash_bytes for v in volumes)),
        ("reserved", "Reserved for stores under way", sum(v.reserved_bytes for v in volumes)),
        ("kept", "Kept for index and tidying up", sum(v.allowance_bytes for v in volumes)),
        ("free", "Free", sum(v.free_bytes for v in volumes)),
        *_gaps(volumes),
    )
    total = max(sum(amount for _, _, amount in parts), 1)
    legend = "".join(
        f'<li><i class="{kind}"></i><span>{name}</span><b>{size(amount)}</b></li>'
        for kind, name, amount in parts
    )
    return (
        '<section class="card w6"><h2>Where every byte is</h2>'
        f"{_bar((kind, amount / total) for kind, _, amount in parts)}"
        f'<ul class="legend">{legend}</ul>'
        f'<p class="mute">{_beyond(volumes)}{_comparison(volumes)}</p></section>'
    )


def _gaps(volumes: tuple[VolumeStatus, ...]) -> Iterator[tuple[str, str, int]]:
    """Yield what is offered and cannot be rented, by cause; a cause that is none is not named."""
    for kind, name in _GAPS:
        amount = sum(_gap_bytes(volume) for volume in volumes if _gap_kind(volume) == kind)
        if amount:
            yield kind, name, amount


def _gap_bytes(volume: VolumeStatus) -> int:
    return max(0, volume.quota_bytes - _taken_bytes(volume) - volume.free_bytes)


def _gap_kind(volume: VolumeStatus) -> str:
    match volume.state:
        case VolumeState.GONE:
            return "shut"
        case _ if volume.draining:
            return "leaving"
        case VolumeState.READ_ONLY | VolumeState.FAILING:
            return "shut"
        case _:
            return "gap"


def _beyond(volumes: tuple[VolumeStatus, ...]) -> str:
    """Say by how much the parts come to more than the quotas: these were lowered below them."""
    amount = sum(max(0, _taken_bytes(volume) - volume.quota_bytes) for volume in volumes)
    return f"{size(amount)} of this are more than the quotas allow. " if amount else ""


def _taken_bytes(volume: VolumeStatus) -> int:
    used = volume.used_bytes + volume.trash_bytes + volume.reserved_bytes
    return used + volume.allowance_bytes


def _comparison(volumes: tuple[VolumeStatus, ...]) -> str:
    compared = [volume for volume in volumes if volume.allocated_bytes]
    if not compared:
        return "Ledger and disk have not been compared yet."
    drifts = [abs(volume.drift_bytes) for volume in compared]
    drift = sum(one for one in drifts if one > MAPS_BYTES_MAX)
    return f"Ledger and disk {f'differ by {size(drift)}' if drift else 'agree'} (last comparison)."


def _bar(shares: Iterable[tuple[str, float]]) -> str:
    """Draw the shares beside each other; SVG, since the page allows no inline style."""
    at, parts = 0.0, []
    for kind, share in shares:
        parts.append(
            f'<rect class="{kind}" x="{at * 100:.3f}%" width="{share * 100:.3f}%" height="16"/>'
        )
        at += share
    return f'<svg class="bar" height="16" aria-hidden="true">{"".join(parts)}</svg>'


def _renting_card(status: NodeStatus) -> str:
    counts = dict(status.contracts)
    words = (
        (ContractStage.ACTIVE, "Contracts running"),
        (ContractStage.GRACE, "Ended, can still be read"),
        (ContractStage.TRASH, "Ended, in the trash"),
    )
    rows = [(name, count(counts.get(stage, 0))) for stage, name in words]
    rows += [
        ("Open invites", count(status.open_invites)),
        ("Promised by contracts and open invites", size(status.promised_bytes)),
        ("Shards held", count(sum(volume.shards for volume in status.volumes))),
        ("Damaged, set aside", count(sum(volume.quarantined for volume in status.volumes))),
    ]
    return (
        '<section class="card w6"><h2>Renting</h2><dl>'
        + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
        + f"</dl>{_how_to_begin(status)}</section>"
    )


def _how_to_begin(status: NodeStatus) -> str:
    """Say how to get a renter, if nobody has a contract or an invite; not before that is known."""
    known = dict(status.contracts)
    if not known or any(known.values()) or status.open_invites:
        return ""
    command = "farmer invite --space SIZE --for 90d"
    return (
        f'<p class="mute">Nobody rents now. <code>{command}</code> prints an invite: '
        "give it to somebody who wants to store here.</p>"
    )


def _volumes_card(volumes: tuple[VolumeStatus, ...]) -> str:
    head = '<th scope="col">Volume</th><th scope="col">State</th>' + "".join(
        f'<th scope="col" class="r">{name}</th>' for name in _VOLUME_FIGURES
    )
    rows = "".join(_volume_rows(volume) for volume in volumes)
    # A box that scrolls can be reached by the keyboard, and says what it is.
    box = '<div class="wide" tabindex="0" role="region" aria-label="Volumes">'
    return (
        f'<section class="card w12"><h2>Volumes</h2>{box}<table>'
        f"<thead><tr>{head}</tr></thead>{rows}</table></div></section>"
    )


def _volume_rows(volume: VolumeStatus) -> str:
    """Return a volume's figures and, in a row of its own, what an owner should know of it."""
    kind = _VOLUME_WORDS[volume.state]
    state = f"{volume.state.value}, leaving" if volume.draining else volume.state.value
    notes = [note for note in (volume.reason, _leaving(volume)) if note]
    why = f'<tr class="why"><td colspan="8">{escape("; ".join(notes))}</td></tr>' if notes else ""
    # One that shares its short name with another is called by its whole path already.
    name = "" if volume.name == volume.path else f"<b>{escape(volume.name)}</b> "
    numbers = (
        size(volume.used_bytes),
        size(volume.quota_bytes),
        size(volume.free_bytes),
        count(volume.shards),
        count(sum(number for _, number in volume.errors)),
        _scrub_words(volume.scrub),
    )
    return (
        f'<tbody><tr><td class="where">{name}<code>{escape(volume.path)}</code></td>'
        f'<td><span class="pill {kind}">{state}</span></td>'
        + "".join(
            f'<td class="r" data-name="{name}">{number}</td>'
            for name, number in zip(_VOLUME_FIGURES, numbers, strict=True)
        )
        + f"</tr>{why}</tbody>"
    )


def _scrub_words(scrub: ScrubStatus | None) -> str:
    """Return how far everything has been read again."""
    if scrub is None:
        return "not known"
    if scrub.state == "idle":
        # A pass over an empty volume has read nothing.
        return (
            format_moment(scrub.ended_at_ms) if scrub.ended_at_ms and scrub.checked else "not yet"
        )
    left = f", {_span(scrub.eta_s)} left" if scrub.eta_s is not None else ""
    return f"{scrub.state} {percent(scrub.progress, 1)}{left}"


def _leaving(volume: VolumeStatus) -> str:
    """Return how far a volume's emptying is."""
    work = volume.work
    if work is None:
        return ""
    left = f"{work.verb}: {count(work.left_shards)} shards, {size(work.left_bytes)} left"
    if work.eta_s is not None and work.left_shards:
        left += f", about {_span(work.eta_s)}"
    if work.is_stuck:
        left += ", damaged: they cannot move"
    problem = problem_of(work)
    return f"{left} ({problem})" if problem else left


def _about_card(status: NodeStatus) -> str:
    rows = (
        ("Node id", f"<code>{status.node_id}</code>"),
        ("Renters reach it at", _codes(status.announce, "no address is known: set announce")),
        ("Listens on", _codes(status.listen)),
        *(
            [("Settings that wait for a restart", _codes(status.waiting))]
            if status.waiting
            else []
        ),
        ("Started", escape(format_moment(status.started_at_ms))),
        ("Last run ended", _last_end(status)),
        (
            "For programs",
            '<a href="/metrics">metrics</a> · <a href="/status.json">status.json</a>',
        ),
    )
    return (
        '<section class="card w12"><h2>About</h2><dl class="about">'
        + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
        + "</dl></section>"
    )


def _last_end(status: NodeStatus) -> str:
    if status.first_start:
        return "none: this is the first run"
    return "in order" if status.clean_start else "not in order: crash or power cut"


def _codes(texts: tuple[str, ...], otherwise: str = "nowhere") -> str:
    return " ".join(f"<code>{escape(text)}</code>" for text in texts) or escape(otherwise)


def _span(seconds: float) -> str:
    return format_duration(int(max(0.0, seconds)) * 1000)
