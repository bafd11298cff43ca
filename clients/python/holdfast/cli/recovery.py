"""``holdfast resume`` and ``recover``: continue the work that another left unfinished."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli import naming
from holdfast.cli.options import AsJson
from holdfast.cli.screen import out, print_json
from holdfast.cli.service import connected

# At most so many work items are named in the output.
ITEMS = 20


def resume(
    instance: Annotated[
        str, typer.Argument(metavar="INSTANCE", help="Its id, or a part of it that is unique.")
    ],
    start: Annotated[
        bool,
        typer.Option(
            "--start", help="Register a successor, which takes over all that the instance holds."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what to do next to resume an instance's work, and why.

    The numbers in brackets are those of events in `holdfast events INSTANCE`.
    """
    from holdfast.whereabouts import whereabouts

    with connected(as_json) as client:
        instance_id = naming.instance_of(client, instance)
        found = (
            client.instances.resume(instance_id, **whereabouts())
            if start
            else client.instances.resume_state(instance_id)
        )
    if as_json:
        return print_json(found)
    from holdfast.cli.show import recovery as show

    if start:
        return show.started(out(), found)
    show.brief(out(), found)
    if not found["successor"]:
        out().print(f"\n`holdfast resume {instance_id} --start` registers its successor.")
    return None


def recover(
    session: Annotated[
        str, typer.Argument(metavar="SESSION", help="Its id, or a part of it that is unique.")
    ],
    machine: Annotated[
        str,
        typer.Option("--onto", metavar="MACHINE", help="The machine on which the work continues."),
    ],
    slot: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The docker slot. Default: no slot or, if another session is there, a free slot.",
        ),
    ] = None,
    only_pending: Annotated[
        bool, typer.Option("--only-pending", help="Do not carry over failed and interrupted tasks.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Continue the work of a stalled or failed session in a new session, its successor.

    The command opens the successor and prints how to start an agent in it. If the session has a
    successor already, the command shows that one.
    """
    with connected(as_json) as client:
        original = naming.session_of(client, session)
        successor = client.sessions.recover(
            original,
            machine,
            docker_slot=slot,
            any_slot=slot is None,
            reset_failed_tasks=not only_pending,
        )
        tasks = client.tasks.list(session_id=successor["session_id"], limit=1)["total_count"]
        claims = client.claims.list(session_id=successor["session_id"], limit=ITEMS)["claims"]
    if as_json:
        return print_json(successor)
    from holdfast.cli.show import recovery as show

    items = [claim["item_id"] for claim in claims]
    return show.recovered(out(), original, successor, tasks, items)
