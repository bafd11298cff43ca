"""Prints the queue and its claims, as in S3 FR-2 and FR-6."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from holdfast.cli.show.words import colour, countdown, length, plural
from holdfast.cli.text import safe, short
from holdfast.errors import Conflict
from holdfast.replies import wrong
from holdfast.types import Claim, Owner, WorkItem

# `CLAIMED ` and what stands in its place, and the second line under it.
INDENT = 8
NO_TRACK = "No track"
STYLES = {
    "CLAIMED": "yellow",
    "READY": "bold green",
    "BLOCKED": "dim",
    "DONE": "dim",
    # Cancelled, in a word that fits.
    "DROPPED": "dim",
}


def queue(console: Console, items: Sequence[WorkItem], total: int) -> None:
    """Print the queue, a block for each track."""
    if not items:
        console.print("The queue is empty. `holdfast add ITEM --title …` adds an item.")
        return
    for track, members in _tracks(items).items():
        console.print(Text(safe(track), "bold"))
        for item in members:
            for line in _item(item, console):
                console.print(line, no_wrap=True, overflow="ignore", crop=False)
        console.print()
    if total > len(items):
        console.print(f"… and {plural(total - len(items), 'more item')}: use --limit to see more.")
    ready = next((item for item in items if _state(item) == "READY"), None)
    if ready is not None:
        console.print(f"Next: {safe(ready['item_id'])}. Claim it with `holdfast claim --next`.")


def claimed(console: Console, claim: Claim, holder: str) -> None:
    """Print a claim that was granted, or that the holder had already."""
    console.print(f"✅ {safe(claim['item_id'])} is claimed by {safe(holder)}")
    if claim.get("title"):
        console.print(f"   Title: {safe(claim['title'])}")
    console.print(f"   Fence: {claim['fence']}")


def rejected(console: Console, error: Conflict) -> None:
    """Print who holds the item (S3 FR-2), and when it can be taken over."""
    owner = error.details
    if wrong(owner, Owner, "details") is not None:
        console.print(f"❌ {safe(error.message)}", soft_wrap=True)
        return
    item_id = safe(owner["item_id"])
    console.print(Text(f"❌ {item_id} is already claimed", "bold"))
    _owned(console, owner)
    left = owner.get("seconds_until_takeover") or 0
    if left > 0 or not owner.get("stale"):
        when = f"possible in {countdown(left)}, if its holder stays silent"
    else:
        when = f"possible now: holdfast claim {item_id} --takeover"
    console.print(f"   Takeover: {when}", soft_wrap=True)


def not_holder(console: Console, error: Conflict, what: str) -> None:
    """Print who holds the item that another tried to release or complete."""
    owner = error.details
    if wrong(owner, Owner, "details") is not None:
        console.print(f"❌ {safe(error.message)}", soft_wrap=True)
        return
    refusal = f"❌ {safe(owner['item_id'])} is not {what}: another holds it"
    console.print(Text(refusal, "bold"), soft_wrap=True)
    _owned(console, owner)


def _owned(console: Console, owner: Mapping[str, Any]) -> None:
    for name, value in _owner(owner):
        console.print(Text.assemble(f"   {name}: ", value), soft_wrap=True)


def _owner(owner: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    age = owner["heartbeat_age_seconds"]
    yield owner["holder_kind"].capitalize(), Text(safe(owner["claimed_by"]))
    yield "Heartbeat", Text(safe(owner["heartbeat_age_human"]), colour(age))
    for name, title in (("hostname", "Hostname"), ("tty", "TTY"), ("codebase", "Codebase")):
        yield title, Text(safe(owner[name])) if owner[name] else Text("unknown", "dim")
    yield "Claimed", Text(f"{length(owner['claim_duration_minutes'] * 60)} ago")


def _tracks(items: Sequence[WorkItem]) -> dict[str, list[WorkItem]]:
    """The items by track; the tracks are in the order of their first items."""
    tracks: dict[str, list[WorkItem]] = {}
    for item in items:
        tracks.setdefault(item["track"] or NO_TRACK, []).append(item)
    return tracks


def _state(item: WorkItem) -> str:
    if item["status"] == "completed":
        return "DONE"
    if item["status"] == "cancelled":
        return "DROPPED"
    if item["status"] == "claimed":
        return "CLAIMED"
    return "BLOCKED" if item["blocked_by"] else "READY"


def _item(item: WorkItem, console: Console) -> Iterator[Text]:
    state = _state(item)
    line = Text.assemble(
        (f"{state:<{INDENT}}", STYLES.get(state, "")), (f"[{safe(item['item_id'])}]", "bold")
    )
    if item["title"]:
        title = Text(f" - {safe(item['title'])}")
        line.append_text(_cut(title, console.width - line.cell_len))
    yield line
    if state == "CLAIMED":
        yield from _under(_holder(item), console)
    if state == "BLOCKED":
        waits = Text(f"Waits for {', '.join(map(safe, item['blocked_by']))}")
        yield from _under(waits, console)


def _under(told: Text, console: Console) -> Iterator[Text]:
    """Print text in as many lines as it needs, each indented like the first."""
    branch = "└─ "
    for line in told.wrap(console, max(console.width - INDENT - len(branch), 8)):
        line.rstrip()
        yield Text(" " * INDENT + branch).append_text(line)
        branch = " " * len(branch)


def _holder(item: WorkItem) -> Text:
    held, age = item["claim_duration_minutes"] or 0, item["heartbeat_age_seconds"]
    told = Text(f"Claimed by {short(item['holder'] or '')} ({length(held * 60)}) ")
    beat = f"heartbeat: {safe(item['heartbeat_age_human'] or 'never')}"
    told.append(f"({beat})", colour(age) if age is not None else "red")
    if item["stale"]:
        told.append(" takeover possible", "red")
    return told


def _cut(text: Text, width: int) -> Text:
    """As much of the text as fits, and three dots for the rest, as in S3."""
    if text.cell_len > width:
        text.truncate(max(width - 3, 4))
        text = Text(text.plain.rstrip() + "...")
    return text
