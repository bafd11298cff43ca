"""``holdfast run``"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast import names
from holdfast.cli import naming
from holdfast.cli.failing import note, told
from holdfast.cli.service import connected
from holdfast.cli.streams import complain
from holdfast.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.restarts import RestartPolicy

# Before there is a command a service that is just being restarted is waited for.
RETRIES = 3
PATIENCE_SECONDS = 10.0
PLACE_TAKEN = frozenset({"session_exists", "slot_taken"})

Command = Annotated[list[str], typer.Argument(metavar="CMD", help="The command to run.")]
Project = Annotated[
    str | None,
    typer.Option("--project", metavar="P", help="The project; default: the working copy's folder."),
]
Machine = Annotated[
    str | None,
    typer.Option("--machine", metavar="M", help="The machine; default: this one's host name."),
]
Slot = Annotated[
    int | None,
    typer.Option(
        "--slot",
        metavar="N",
        min=0,
        help="The docker slot, which has room for one session; default: the place without a slot"
        " or, if another agent of the project works there, the next free slot.",
    ),
]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="Take the place of a session that is there; it fails."),
]
Session = Annotated[
    str | None,
    typer.Option(
        "--session",
        metavar="ID",
        help="Carry on this session, with all that it holds, instead of opening one.",
    ),
]
Instance = Annotated[
    str | None,
    typer.Option(
        "--instance", metavar="ID", help="Carry on this instance instead of registering one."
    ),
]
InstanceType = Annotated[
    str | None,
    typer.Option(
        "--instance-type", metavar="T", help="PS (if not given), MS, or what the service knows."
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="A name for people.")]
Item = Annotated[
    str | None,
    typer.Option(
        "--claim",
        metavar="ITEM",
        help="Claim this work item first; without the claim nothing is started.",
    ),
]
Takeover = Annotated[
    bool,
    typer.Option(
        "--takeover",
        help="Claim it also from a holder that went silent; with --session or --instance: carry"
        " it on although it was heard of a moment ago, because nothing runs there any more.",
    ),
]
Complete = Annotated[
    bool, typer.Option("--complete", help="Complete the item if the command exits with 0.")
]
Restart = Annotated[
    str,
    typer.Option(
        "--restart",
        metavar="RULE",
        help="never, on-failure[:N], always[:N]: at most N restarts in a row.",
    ),
]
Backoff = Annotated[
    float,
    typer.Option(
        "--backoff",
        metavar="SECONDS",
        min=0.0,
        help="The pause before a restart; twice as long each time, up to a minute.",
    ),
]
StopIfFenced = Annotated[
    bool,
    typer.Option(
        "--stop-if-fenced", help="Stop the command if its claim or session is taken over."
    ),
]
Grace = Annotated[
    float,
    typer.Option(
        "--grace", metavar="SECONDS", min=0.0, help="From the request to stop to the kill."
    ),
]
Interval = Annotated[
    float,
    typer.Option("--interval", metavar="SECONDS", min=0.05, help="Between two heartbeats."),
]

Argv = Annotated[
    bool,
    typer.Option(
        "--argv/--no-argv",
        help="Record the command line, masking what looks like a secret (a best effort); or only"
        " the program's name, which is certain.",
    ),
]


def run(
    command: Command,
    session: Session = None,
    instance: Instance = None,
    project: Project = None,
    machine: Machine = None,
    slot: Slot = None,
    replace: Replace = False,
    instance_type: InstanceType = None,
    name: Name = None,
    claim: Item = None,
    takeover: Takeover = False,
    complete: Complete = False,
    restart: Restart = "never",
    backoff: Backoff = 5.0,
    stop_if_fenced: StopIfFenced = False,
    grace: Grace = 8.0,
    interval: Interval = 30.0,
    argv: Argv = True,
) -> None:
    """Run a command under supervision, whatever it is.

    It is registered as an instance with a session of its own, kept alive by heartbeats, started
    again as told, and its end is recorded. Its exit code is passed through, 128 + the signal's
    number if one ended it. The work goes on if the service is away, and is recorded later.

    All that it started ends with it. A run that was interrupted (a signal, Ctrl-C, a closed
    terminal) has failed, whatever the exit code, and completes nothing.

    With --session or --instance it carries on what is there: the successor that `holdfast recover`
    or `holdfast resume --start` made, or what a supervisor that was killed left behind.

    Its command line is recorded, with what looks like a secret masked. That is a best effort: only
    with --no-argv, which records the program's name alone, is it certain that none is recorded.
    Secrets belong into the environment, which is not recorded. It finds its
    ids in HOLDFAST_SESSION_ID and HOLDFAST_INSTANCE_ID, which are not carried on by themselves: a
    run within a run is one of its own.
    """
    if os.name != "posix":
        raise typer.BadParameter("holdfast run needs Linux, macOS or another Unix.")
    policy = _policy(restart, backoff)
    if os.getpid() == 1:
        # Nothing ends the first process of a container but what it listens to.
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    # What a person has to know of heartbeats the supervisor says itself.
    logging.getLogger("holdfast.heartbeat").setLevel(logging.ERROR)
    with connected(lenient=True, retries=RETRIES, patience=PATIENCE_SECONDS) as client:
        from holdfast.git import WorkingCopy
        from holdfast.run_record import Run
        from holdfast.supervisor import Supervisor

        if session is not None:
            place = {"--project": project, "--machine": machine, "--slot": slot}
            _refuse("--session", "which has its place", {**place, "--replace": replace or None})
        if instance is not None:
            new = {"--instance-type": instance_type, "--name": name}
            _refuse("--instance", "which has its type and name", new)
        if session is not None or instance is not None:
            session, instance = _meant(client, session, instance)
        elif project is None:
            project = WorkingCopy().name()
        else:
            project = names.given(project, "--project")
        plan = Run(
            command=command,
            project=project,
            session_id=session,
            instance_id=instance,
            machine=machine and names.given(machine, "--machine"),
            slot=slot,
            replace=replace,
            instance_type=instance_type or "PS",
            name=name,
            item=claim and names.given(claim, "--claim"),
            takeover=takeover,
            complete=complete,
            restart=policy,
            stop_if_fenced=stop_if_fenced,
            grace=grace,
            interval=interval,
            argv=argv,
        )
        try:
            code = Supervisor(client, plan, note).run()
        except Conflict as refusal:
            _tell_refusal(refusal)
            code = refusal.exit_code
    raise typer.Exit(code)


def _policy(rule: str, backoff: float) -> RestartPolicy:
    from holdfast.restarts import RestartPolicy

    try:
        return RestartPolicy.parse(rule, backoff)
    except ValueError as e:
        raise typer.BadParameter(str(e), param_hint="--restart") from None


def _refuse(option: str, which: str, others: Mapping[str, object]) -> None:
    for other, value in others.items():
        if value is not None:
            raise InvalidInput(f"{other} does not go with {option}, {which} already.")


def _meant(
    client: Client, session: str | None, instance: str | None
) -> tuple[str | None, str | None]:
    """Their whole ids. Nothing is kept for later if the service cannot be asked."""
    from holdfast.run_record import strictly

    with strictly(client):
        return (
            session and naming.session_of(client, session),
            instance and naming.instance_of(client, instance),
        )


def _tell_refusal(refusal: Conflict) -> None:
    if refusal.code == "claim_held":
        from holdfast.cli.screen import err
        from holdfast.cli.show import queue

        queue.rejected(err(), refusal)
        if refusal.details.get("in_this_place"):
            note("it works in this very place: --replace takes its place and what it holds")
        return None
    complain(told(refusal))
    if refusal.code == "supervised":
        note("if nothing runs there any more: --takeover")
    if refusal.code == "machine_unavailable" and refusal.details.get("machine_id"):
        note(f"`holdfast machines online {refusal.details['machine_id']}` brings it back")
    if refusal.code in PLACE_TAKEN:
        note("--slot N names another place, --replace takes that one's")
    return None
