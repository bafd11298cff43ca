"""``holdfast reopen``, ``cancel``, ``remove``, ``machines`` and ``end``: correct the record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from holdfast.cli import naming
from holdfast.cli.options import AsJson
from holdfast.cli.queue import Item
from holdfast.cli.screen import out, print_json
from holdfast.cli.service import connected, gathered
from holdfast.errors import InvalidInput

if TYPE_CHECKING:
    from holdfast.types import MachineStatus

AT_ONCE = 200
STATUSES = ("online", "offline", "maintenance")


def reopen(
    item: Item,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why it must be done again.")],
    as_json: AsJson = False,
) -> None:
    """Reopen a completed or cancelled work item."""
    with connected(as_json) as client:
        opened = client.work_items.reopen(item, reason)
    _tell(opened, f"{opened['item_id']} is open again", as_json)


def cancel(
    item: Item,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why it will not be done.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a work item. Items that wait for it wait no longer, and its claim ends.

    The holder is told in the reply to its next heartbeat.
    """
    with connected(as_json) as client:
        dropped = client.work_items.cancel(item, reason)
    _tell(dropped, f"{dropped['item_id']} is cancelled", as_json)


def remove(item: Item, as_json: AsJson = False) -> None:
    """Remove a work item that nobody holds. If it is added again, it starts as a new item."""
    with connected(as_json) as client:
        client.work_items.remove(item)
    _tell({"item_id": item, "removed": True}, f"{item} is removed", as_json)


def machines(
    action: Annotated[
        str | None,
        typer.Argument(
            metavar="ACTION",
            help="remove, online, offline or maintenance. Without it the machines are listed.",
        ),
    ] = None,
    machine: Annotated[
        str | None, typer.Argument(metavar="MACHINE", help="The machine's id.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the machines, remove one, or set its status.

    A machine with open sessions cannot be removed. No session can be opened on a machine that is
    offline or in maintenance.
    """
    if action not in (None, "remove", *STATUSES) or (action is None) is not (machine is None):
        raise typer.BadParameter(
            "Use `holdfast machines`, or `holdfast machines ACTION MACHINE` with one of the actions"
            " remove, online, offline and maintenance."
        )
    with connected(as_json) as client:
        if machine is None:
            found = gathered(client.machines.list, "machines", page=AT_ONCE)
        elif action == "remove":
            client.machines.remove(machine)
            told = {"machine_id": machine, "removed": True}
            return _tell(told, f"{machine} is removed", as_json)
        else:
            changed = client.machines.update(machine, status=cast("MachineStatus", action))
            return _tell(changed, f"{machine} is {changed['status']}", as_json)
    if as_json:
        return print_json(found)
    from holdfast.cli.show import machines as show

    return show.listed(out(), found)


def end(
    reference: Annotated[
        str,
        typer.Argument(metavar="SESSION|INSTANCE", help="Its id, or a part of it that is unique."),
    ],
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The reason, which is recorded.")
    ] = None,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Also close all instances below this one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """End a session or an instance in which nobody works any more.

    All that it holds becomes free. A session is marked failed, and can still be recovered. Sessions
    and instances whose place or work items others have taken end by themselves after a while.
    """
    with connected(as_json) as client:
        category, _, an_id = naming.stream_of(client, reference).partition("-")
        if category == "session" and not cascade:
            ended: Any = client.sessions.end(an_id, reason=reason)
        elif category == "instance":
            ended = client.instances.close(an_id, cascade=cascade, reason=reason)
        elif category == "session":
            raise InvalidInput("--cascade can only be used with an instance.")
        else:
            raise InvalidInput(f"{reference} is neither a session nor an instance.")
    _tell(ended, f"{category} {an_id} is over", as_json)


def _tell(reply: Any, sentence: str, as_json: bool) -> None:
    if as_json:
        return print_json(reply)
    from holdfast.cli.text import safe

    return out().print(f"✅ {safe(sentence)}", soft_wrap=True)
