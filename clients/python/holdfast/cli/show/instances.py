"""Prints instances as a list or as trees."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text
from rich.tree import Tree

from holdfast.cli.show.table import Column, table
from holdfast.cli.show.words import heartbeat, percent, plural, status, word
from holdfast.cli.text import safe
from holdfast.lost_work import WITHOUT_SESSION

Json = Mapping[str, Any]

COLUMNS = (
    Column("INSTANCE", least=16, cut="middle"),
    Column("PROJECT", 4, least=8),
    Column("NAME", 5, least=8),
    Column("HEALTH", 8, least=8),
    Column("HEARTBEAT", least=9),
    Column("CTX", 7, justify="right"),
    Column("EPIC", 4, least=7),
    Column("DOING", 6, least=13),
    Column("HOST", 3, least=12),
)
# Whom it waits for is whoever reads this.
ACTIVITIES = {"waiting_for_human": "waits for you"}
_HASHED = re.compile(r"-[0-9a-f]{8}$")
WORST_FIRST = ("stale", "degraded", "healthy", "closed")


def rows(instances: Sequence[Json], width: int) -> RenderableType:
    """A table of instances, the least healthy first, otherwise in the order given."""
    worst = sorted(instances, key=lambda instance: _worst(instance["health"]))
    return table(COLUMNS, [_row(instance) for instance in worst], width)


def _worst(health: str) -> int:
    # A newer service may know more kinds.
    return WORST_FIRST.index(health) if health in WORST_FIRST else len(WORST_FIRST)


def listed(console: Console, found: Json) -> None:
    """Print the list and its counts."""
    if not found["instances"]:
        console.print("No instance is registered.")
        return
    console.print(table(COLUMNS, [_row(one) for one in found["instances"]], console.width))
    console.print()
    active, stale = found["active_count"], found["stale_count"]
    closed = found["total_count"] - active - stale
    counts = [f"{active} active", f"{stale} stale"] + ([f"{closed} closed"] if closed else [])
    console.print(f"{plural(found['total_count'], 'instance')}: {', '.join(counts)}")


def forest(console: Console, found: Json) -> None:
    """Print the instances as trees, each below its parent."""
    if not found["roots"]:
        console.print("No instance is registered.")
    for root in found["roots"]:
        console.print(_grown(Tree(_leaf(root), guide_style="dim"), root))


def _grown(tree: Tree, instance: Json) -> Tree:
    for child in instance["children"]:
        _grown(tree.add(_leaf(child)), child)
    return tree


def _leaf(instance: Json) -> Text:
    parts = [Text(safe(instance["instance_id"]), "bold")]
    if instance["name"]:
        parts.append(word(instance["name"]))
    parts += [Text(safe(instance["scope"]), "dim"), status(instance["health"])]
    parts.append(heartbeat(instance["age_seconds"], instance.get("unknown_since")))
    if instance["activity"] == "waiting_for_human":
        parts.append(_doing(instance))
    if instance.get("orphan"):
        parts.append(Text(f"orphan of {safe(instance['parent_id'])}", "yellow"))
    return Text("  ").join(parts)


def _row(instance: Json) -> tuple[Text, ...]:
    return (
        word(instance["instance_id"]),
        word(_project(instance)),
        word(instance["name"], "dim"),
        status(instance["health"]),
        heartbeat(instance["age_seconds"], instance.get("unknown_since")),
        percent(instance["context_percent"]),
        word(instance["current_epic"]),
        _doing(instance),
        word(instance["hostname"], "dim"),
    )


def _project(instance: Json) -> str | None:
    """The project's name, for ids that contain only a hash of it."""
    named: str | None = instance.get("project_name")
    hashed = _HASHED.search(instance.get("project") or "")
    return None if hashed is None or named is None or named.endswith(hashed[0]) else named


def _doing(instance: Json) -> Text:
    if WITHOUT_SESSION in instance.get("health_reasons", ()):
        return Text("without session", "red")
    activity = instance["activity"]
    if activity is None:
        return Text()
    told = Text(ACTIVITIES.get(activity, safe(activity)))
    told.stylize({"waiting_for_human": "magenta", "idle": "blue"}.get(activity, ""))
    return told
