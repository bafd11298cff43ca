"""The command ``holdfast``: all its subcommands, in one table."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from holdfast.cli import (
    bridging,
    diagnosis,
    feed,
    history,
    overview,
    queue,
    recovery,
    running,
    streams,
    tidying,
)

COMMANDS: dict[str, Callable[..., Any]] = {
    "run": running.run,
    "status": overview.status,
    "instances": overview.instances,
    "topology": overview.topology,
    "next": queue.next_items,
    "claim": queue.claim,
    "release": queue.release,
    "complete": queue.complete,
    "add": queue.add,
    "reopen": tidying.reopen,
    "cancel": tidying.cancel,
    "remove": tidying.remove,
    "machines": tidying.machines,
    "end": tidying.end,
    "events": history.events,
    "replay": history.replay,
    "watch": feed.watch,
    "resume": recovery.resume,
    "recover": recovery.recover,
    "mcp": bridging.mcp,
    "doctor": diagnosis.doctor,
}

# Plain help: drawing it with rich would take as long again as all else at start-up.
app = typer.Typer(
    name="holdfast",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"holdfast {version('holdfast')}")
        raise typer.Exit


@app.callback(
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 conflict, 4 not found, 5 not authorised,"
    " 6 service unavailable."
)
def _holdfast(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """See and steer AI coding agents through the holdfast service.

    HOLDFAST_URL is the service's address (default http://127.0.0.1:8080), HOLDFAST_API_KEY is your
    API key. For a development service on this machine the key is found automatically.
    """


for _name, _command in COMMANDS.items():
    # Options that follow the name of the command to run belong to that command.
    app.command(_name, context_settings={"allow_interspersed_args": _name != "run"})(_command)


def main() -> None:
    """The entry point. Ends the process with the command's exit code."""
    streams.prepare()
    # The commands report these problems themselves.
    logging.getLogger("holdfast.client").setLevel(logging.ERROR)
    sys.exit(streams.ended(app))
