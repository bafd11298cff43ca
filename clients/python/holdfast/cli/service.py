"""How commands reach the service, and read all pages of a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from holdfast.cli.failing import exit_code, note
from holdfast.cli.screen import progress

if TYPE_CHECKING:
    from holdfast.client import Client

# A person is waiting: only one more attempt, soon.
RETRIES = 1
PATIENCE_SECONDS = 5.0
# Kept writes are sent before the command, but the command does not wait for them for longer.
SEND_SECONDS = 2.0
FARTHEST_POSITION = 1 << 53


@contextmanager
def connected(
    as_json: bool = False,
    *,
    lenient: bool = False,
    retries: int = RETRIES,
    patience: float = PATIENCE_SECONDS,
) -> Iterator[Client]:
    """A client whose errors are printed and end the command with their exit code.

    Writes that other processes of the user have kept are sent first. Otherwise finished work whose
    report is not sent yet would be shown as unfinished, and could be taken over.
    """
    from holdfast.client import Client

    with (
        exit_code(as_json),
        Client(lenient=lenient, retries=retries, patience=patience) as client,
    ):
        told = _send_kept(client)
        if told and not as_json:
            note(told)
        elsewhere = _elsewhere(client)
        if elsewhere and not as_json:
            note(elsewhere)
        yield client


def _elsewhere(client: Client) -> str | None:
    """A line about writes for another address or API key, which this client never sends."""
    from holdfast.spool import NO_KEY

    spool = client.spool
    waits = [
        (f"for {other.address}", other.address, other.writes) for other in spool.other_addresses()
    ]
    for other in spool.other_keys():
        whom = f"for the API key {other.key_id}" if other.key_id != NO_KEY else "for no API key"
        waits.append((whom, other.key_id, other.writes))
    told = [
        f"{_counted(writes)} {'waits' if writes == 1 else 'wait'} {whom}"
        f" (`holdfast doctor --adopt {name}` sends {'it' if writes == 1 else 'them'} here)"
        for whom, name, writes in waits
    ]
    return "; ".join(told) or None


def _send_kept(client: Client) -> str | None:
    """Send the kept writes; a line about what was sent, or why some are still kept."""
    if not client.spool.has_any():
        return None
    if client.delivery.flush(SEND_SECONDS, patient=False):
        sent = client.delivery.sent
        return f"sent {_counted(sent)} that had been kept for the service" if sent else None
    error = client.outage.error
    why = error.message if error else "sending them all takes longer than a command waits"
    return f"{_counted(client.spool.stats().kept)} still not sent: {why}"


def _counted(writes: int) -> str:
    return "1 write" if writes == 1 else f"{writes} writes"


def gathered(
    ask: Callable[..., Any], plural: str, *, page: int, most: int | None = None, **criteria: Any
) -> dict[str, Any]:
    """All pages of a list as one, in the list's own shape; not more than ``most`` items.

    ``page`` is the size of a page. Each page starts where the one before ended, even if items are
    added or removed in between.
    """
    first: Mapping[str, Any] = ask(limit=min(page, most or page), **criteria)
    items = [*first[plural]]
    cursor = first.get("next_cursor")
    wanted = min(first["total_count"], most or first["total_count"])
    if cursor and len(items) < wanted:
        with progress(plural.replace("_", " ")) as advance:
            while cursor and (most is None or len(items) < most):
                advance(len(items), max(wanted, len(items)))
                size = page if most is None else min(page, most - len(items))
                found = ask(limit=size, cursor=cursor, **criteria)
                items += found[plural]
                cursor = found.get("next_cursor")
    total = max(first["total_count"], len(items))
    whole = {plural: items, "limit": len(items), "offset": 0, "has_more": cursor is not None}
    return {**first, **whole, "total_count": total, "next_cursor": cursor}


def head(client: Client) -> int:
    """The position of the newest event.

    It is found by binary search, since the feed only tells whether any event follows a position.
    """
    low, high = 0, 1
    while high < FARTHEST_POSITION and (found := client.history.after(high, limit=1))["events"]:
        low, high = found["next_position"], high * 8
    while low < high:
        middle = (low + high) // 2
        found = client.history.after(middle, limit=1)
        if found["events"]:
            low = found["next_position"]
        else:
            high = middle
    return low
