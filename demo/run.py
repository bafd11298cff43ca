"""A tour of the service: ``make demo``.

A fleet of workers is at work on three machines. One is killed in the middle of a task. The service
notices by itself, another worker carries the work on from another machine, and nothing is lost.
Afterwards the service stays up for a look around; ``--no-wait``, or no terminal, ends it at once.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NoReturn

import httpx
from rich.console import Console
from rich.markup import escape

from demo.fleet import NotStarted, Service
from demo.screen import Screen
from demo.story import Amiss, Tour
from demo.verdict import summary

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The whole tour: 0 if it went as it should and nothing was lost."""
    parser = argparse.ArgumentParser(prog="make demo", description="A tour of the service.")
    parser.add_argument("--no-wait", action="store_true", help="end after the summary")
    stays = not parser.parse_args(arguments).no_wait and sys.stdin.isatty()
    console = Console()
    signal.signal(signal.SIGTERM, _end)
    try:
        with ExitStack() as stack:
            with console.status("Starting the service and its Postgres"):
                service = stack.enter_context(Service())
            return _tour(console, service, stays)
    except NotStarted as e:
        console.print(f"The service did not start:\n{escape(str(e))}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _tour(console: Console, service: Service, stays: bool) -> int:
    headers = {"X-API-Key": service.key}
    with httpx.Client(base_url=service.url, headers=headers, trust_env=False) as http:
        with Screen(console) as screen:
            tour = Tour(service, screen, http)
            try:
                tour.go()
            except Amiss as e:
                screen.say(f"[bold red]Something is amiss[/]: {escape(str(e))}")
                return 1
            finally:
                tour.stop()
        table, faults = summary(tour)
    console.print(table)
    for fault in faults:
        console.print(f"[red]Not as it should be[/]: {escape(fault)}")
    if stays:
        _stay(console, service, next(s for s in tour.sessions.values() if s["recovered_to"]))
    return 1 if faults else 0


def _stay(console: Console, service: Service, victim: dict[str, str]) -> None:
    """Leave the service up until Ctrl-C."""
    curl = f'curl -s -H "X-API-Key: {service.key}"'
    console.print(
        f"\nThe service stays up at {service.url}, API key {service.key}. Try:\n\n"
        f'  {curl} "{service.url}/api/sessions/health"\n'
        f'  {curl} "{service.url}/api/sessions/{victim["session_id"]}/recovery-state"\n'
        f'  {curl} "{service.url}/api/tasks?session_id={victim["recovered_to"]}"\n\n'
        "Ctrl-C ends it.",
        highlight=False,
        soft_wrap=True,
    )
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("\nStopped.")


def _end(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
