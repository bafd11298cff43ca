"""``holdfast next``, ``claim``, ``release``, ``complete`` and ``add`` (S3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli import naming
from holdfast.cli.options import AsJson, Instance, Session
from holdfast.cli.screen import err, out, print_json
from holdfast.cli.service import connected, gathered
from holdfast.errors import Conflict, InvalidInput, NotFound

if TYPE_CHECKING:
    from holdfast.client import Client

ITEMS_AT_ONCE = 200
SHOWN_ITEMS = 50

Item = Annotated[str, typer.Argument(metavar="ITEM", help="The work item's id.")]
Track = Annotated[str | None, typer.Option(metavar="NAME", help="Only items of this track.")]
Fence = Annotated[
    int | None,
    typer.Option(metavar="N", help="Only if the claim still has this fence (fencing token)."),
]


def next_items(
    track: Track = None,
    every: Annotated[
        bool, typer.Option("--all", help="Include completed and cancelled items.")
    ] = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Show at most N items.")] = (
        SHOWN_ITEMS
    ),
    as_json: AsJson = False,
) -> None:
    """Show the queue: which work items are ready, which are claimed and by whom, which wait."""
    with connected(as_json) as client:
        found = _queue(client, track, every, limit)
    if as_json:
        return print_json(found)
    from holdfast.cli.show import queue

    return queue.queue(out(), found["work_items"], found["total_count"])


def claim(
    item: Annotated[str | None, typer.Argument(metavar="ITEM", help="The work item's id.")] = None,
    best: Annotated[
        bool,
        typer.Option(
            "--next", help="Claim the first ready item of the queue instead of a named one."
        ),
    ] = False,
    track: Track = None,
    session: Session = None,
    instance: Instance = None,
    takeover: Annotated[
        bool,
        typer.Option(
            "--takeover", help="Also claim an item whose holder has been silent past the threshold."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Claim a work item for a session or an instance.

    If another holds it, the command says who, and ends with exit code 3. With --next it ends with
    exit code 4 if no item is ready.
    """
    from holdfast.cli.show import queue

    with connected(as_json) as client:
        _require_one(item, best, track)
        holder = naming.holder_of(client, session, instance)
        try:
            granted = (
                client.work_items.claim_next(**holder._asdict(), track=track, takeover=takeover)
                if item is None
                else client.claims.take(item, **holder._asdict(), takeover=takeover)
            )
        except Conflict as refusal:
            if refusal.code != "claim_held" or as_json:
                raise
            queue.rejected(err(), refusal)
            raise typer.Exit(refusal.exit_code) from None
        if granted is None:
            raise NotFound("Nothing is ready to be claimed.", code="nothing_to_claim")
    if as_json:
        return print_json(granted)
    return queue.claimed(out(), granted, holder.in_words)


def release(
    item: Item,
    session: Session = None,
    instance: Instance = None,
    fence: Fence = None,
    as_json: AsJson = False,
) -> None:
    """Release a work item, so that others can claim it."""
    with connected(as_json) as client:
        holder = naming.holder_of(client, session, instance)
        with _telling_holder("released", as_json):
            freed = client.claims.release(item, **holder._asdict(), fence=fence)
    _tell(freed, f"{freed['item_id']} is free", as_json)


def complete(
    item: Item,
    session: Session = None,
    instance: Instance = None,
    fence: Fence = None,
    as_json: AsJson = False,
) -> None:
    """Complete a work item. Items that wait for it may become ready."""
    with connected(as_json) as client:
        holder = naming.holder_of(client, session, instance)
        with _telling_holder("completed", as_json):
            done = client.work_items.complete(item, **holder._asdict(), fence=fence)
    _tell(done, f"{done['item_id']} is completed", as_json)
    if not as_json and done.get("open_dependencies"):
        from holdfast.cli.failing import note

        note(f"it depends on {', '.join(done['open_dependencies'])}, not completed yet")


def add(
    item: Item,
    title: Annotated[str | None, typer.Option(help="A short title.")] = None,
    track: Annotated[str | None, typer.Option(metavar="NAME", help="Its track.")] = None,
    priority: Annotated[
        int | None,
        typer.Option(metavar="N", help="Items with a higher priority come first. Default: 0."),
    ] = None,
    depends_on: Annotated[
        list[str] | None,
        typer.Option(metavar="ITEM", help="An item that must be completed first. Can be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a work item to the queue, or change one that is there.

    Options that are not given leave the item's values as they are.
    """
    with connected(as_json) as client:
        listed = client.work_items.put(
            item, title=title, track=track, priority=priority, depends_on=depends_on or None
        )
    _tell(listed, f"{listed['item_id']} is in the queue", as_json)


@contextmanager
def _telling_holder(what: str, as_json: bool) -> Iterator[None]:
    """If the block is refused because another holds the item, show that holder and end."""
    try:
        yield
    except Conflict as refusal:
        if refusal.code != "not_holder" or not refusal.details.get("claimed_by") or as_json:
            raise
        from holdfast.cli.show import queue

        queue.not_holder(err(), refusal, what)
        raise typer.Exit(refusal.exit_code) from None


def _queue(client: Client, track: str | None, every: bool, limit: int) -> dict[str, Any]:
    """The claimed and open work items in the order of the queue; all if ``every``."""
    ask = client.work_items.list
    if every:
        return gathered(ask, "work_items", page=ITEMS_AT_ONCE, most=limit, track=track)
    held, free = (
        gathered(ask, "work_items", page=ITEMS_AT_ONCE, most=limit, track=track, status=status)
        for status in ("claimed", "open")
    )
    items = [*held["work_items"], *free["work_items"]]
    items.sort(key=lambda item: (-item["priority"], item["created_at"]))
    total = held["total_count"] + free["total_count"]
    shown = items[:limit]
    return {
        "work_items": shown,
        "total_count": total,
        "limit": limit,
        "offset": 0,
        "has_more": len(shown) < total,
        "next_cursor": None,
    }


def _require_one(item: str | None, best: bool, track: str | None) -> None:
    if (item is None) is not best:
        raise InvalidInput("Give either an ITEM or --next.")
    if item is not None and track is not None:
        raise InvalidInput("--track can only be used with --next.")


def _tell(reply: Any, sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(reply)
    else:
        from holdfast.cli.text import safe

        out().print(f"✅ {safe(sentence)}", soft_wrap=True)
