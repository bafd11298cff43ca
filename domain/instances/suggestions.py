"""What to do next with an instance's work: rules over its folded state (S2, spec 7 and 17).

A rule is a pure function of an instance and says what it finds, each time with the sequence numbers
of the events that show it. The same events give the same suggestions, in the table's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from domain.aggregate import Json
from domain.instances.instance import DEGRADED_CONTEXT_PERCENT, Instance
from domain.instances.standing import Epic, Run, Standing, quoted

Finding = tuple[str, list[int]]
Rule = Callable[[Instance], Iterator[Finding]]


class Suggestion(NamedTuple):
    """What to do or to know, which rule says so, and because of which events of the stream."""

    text: str
    rule: str
    evidence: list[int]


class Results(NamedTuple):
    """What is known of an epic's tests, its types taken together. What was not told is None."""

    passed: int | None
    failed: int | None
    total: int | None
    evidence: list[int]


def suggestions(instance: Instance) -> list[Suggestion]:
    """What every rule finds, the most important first."""
    return [
        Suggestion(text, name, sorted(set(evidence)))
        for name, rule in RULES.items()
        for text, evidence in rule(instance)
    ]


def subject(instance: Instance) -> str | None:
    """The epic that all this is about: the last one, or that which a heartbeat named."""
    return instance.last_epic or instance.current_epic


def epic_of(instance: Instance) -> Epic:
    """What is known of the subject."""
    return _known(instance).epics.get(subject(instance) or "", Epic())


def results_of(epic: Epic) -> Results | None:
    """The epic's tests in numbers; None when nothing was told of any."""
    runs = [run for run in epic.runs.values() if run.has_result]
    evidence = sorted(number for run in runs for number in run.evidence)
    counted = [counted for run in runs if (counted := run.counted)]
    if counted:
        passed, total = (sum(column) for column in zip(*counted, strict=True))
        # Failures of a run that told no more count on top.
        total += sum(run.failed or 0 for run in runs if run.counted is None)
        return Results(passed, total - passed, total, evidence)
    if runs:
        failed = [run.failed for run in runs if run.failed is not None]
        return Results(None, sum(failed) if failed else None, None, evidence)
    if epic.tests_passed is not None and epic.number is not None:
        return Results(epic.tests_passed, None, None, [epic.number])
    return None


def where_it_stands(instance: Instance) -> Iterator[Finding]:
    """S2's sentence: the epic, its tests, its requirements, and what comes next."""
    name = subject(instance)
    if name is None:
        return
    epic, tests = epic_of(instance), results_of(epic_of(instance))
    evidence = [epic.number or instance.epic_num]
    said = {"completed": "complete", "failed": f"failed{_because(epic.reason)}"}
    parts = [_stopped(f"Epic {name} {said.get(epic.status or '', 'in progress')}")]
    if tests is not None:
        parts += _in_a_sentence(epic, tests)
        evidence += tests.evidence
    if epic.prd is not None:
        parts.append("PRD updated.")
        evidence.append(epic.prd)
    if instance.current_epic not in (None, name):
        parts.append(f"Continue with epic {instance.current_epic}.")
        evidence.append(_number_of_current_epic(instance))
    elif epic.status == "completed":
        parts.append("Ready for next epic.")
    elif epic.status == "failed":
        parts.append("Find out why before it is tried again.")
    else:
        parts.append("Continue there.")
    yield " ".join(parts), evidence


def waiting_for_human(instance: Instance) -> Iterator[Finding]:
    """Someone was asked, and may have answered since."""
    if instance.activity == "waiting_for_human":
        asked = _stopped(f"It was waiting for a human{_because(instance.activity_reason)}")
        yield f"{asked} Get the answer first.", [instance.activity_num]


def tests_not_passing(instance: Instance) -> Iterator[Finding]:
    """Tests that failed in their latest run."""
    for name, epic in _known(instance).epics.items():
        for kind, run in epic.runs.items():
            count, counted = run.not_passing, run.counted
            if not run.has_result or (run.has_passed and not count):
                continue
            if not count:
                text = f"Epic {name}: {_tests(kind)} failed; make them pass."
            elif counted is None:
                what = _tests(kind, count)
                text = f"Epic {name}: {count} {what} not passing; {_repair(count)}."
            else:
                of = f"{count} of {counted[1]} {_tests(kind, counted[1])}"
                text = f"Epic {name}: {of} not passing; {_repair(count)}."
            yield text, run.evidence


def tests_unfinished(instance: Instance) -> Iterator[Finding]:
    """A run that began and told no result."""
    for name, epic in _known(instance).epics.items():
        for kind, run in epic.runs.items():
            if run.begun is not None:
                what = _tests(kind)
                yield f"Epic {name}: {what} began and did not end; run them again.", [run.begun]


def validation_failed(instance: Instance) -> Iterator[Finding]:
    """A validation that found something, and none after it that passed."""
    for name, note in _known(instance).failed_validations.items():
        of = f" of epic {name}" if name else ""
        yield (
            f"Validation{of} failed{_because(note.text)}. Correct it, then validate again.",
            [note.number],
        )


def epic_unfinished(instance: Instance) -> Iterator[Finding]:
    """Other epics that were started or failed."""
    for name, epic in _known(instance).epics.items():
        if name in (subject(instance), instance.current_epic) or epic.number is None:
            continue
        if epic.status == "started":
            yield f"Epic {name} was started and not finished.", [epic.number]
        elif epic.status == "failed":
            failed = _stopped(f"Epic {name} failed{_because(epic.reason)}")
            yield f"{failed} Decide whether to try it again.", [epic.number]


