"""``holdfast run``: run a command as a supervised instance with its own session."""

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

# Before the command starts, a service that is just being restarted is waited for.
RETRIES = 3
PATIENCE_SECONDS = 10.0
PLACE_TAKEN = frozenset({"session_exists", "slot_taken"})

Command = Annotated[list[str], typer.Argument(metavar="CMD", help="The command to run.")]
Project = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="P",
        help="The project. Default: the name of the working copy's folder.",
    ),
]
Machine = Annotated[
    str | None,
    typer.Option("--machine", metavar="M", help="The machine. Default: this machine's host name."),
]
Slot = Annotated[
    int | None,
    typer.Option(
        "--slot",
        metavar="N",
        min=0,
        help="The docker slot, which has room for one session. Default: no slot or, if another"
        " agent of the project works there, the next free slot.",
    ),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace", help="Replace the session that is in this place. That session fails."
    ),
]
Session = Annotated[
    str | None,
    typer.Option(
        "--session",
        metavar="ID",
        help="Continue this session, with all that it holds, instead of opening a new one.",
    ),
]
Instance = Annotated[
    str | None,
    typer.Option(
        "--instance", metavar="ID", help="Continue this instance instead of registering a new one."
    ),
]
InstanceType = Annotated[
    str | None,
    typer.Option(
        "--instance-type",
        metavar="T",
        help="PS (the default), MS, or another type that the service knows.",
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="A display name for the instance.")]
Item = Annotated[
    str | None,
    typer.Option(
        "--claim",
        metavar="ITEM",
        help="Claim this work item first. If that is refused, the command is not started.",
    ),
]
Takeover = Annotated[
    bool,
    typer.Option(
        "--takeover",
        help="With --claim: also claim an item whose holder went silent. With --session or"
        " --instance: continue it even if its last heartbeat is recent. Use that only if nothing"
        " runs there any more.",
    ),
]
Complete = Annotated[
    bool, typer.Option("--complete", help="Complete the work item if the command exits with 0.")
]
Restart = Annotated[
    str,
    typer.Option(
        "--restart",
        metavar="RULE",
        help="never, on-failure[:N] or always[:N], with at most N restarts in a row.",
    ),
]
Backoff = Annotated[
    float,
    typer.Option(
        "--backoff",
        metavar="SECONDS",
        min=0.0,
        help="The pause before the first restart. It doubles each time, up to a minute.",
    ),
]
StopIfFenced = Annotated[
    bool,
    typer.Option(
        "--stop-if-fenced", help="Stop the command if another takes over its claim or session."
    ),
]
Grace = Annotated[
    float,
    typer.Option(
        "--grace",
        metavar="SECONDS",
        min=0.0,
        help="The time between asking the command to stop and killing it.",
    ),
]
Interval = Annotated[
    float,
    typer.Option(
        "--interval", metavar="SECONDS", min=0.05, help="The time between two heartbeats."
    ),
]

Argv = Annotated[
    bool,
    typer.Option(
        "--argv/--no-argv",
        help="Record the command line, with what looks like a secret masked (a best effort), or"
        " only the program's name, which records no argument at all.",
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
    """Run any command under supervision.

    The run registers an instance and opens a session for the command, sends heartbeats while it
    runs, restarts it as --restart says, and records its end. If the service is away the command
    runs all the same, and the record is sent later.

    The exit code is that of the command, or 128 + the signal's number if a signal ended it. When
    the command ends, all processes that it started are ended too. An interrupted run (a signal,
    Ctrl-C, a closed terminal) has failed, whatever its exit code, and completes no work item.

    With --session or --instance the run continues an existing one: the successor that `holdfast
    recover` or `holdfast resume --start` made, or what a killed supervisor left behind.

    The command line is recorded, with what looks like a secret masked. The masking is a best
    effort: only --no-argv, which records the program's name alone, is sure to record no secret.
    Pass secrets in the environment, which is not recorded.

    The command finds its ids in HOLDFAST_SESSION_ID and HOLDFAST_INSTANCE_ID. A run within a run
    does not use them: it has a session and an instance of its own.
    """
    if os.name != "posix":
        raise typer.BadParameter("`holdfast run` needs Linux, macOS or another Unix.")
    policy = _policy(restart, backoff)
    if os.getpid() == 1:
        # The first process of a container is ended only by signals that it handles.
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    # The supervisor itself reports what a person has to know about heartbeats.
    logging.getLogger("holdfast.heartbeat").setLevel(logging.ERROR)
    with connected(lenient=True, retries=RETRIES, patience=PATIENCE_SECONDS) as client:
        from holdfast.git import WorkingCopy
        from holdfast.run_record import Run
        from holdfast.supervisor import Supervisor

        if session is not None:
            place = {"--project": project, "--machine": machine, "--slot": slot}
            _refuse(
                "--session", "which has its place already", {**place, "--replace": replace or None}
            )
        if instance is not None:
            new = {"--instance-type": instance_type, "--name": name}
            _refuse("--instance", "which has its type and name already", new)
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
            raise InvalidInput(f"{other} cannot be used with {option}, {which}.")


def _meant(
    client: Client, session: str | None, instance: str | None
) -> tuple[str | None, str | None]:
    """Their whole ids. If the service cannot be reached this fails: nothing is kept for later."""
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
            note("the holder works in the same place: --replace takes over its place and its items")
        return None
    complain(told(refusal))
    if refusal.code == "supervised":
        note("if nothing runs there any more, use --takeover")
    if refusal.code == "machine_unavailable" and refusal.details.get("machine_id"):
        note(f"`holdfast machines online {refusal.details['machine_id']}` makes it available")
    if refusal.code in PLACE_TAKEN:
        note("use --slot N for another place, or --replace to replace the session in this one")
    return None
