"""Lines of commands before the writer, a line for each namespace."""

from __future__ import annotations

import asyncio

from application.engine.inbox import Inbox
from application.engine.submission import Job, Submission
from application.engine.unit_of_work import Context


def jobs(namespace: str, number: int, size: int = 10) -> list[Job]:
    async def made() -> Submission:
        return Submission(number)

    submission = asyncio.run(made())
    context = Context(namespace, "key", "request", "command", size=size)
    return [Job(i, context, submission) for i in range(number)]


def taken(inbox: Inbox, count: int = 1_000, size: int = 1_000_000) -> tuple[str, list[object]]:
    got = inbox.take(count, size)
    assert got is not None
    return got[0], [job.command for job in got[1]]


def test_namespaces_take_turns_however_much_one_of_them_sent() -> None:
    inbox = Inbox()
    inbox.put(jobs("loud", 5_000))
    inbox.put(jobs("quiet", 1))
    assert taken(inbox) == ("loud", list(range(1_000)))
    assert taken(inbox) == ("quiet", [0])
    inbox.put(jobs("quiet", 2))
    assert taken(inbox) == ("loud", list(range(1_000, 2_000)))
    assert taken(inbox) == ("quiet", [0, 1])


def test_a_turn_is_bounded_by_size_too_and_takes_one_command_at_least() -> None:
    inbox = Inbox()
    inbox.put(jobs("a", 3, size=600_000))
    assert taken(inbox, size=1_300_000) == ("a", [0, 1])
    assert taken(inbox, size=100) == ("a", [2])
    assert inbox.take(10, 10) is None


def test_it_knows_how_much_waits() -> None:
    inbox = Inbox()
    inbox.put(jobs("a", 3, size=100))
    inbox.put(jobs("b", 2, size=7))
    assert (len(inbox), inbox.size, inbox.of("a"), inbox.of("c")) == (5, 314, (3, 300), (0, 0))
    assert inbox.next_count() == 3
    taken(inbox, count=1)
    assert (len(inbox), inbox.size, inbox.of("a")) == (4, 214, (2, 200))
    assert inbox.next_count() == 2
    assert sorted(str(job.command) for job in inbox.clear()) == ["0", "1", "1", "2"]
    assert (len(inbox), inbox.size, inbox.next_count()) == (0, 0, 0)