def deployment_failed(instance: Instance) -> Iterator[Finding]:
    """A deployment that did not succeed, and no later one of the same service."""
    for service, note in _known(instance).failed_deployments.items():
        failed = _stopped(f"Deployment of {service} failed{_because(note.text)}")
        yield f"{failed} Deploy again or roll back.", [note.number]


def deployment_unfinished(instance: Instance) -> Iterator[Finding]:
    """A deployment of which nobody knows how it ended."""
    for service, note in _known(instance).deploying.items():
        yield f"Deployment of {service} began and did not end; find out how it went.", [note.number]


def uncommitted_changes(instance: Instance) -> Iterator[Finding]:
    """Work that only the working copy has."""
    count = (instance.git or {}).get("dirty_files")
    if count:
        files = "1 changed file is" if count == 1 else f"{count} changed files are"
        yield f"{files} not committed{_where(instance)}.", [instance.git_num]


def unpushed_commits(instance: Instance) -> Iterator[Finding]:
    """Commits that only one machine has."""
    count = (instance.git or {}).get("unpushed_commits")
    if count:
        commits = "1 commit is" if count == 1 else f"{count} commits are"
        yield f"{commits} not pushed{_where(instance)}.", [instance.git_num]


def pull_request_open(instance: Instance) -> Iterator[Finding]:
    """A pull request that was opened and not merged."""
    for url, note in _known(instance).pull_requests.items():
        yield f"Pull request {url} is not merged.", [note.number]


def checkpoint(instance: Instance) -> Iterator[Finding]:
    """A state to come back to."""
    kept = instance.checkpoint
    if kept is not None and kept.from_instance_id is not None:
        text = f"Go on from {kept.name}, loaded from {kept.from_instance_id}."
        yield text, [kept.number]
    elif kept is not None:
        yield f"Load {kept.name} and go on from there.", [kept.number]


def commits_since_checkpoint(instance: Instance) -> Iterator[Finding]:
    """The checkpoint does not know of the latest work."""
    kept, commits = instance.checkpoint, _known(instance).commits
    if kept is not None and commits is not None:
        made = "1 commit was" if commits.count == 1 else f"{commits.count} commits were"
        text = f"{made} made since {kept.name}, the last one {commits.last}."
        yield text, [kept.number, commits.number]


def context_nearly_full(instance: Instance) -> Iterator[Finding]:
    """It had little room left."""
    percent = instance.context_percent or 0
    if percent >= DEGRADED_CONTEXT_PERCENT:
        text = f"The context window was {percent:g}% full; begin with a fresh one."
        yield text, [instance.context_num]


def next_epic(instance: Instance) -> Iterator[Finding]:
    """What was planned, once nothing is in progress."""
    if epic_of(instance).status == "started" or instance.current_epic not in (
        None,
        instance.last_epic,
    ):
        return
    for name, note in _known(instance).planned.items():
        feature = f" ({note.text})" if note.text else ""
        yield f"Planned next: epic {name}{feature}.", [note.number]
        return


RULES: Mapping[str, Rule] = {
    "where_it_stands": where_it_stands,
    "waiting_for_human": waiting_for_human,
    "tests_not_passing": tests_not_passing,
    "tests_unfinished": tests_unfinished,
    "validation_failed": validation_failed,
    "epic_unfinished": epic_unfinished,
    "deployment_failed": deployment_failed,
    "deployment_unfinished": deployment_unfinished,
    "uncommitted_changes": uncommitted_changes,
    "unpushed_commits": unpushed_commits,
    "pull_request_open": pull_request_open,
    "checkpoint": checkpoint,
    "commits_since_checkpoint": commits_since_checkpoint,
    "context_nearly_full": context_nearly_full,
    "next_epic": next_epic,
}


def _known(instance: Instance) -> Standing:
    return instance.standing or Standing()


def _in_a_sentence(epic: Epic, tests: Results) -> Iterator[str]:
    if tests.passed is not None and tests.total is not None:
        missing = f" ({tests.failed} not passing)" if tests.failed else ""
        yield f"{tests.passed}/{tests.total} tests passed{missing}."
    elif tests.passed is not None:
        yield f"{tests.passed} tests passed."
    elif tests.failed:
        yield f"{tests.failed} {_tests('', tests.failed)} not passing."
    yield from (
        f"{_tests(kind).capitalize()} {'passed' if run.has_passed else 'failed'}."
        for kind, run in epic.runs.items()
        if _told_nothing(run)
    )


def _told_nothing(run: Run) -> bool:
    return run.has_result and run.counted is None and run.failed is None


def _number_of_current_epic(instance: Instance) -> int:
    started = _known(instance).epics.get(instance.current_epic or "", Epic()).number
    return max(started or 1, instance.epic_num)


def _because(reason: str | None) -> str:
    short = quoted(reason)
    return f": {short}" if short else ""


def _stopped(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?", "…")) else f"{sentence}."


def _tests(kind: str, count: int = 2) -> str:
    noun = "test" if count == 1 else "tests"
    return f"{quoted(kind)} {noun}" if kind else noun


def _repair(count: int) -> str:
    return "make it pass" if count == 1 else "make them pass"


def _where(instance: Instance) -> str:
    git: Json = instance.git or {}
    return f" on branch {quoted(git['branch'])}" if git.get("branch") else ""
