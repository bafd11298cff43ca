"""Prints what is needed to resume or recover work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from holdfast.cli.show.attention import SHORT
from holdfast.cli.show.words import heartbeat, plural, status
from holdfast.cli.text import dumped, safe

Json = Mapping[str, Any]


def brief(console: Console, found: Json) -> None:
    """Print an instance's brief: its state, what to do next, and the events that show it."""
    instance = found["instance"]
    line = Text("  ").join(
        [
            Text(safe(instance["instance_id"]), "bold"),
            Text(safe(instance["project_name"] or instance["project"])),
            status(instance["health"]),
            Text("heartbeat ").append_text(
                heartbeat(instance["age_seconds"], instance.get("unknown_since"))
            ),
        ]
    )
    console.print(line, soft_wrap=True)
    if found["stale_warning"]:
        console.print(
            Padding(Text(safe(found["stale_warning"]), "yellow"), (0, 0, 0, 2), expand=False)
        )
    if found["successor"] and found["successor"] != instance["instance_id"]:
        console.print(f"  {safe(found['successor'])} continues the work.", soft_wrap=True)
    console.print()
    suggestions(console, found)
    _facts(console, found)


def suggestions(console: Console, found: Json) -> None:
    """Print what to do next, each step with the numbers of the events that show it."""
    if not found["suggestions"]:
        console.print("It recorded no work that could be resumed.")
        return
    lines = Table.grid(padding=(0, 1))
    for number, suggestion in enumerate(found["suggestions"], 1):
        evidence = ",".join(map(str, suggestion["evidence"]))
        told = Text(safe(suggestion["text"])).append(f" [{evidence}]", "dim")
        lines.add_row(Text(f"{number:>3}."), told)
    console.print(lines)


def started(console: Console, found: Json) -> None:
    """Print that a successor was registered, and how to start it."""
    successor = safe(found["successor"])
    console.print(
        f"✅ {successor} continues the work of {safe(found['predecessor'])}", soft_wrap=True
    )
    console.print(f"   Go on with: holdfast run --instance {successor} -- CMD…", soft_wrap=True)
    if found["stale_warning"]:
        console.print(
            Padding(Text(safe(found["stale_warning"]), "yellow"), (0, 0, 0, 3), expand=False)
        )
    console.print()
    suggestions(console, found)
    _facts(console, found)


def recovered(
    console: Console, original: str, successor: Json, tasks: int, items: Sequence[str]
) -> None:
    """Print that a successor continues a session's work, with these items, and how to start it."""
    session_id = safe(successor["session_id"])
    console.print(f"✅ Session {session_id} continues the work of {safe(original)}", soft_wrap=True)
    console.print(f"   Machine: {safe(successor['machine_id'])}", soft_wrap=True)
    console.print(f"   Project: {safe(successor['project_id'])}", soft_wrap=True)
    console.print(f"   Carried over: {plural(tasks, 'task')}")
    if items:
        console.print(f"   Holds: {', '.join(map(safe, items))}", soft_wrap=True)
    for item in successor.get("lost_items") or []:
        console.print(f"   Taken by another meanwhile: {safe(item['item_id'])}", soft_wrap=True)
    command = f"holdfast run --session {safe(session_id[:SHORT])} -- CMD…"
    console.print(f"   Go on with: {command}", soft_wrap=True)


def _git(git: Json) -> Iterator[str]:
    if git.get("branch"):
        yield f"branch {safe(git['branch'])}"
    if git.get("head"):
        yield f"at {safe(git['head'])}"
    if git.get("dirty_files"):
        yield plural(git["dirty_files"], "changed file")
    if git.get("unpushed_commits"):
        yield f"{plural(git['unpushed_commits'], 'commit')} not pushed"


def _facts(console: Console, found: Json) -> None:
    checkpoint, git = found["checkpoint"], found["git"]
    facts = []
    if checkpoint:
        facts.append(("Checkpoint", f"{safe(checkpoint['label'])} [{checkpoint['sequence_num']}]"))
        facts.append(("State", dumped(checkpoint["state"], indent=None)))
    if git:
        facts.append(("Git", ", ".join(_git(git))))
    if found["held_claims"]:
        held = (f"{safe(c['item_id'])} (fence {c['fence']})" for c in found["held_claims"])
        facts.append(("Holds", ", ".join(held)))
    if len(found["resume_chain"]) > 1:
        facts.append(("Chain", " → ".join(map(safe, found["resume_chain"]))))
    if not facts:
        return
    console.print()
    lines = Table.grid(padding=(0, 2))
    for name, value in facts:
        lines.add_row(Text(f"  {name}", "bold"), Text(value))
    console.print(lines)
