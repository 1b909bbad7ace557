"""
The table of docs/limits.md; `python -m tests.hostile.limits_table` writes it anew.

Value and reason come from the code, the test is looked for in its file: the page cannot lie
about any of the three.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "limits.md"
BEGIN, END = "<!-- limits: begin -->\n", "<!-- limits: end -->\n"

WIRE, NODE, CLIENT = "farmer.protocol.limits", "farmer.node.", "farmer.client.limits"
TALK, TURNS = "tests/node/test_session.py::", "tests/node/test_turnstile.py::"
RECORD = "farmer.identity.records"
HELD, ARRIVAL = "tests/node/test_held.py::", "tests/node/test_arrival.py::"
RECORDS = "tests/identity/test_records.py::"
CHECKS, MEMORY = "tests/node/test_checks.py::", "tests/running/test_memory.py::"
DRAIN, SHOWN = "tests/node/test_drain.py::", "tests/monitor/test_page.py::"
SMALL = "tests/running/test_small.py::"
RANGES = "tests/node/test_retrieving.py::"
HOSTILE, LIES = "tests/hostile/", "tests/client/"

GROUPS: dict[str, list[tuple[str, str, str]]] = {
    "Who may come in, and for how long": [
        (WIRE, "SESSIONS_MAX", HOSTILE + "test_floods.py::test_thousands_of_networks"),
        (WIRE, "SESSIONS_PER_ADDRESS_MAX", HOSTILE + "test_floods.py::test_one_ipv6_household"),
        (NODE + "admission", "NETWORK_PARTS", HOSTILE + "test_floods.py::test_a_whole_ipv6"),
        (WIRE, "SESSIONS_PER_RENTER_MAX", HOSTILE + "test_floods.py::test_one_key_from_many"),
        (WIRE, "STRANGERS_PART", HOSTILE + "test_floods.py::test_many_keys_make_room"),
        ("farmer.running.process", "OTHER_DESCRIPTORS", HOSTILE + "test_descriptors.py::test_few"),
        (NODE + "service", "BACKLOG", DRAIN + "test_the_kernel_holds_so_many"),
        (WIRE, "CERTIFICATE_BYTES_MAX", HOSTILE + "test_tls.py::test_only_one_small"),
        (WIRE, "HANDSHAKE_S", HOSTILE + "test_slow.py::test_a_handshake_byte_by_byte"),
        (WIRE, "STRANGER_S", HOSTILE + "test_slow.py::test_a_stranger_cannot_stay"),
        (WIRE, "IDLE_S", HOSTILE + "test_slow.py::test_who_never_reads"),
        (WIRE, "CLOSE_S", "tests/node/test_deadlines.py::test_a_close_has_its_own_moment"),
        (NODE + "service", "CHECK_S", DRAIN + "test_who_takes_no_last_words"),
        (NODE + "service", "LAST_WORK_S", DRAIN + "test_a_thread_that_does_not_come_back"),
    ],
    "What keeps one turn of the reactor short": [
        (NODE + "turnstile", "STEPS_PER_TURN", TURNS + "test_no_turn_has_more_than_a_few"),
        (RECORD, "SILENT_RECORDS_MAX", RECORDS + "test_so_many_records_may"),
        (NODE + "inbox", "TURN_BYTES", TALK + "test_a_transfer_waits_for_its_turn"),
        (NODE + "service", "CHECKED_PER_TURN", CHECKS + "test_deadlines_of_many_are_looked_at"),
        (NODE + "service", "HANG_UP_CHECKS", CHECKS + "test_of_many_who_are_late"),
        (NODE + "turnstile", "EVENTS_PER_TURN", TALK + "test_all_sessions_together"),
        (NODE + "arrival", "HANDSHAKE_STEPS_MAX", ARRIVAL + "test_a_handshake_of_tiny_records"),
        (NODE + "accepting", "ACCEPTS_PER_TURN", HOSTILE + "test_floods.py::test_a_flood_is"),
        ("farmer.running.memory", "FULL_AFTER", MEMORY + "test_a_growing_farmer"),
    ],
    "What lies in memory": [
        (NODE + "arrival", "FIRST_BYTES_MAX", ARRIVAL + "test_no_more_is_kept"),
        (RECORD, "SLICE_BYTES", RECORDS + "test_large_reads_reach_openssl"),
        (NODE + "arrival", "UNSENT_BYTES", HOSTILE + "test_slow.py::test_the_kernel_keeps_little"),
        (NODE + "held", "HELD_BYTES_MAX", HELD + "test_who_is_slow_and_holds_some_goes"),
        (NODE + "held", "NOTICED_BYTES", HELD + "test_who_is_slow_and_holds_some_goes"),
        (NODE + "held", "STEP_BYTES", HOSTILE + "test_slow.py::test_who_never_reads"),
        (NODE + "held", "CROWDED_PART", HELD + "test_steps_are_smaller_when_much_is_held"),
        (NODE + "inbox", "BLOCK_READ_BYTES", HELD + "test_a_fast_transfer_is_read_by_steps"),
        (NODE + "held", "FEW_TRANSFERS", HELD + "test_few_transfers_read_a_step_at_once"),
        (NODE + "held", "STEP_BYTES_MIN", HELD + "test_steps_are_smaller_when_much_is_held"),
        (WIRE, "SMALL_BYTES_IN_FLIGHT_MAX", "tests/node/test_storing.py::test_small_stores_queue"),
        (NODE + "farm", "WHOLE_BYTES_IN_FLIGHT_MAX", HELD + "test_whole_stores_queue"),
        (NODE + "farm", "PROOF_BYTES_IN_FLIGHT_MAX", HOSTILE + "test_slow.py::test_proofs_that"),
        ("farmer.running.memory", "HEAPS", MEMORY + "test_threads_share_two_heaps"),
    ],
    "Frames and requests": [
        (WIRE, "CONTROL_BYTES_MAX", "tests/protocol/test_frames.py::test_a_frame_may_be"),
        (WIRE, "HELLO_BYTES_MAX", "tests/protocol/test_connection.py::test_a_first_frame_longer"),
        (WIRE, "DATA_BYTES_MAX", "tests/protocol/test_frames.py::test_a_frame_may_be"),
        (WIRE, "TINY_DATA_BYTES", "tests/protocol/test_frames.py::test_tiny_frames_of_data"),
        (WIRE, "TINY_FRAMES_MAX", "tests/protocol/test_frames.py::test_tiny_frames_of_data"),
        (NODE + "inbox", "READ_AHEAD_BYTES", HOSTILE + "test_slow.py::test_who_never_reads"),
        (NODE + "inbox", "STRANGER_AHEAD_BYTES", HOSTILE + "test_slow.py::test_endless_requests"),
        (NODE + "inbox", "FIRST_AHEAD_BYTES", HELD + "test_little_is_read_before_hello"),
        (WIRE, "TEXT_BYTES_MAX", "tests/protocol/test_messages.py::test_forbidden_values"),
        (WIRE, "LIST_ENTRIES_MAX", HOSTILE + "test_space.py::test_a_list_is_never_longer"),
        (WIRE, "AUDIT_ENTRIES_MAX", "tests/protocol/test_messages.py::test_the_largest_messages"),
    ],
    "Pace, and places that are shared": [
        (WIRE, "RATE_BYTES_PER_S_MIN", HOSTILE + "test_slow.py::test_a_store_byte_by_byte"),
        (WIRE, "RATE_GRACE_S", HOSTILE + "test_slow.py::test_a_store_byte_by_byte"),
        (WIRE, "DISCARD_S", HOSTILE + "test_slow.py::test_what_follows_a_refusal"),
        (NODE + "gate", "SHARES", "tests/node/test_limits.py::test_who_holds_a_share_waits"),
        (WIRE, "HURRIED_S", "tests/node/test_storing.py::test_who_holds_memory_that"),
        (WIRE, "HURRIED_BYTES_PER_S_MIN", "tests/node/test_deadlines.py::test_nor_dribble"),
        (WIRE, "TURN_S", "tests/node/test_storing.py::test_a_turn_that_does_not_come"),
        (NODE + "proving", "LEAVES_AT_ONCE", "tests/node/test_auditing.py::test_a_proof_larger"),
        (NODE + "retrieving", "PROVED_AT_ONCE_BYTES", RANGES + "test_a_proof_of_a_large_shard"),
        (NODE + "farm", "FULL_AUDITS_MAX", "tests/node/test_auditing.py::test_only_two_full"),
        (NODE + "farm", "STRANGERS_MAX", "tests/node/test_asking.py::test_few_of_their_requests"),
        (NODE + "handlers", "INVITES_REFUSED_MAX", "tests/node/test_asking.py::test_who_tries"),
        (NODE + "farm", "RESUMES_MAX", "tests/node/test_storing.py::test_only_two_stores_are"),
        (WIRE, "AUDIT_BUDGET_BYTES_MIN", HOSTILE + "test_audits.py::test_a_day_of_audits"),
        (WIRE, "AUDIT_BUDGET_STORED_FACTOR", "tests/node/test_limits.py::test_a_gibibyte_a_day"),
        (NODE + "farm", "PARTS_BUDGET_BYTES_MIN", RANGES + "test_who_asks_for_single_bytes"),
        (NODE + "farm", "PARTS_BUDGET_STORED_FACTOR", RANGES + "test_who_asks_for_single_bytes"),
        (NODE + "retrieving", "FREE_PART", RANGES + "test_a_player_that_asks_by_blocks"),
        (NODE + "budget", "RENTERS_MAX", "tests/node/test_limits.py::test_it_remembers_only"),
    ],
    "Space": [
        (WIRE, "UPLOADS_PER_RENTER_MAX", HOSTILE + "test_space.py::test_half_open_stores"),
        ("farmer.storage.staging", "LEASE_MS", "tests/storage/test_engine.py::test_going_on"),
        (WIRE, "SHARDS_PER_CONTRACT_MAX", "tests/storage/test_engine.py::test_a_contract_has_so"),
        ("farmer.model.shard", "SHARD_BYTES_MAX", LIES + "test_lies.py::test_a_shard_larger"),
        (NODE + "storing", "SMALL_BYTES_MAX", "tests/node/test_storing.py::test_a_lost_small"),
    ],
    "The owner's page": [
        ("farmer.monitor.page", "CONNECTIONS_MAX", SHOWN + "test_of_too_many_connections"),
        ("farmer.monitor.page", "IDLE_S", SHOWN + "test_an_idle_connection"),
        ("farmer.monitor.page", "AGE_S", HOSTILE + "test_page.py::test_a_byte_now_and_then"),
        ("farmer.running.listening", "PAGE_ACCEPTS_PER_TURN", SMALL + "test_the_page_takes_one"),
        ("farmer.monitor.page", "READ_BYTES", HOSTILE + "test_page.py::test_a_long_request_is"),
        ("farmer.monitor.page", "KEPT_S", SHOWN + "test_metrics_are_made_a_few_times"),
        ("farmer.monitor.page", "BODY_BYTES_MAX", SHOWN + "test_a_large_body_ends"),
    ],
    "The renter, against a hostile farmer": [
        (WIRE, "HANDSHAKE_S", LIES + "test_lies.py::test_a_farmer_that_never_greets"),
        (WIRE, "ANSWER_S", LIES + "test_lies.py::test_an_answer_byte_by_byte"),
        ("farmer.model.addresses", "ADDRESSES_MAX", LIES + "test_dial.py::test_a_farmer_has_no"),
        (CLIENT, "DIAL_S", LIES + "test_dial.py::test_all_addresses_together"),
        (CLIENT, "HASHED_BYTES_PER_S_MIN", LIES + "test_farmer.py::test_a_farmer_has_the_time"),
        (CLIENT, "READ_AHEAD_BYTES", LIES + "test_lies.py::test_what_comes_unasked"),
        (CLIENT, "LISTED_MAX", LIES + "test_lies.py::test_a_list_of_invented_ids"),
        (CLIENT, "UNKNOWN_SHOWN_MAX", "tests/e2e/test_client_tls.py::test_a_list_of_shards"),
        (CLIENT, "SMALL_PAGES_MAX", LIES + "test_lies.py::test_a_list_of_tiny_pages"),
        (CLIENT, "LISTED_PER_S_MIN", LIES + "test_lies.py::test_a_list_whose_pages_come"),
        (CLIENT, "SESSIONS_MAX", LIES + "test_hostile.py::test_no_more_connections"),
        (CLIENT, "RETRY_DELAYS_S", LIES + "test_hostile.py::test_attempts_are_bounded"),
        (CLIENT, "SILENCES_MAX", LIES + "test_hostile.py::test_who_greets_and_then_is_silent"),
        (CLIENT, "RETRY_PROGRESS_BYTES", LIES + "test_hostile.py::test_a_store_goes_on"),
        (CLIENT, "BUSY_S", LIES + "test_hostile.py::test_a_shard_that_stays_busy"),
        (CLIENT, "GIVE_UP_S", LIES + "test_hostile.py::test_the_cause_is_named_whatever"),
        (CLIENT, "BUSY_DELAYS_MS", LIES + "test_hostile.py::test_a_busy_shard"),
    ],
}


@cache
def reasons(module: str) -> dict[str, str]:
    """Return each constant's docstring; one that has none shares that of the next."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    found: dict[str, str] = {}
    waiting: list[str] = []
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            waiting.append(node.target.id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = " ".join(str(node.value.value).split())
            found.update(dict.fromkeys(waiting, text))
            waiting = []
        else:
            waiting = []
    return found


@cache
def tests_of(path: str) -> tuple[str, ...]:
    """Return the names of all tests in a file."""
    tree = ast.parse((ROOT / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return tuple(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def test_named(where: str) -> str:
    """Return the one test that begins like this; raises `LookupError` if there is none."""
    path, _, start = where.partition("::")
    names = [name for name in tests_of(path) if name.startswith(start)]
    if len(names) != 1:
        raise LookupError(f"{where}: {names}")
    return f"{path}::{names[0]}"


test_named.__test__ = False  # type: ignore[attr-defined]


def shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(shown(one) for one in value)
    if isinstance(value, float) and not value.is_integer():
        return str(value)
    assert isinstance(value, int | float), value
    return f"{int(value):,}".replace(",", " ")


def table() -> str:
    """Return all groups."""
    parts = []
    for title, rows in GROUPS.items():
        lines = [f"### {title}", "", "| limit | value | reason | test |", "|---|---|---|---|"]
        for module, name, where in rows:
            value = shown(getattr(importlib.import_module(module), name))
            file, _, test = test_named(where).partition("::")
            label = f"`{module.removeprefix('farmer.')}` `{name}`"
            lines.append(f"| {label} | {value} | {reasons(module)[name]} | `{file}` `{test}` |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def with_table(page: str) -> str:
    """Return the page with the table of now."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{table()}{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
