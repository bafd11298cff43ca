"""``holdfast resume`` and ``recover``: carrying on what another left."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli import naming
from holdfast.cli.options import AsJson
from holdfast.cli.screen import out, print_json
from holdfast.cli.service import connected

# As many as are named.
ITEMS = 20


def resume(
    instance: Annotated[
        str, typer.Argument(metavar="INSTANCE", help="Its id, or a part that fits only one.")
    ],
    start: Annotated[
        bool,
        typer.Option("--start", help="Register the successor, which gets all that it held."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what to do next with an instance's work, and why.

    Numbers in brackets are events: see `holdfast events INSTANCE`.
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
        str, typer.Argument(metavar="SESSION", help="Its id, or a part that fits only one.")
    ],
    machine: Annotated[
        str, typer.Option("--onto", metavar="MACHINE", help="The machine to carry on on.")
    ],
    slot: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Its docker slot; default: one that is free, if the place without is taken.",
        ),
    ] = None,
    only_pending: Annotated[
        bool, typer.Option("--only-pending", help="Leave failed and interrupted tasks behind.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Carry a stalled or failed session's work on elsewhere.

    It opens the successor, and tells by which command to go on. Asked again, it tells of the same.
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
