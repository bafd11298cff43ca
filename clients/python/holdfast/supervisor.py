"""Runs a command and stays with it: starts it, passes signals on, starts it again, reports."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING
from uuid import uuid4

from holdfast.burial import Burial
from holdfast.child import MARK, Child, Leftovers
from holdfast.dead_runs import end_leftovers, on_record
from holdfast.errors import HoldfastError
from holdfast.guardian import Guardian
from holdfast.happenings import (
    STOPPING,
    Answered,
    Exited,
    Fenced,
    Happening,
    RestartAsked,
    Signalled,
    signals_to,
)
from holdfast.interrupts import Interrupts
from holdfast.outcome import NOT_EXECUTABLE, NOT_FOUND, Outcome
from holdfast.process import named
from holdfast.restarts import Restarts
from holdfast.run_record import Run, RunRecord
from holdfast.terminal import Terminal
from holdfast.voice import Voice
from holdfast.watch import Watch

if TYPE_CHECKING:
    from holdfast.client import Client


LOOK_SECONDS = 0.5
# Who returns so soon and leaves a daemon behind has given its work to it.
HAND_OVER_SECONDS = 10.0


class Interrupted(Exception):
    """A signal came before there was a command to pass it on to."""


class Supervisor:
    """One supervised command. ``tell`` gets the few lines that a person should read; while the
    command has the terminal, they are kept (:class:`Voice`).
    """

    def __init__(self, client: Client, run: Run, tell: Callable[[str], None]) -> None:
        self._run = run
        self._runs = client.settings.spool_dir / "runs"
        self._tell = Voice(tell, self._runs)
        self._terminal = Terminal()
        self._happened: SimpleQueue[Happening] = SimpleQueue()
        self._mark = uuid4().hex
        self._record = RunRecord(client, run, self._note_fence, self._mark)
        self._restarts = Restarts(run.restart)
        self._is_opening = True
        self._is_fenced = False
        # Whether the command is over for good once it ends, whatever the policy.
        self._is_over = False
        self._interrupts = Interrupts(run.grace)
        self._attempts = 0

    def run(self) -> int:
        """The exit code to end with: the command's, or 128 + the signal that ended it.

        Raises :class:`HoldfastError` if the service refuses the session or the claim; then nothing
        was started. Call it in the main thread: signals go there.
        """
        program = self._run.command[0]
        if shutil.which(program) is None:
            is_there = os.path.exists(program) if os.sep in program else _is_on_path(program)
            self._tell(f"{program}: {'not executable' if is_there else 'no such command'}")
            return NOT_EXECUTABLE if is_there else NOT_FOUND
        if found := end_leftovers(self._runs):
            names = _listed([named(process) for process in found])
            self._tell(f"ended what a run whose supervisor was killed had left behind: {names}")
        with (
            signals_to(self._on_signal) as blocked,
            on_record(self._runs, self._record.supervisor),
        ):
            try:
                self._record.open()
                self._is_opening = False
            except Interrupted as e:
                return 128 + int(e.args[0])
            self._tell(str(self._record))
            outcome = Outcome(1, reason="was not supervised to its end")
            try:
                mark = f"{MARK}={self._mark}"
                with Burial(), Guardian(self._run.grace, mark, blocked) as guardian, self._watch():
                    outcome = self._keep_running(guardian)
            finally:
                self._record.end(outcome, self._restarts, self._interrupts.grace_left)
                self._terminal.close()
        return outcome.exit_code

    def _watch(self) -> Watch:
        return Watch(
            self._record,
            self._run.interval,
            on_restart=lambda: self._happened.put(RestartAsked()),
        )

    def _keep_running(self, guardian: Guardian) -> Outcome:
        while True:
            outcome = self._run_once(guardian)
            self._record.ran(outcome)
            pause = self._pause(outcome)
            if self._is_over or pause is None:
                return outcome
            if pause:
                self._tell(f"the command {outcome}; it is started again in {pause:g} seconds")
            if not self._rest(pause) or not self._may_restart():
                return dataclasses.replace(outcome, interrupted=self._interrupts.cause)

    def _run_once(self, guardian: Guardian) -> Outcome:
        environ = self._record.environment()
        self._attempts += 1
        self._interrupts.begin()
        try:
            child = Child(
                guardian,
                self._run.command,
                environ,
                f"{self._mark}-{self._attempts}",
                on_exit=lambda outcome: self._happened.put(Exited(outcome)),
            )
        except OSError as e:
            return Outcome(NOT_EXECUTABLE, reason=f"could not be started: {e.strerror or e}")
        self._restarts.started()
        self._record.started(self._restarts.total)
        with self._tell.held(self._terminal.is_shared and os.isatty(2)):
            try:
                return self._ended(child, self._until_it_ends(child))
            except BaseException:
                child.stop(signal.SIGTERM, 0)
                child.kill()
                raise
            finally:
                self._terminal.take_back()

    def _ended(self, child: Child, outcome: Outcome) -> Outcome:
        """The command is no more, nor is anything that it started."""
        self._terminal.take_back()
        leftovers = child.leave_nothing_behind(self._run.grace, self._tell_of_leftovers)
        self._terminal.take_back()
        if leftovers.left:
            self._tell(f"could not be ended, and may work on: {', '.join(leftovers.left)}")
        return self._judged(outcome, leftovers)

    def _judged(self, outcome: Outcome, leftovers: Leftovers) -> Outcome:
        """With all that is known once everything has ended."""
        self._hear_what_came_meanwhile()
        if self._terminal.is_gone() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._interrupts.stopped("a closed terminal")
        handed_on: tuple[str, ...] = ()
        if outcome.exit_code == 0 and outcome.seconds < HAND_OVER_SECONDS:
            handed_on = (*leftovers.daemons,)
        outcome = dataclasses.replace(
            outcome, interrupted=self._interrupts.cause, handed_on=handed_on
        )
        if handed_on and self._run.complete:
            self._tell(
                f"{self._run.item or 'what it holds'} is not completed, as it returned at once and"
                f" left its work to {_listed([*handed_on])}, which had to be ended"
            )
        if not outcome.is_success:
            self._terminal.restore()
        return outcome

    def _tell_of_leftovers(self, names: list[str]) -> None:
        self._tell(
            f"the command has ended and left {_listed(names)} running; a run ends with its command,"
            " so this is ended too (what is to be supervised must stay in the foreground)"
        )

    def _hear_what_came_meanwhile(self) -> None:
        """Signals and losses that came while what the command left behind was ended."""
        while True:
            try:
                happening = self._happened.get_nowait()
            except Empty:
                return
            match happening:
                case Signalled(number) if number in STOPPING:
                    self._interrupts.note(happening)
                    self._is_over = self._is_over or not happening.typed
                case Fenced(why):
                    self._on_fence(why)
                case _:
                    pass

    def _until_it_ends(self, child: Child) -> Outcome:
        while True:
            match self._next(child.patience):
                case Exited(outcome, at):
                    self._interrupts.end(at)
                    return outcome
                case None:
                    self._tell(f"it did not end within {self._run.grace:g} seconds and is killed")
                    if left := child.kill():
                        self._tell(f"could not be killed, and is waited for: {_listed(left)}")
                case Signalled() as signalled:
                    self._pass_on(child, signalled)
                case Fenced(why):
                    was_over = self._is_over
                    self._on_fence(why)
                    if self._is_over and not was_over:
                        self._interrupts.stopped(f"its supervisor, as {why},")
                        child.stop(signal.SIGTERM, self._run.grace)
                case RestartAsked():
                    # Silence was taken for its end. Whoever has it at hand knows better: it lives.
                    self._tell(
                        "a restart was asked for while nothing was heard from here;"
                        " the command is alive and goes on"
                    )
                    self._record.started(self._restarts.total, answers=True)

    def _pass_on(self, child: Child, signalled: Signalled) -> None:
        if signalled.number not in STOPPING:
            child.send(signalled.number)
            return
        self._interrupts.note(signalled)
        # What is typed may be meant for what the command is doing, not for the command.
        if not signalled.typed:
            self._is_over = True
            child.stop(signalled.number, self._run.grace, signalled.at)
        elif not child.is_in_foreground:
            # It has left this group (`timeout`), and would hear it if it were not supervised.
            child.send(signalled.number)

    def _on_fence(self, why: str) -> None:
        if self._is_over:
            self._tell(why)
        elif self._run.stop_if_fenced:
            self._is_over = True
            self._tell(f"{why}; the command is stopped")
        else:
            self._tell(f"{why}; the command goes on, beside whoever works on it now")

    def _pause(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the next start; ``None`` if there is none."""
        if self._is_fenced or outcome.interrupted or self._interrupts.is_recent:
            return None
        pause = self._restarts.pause(outcome.exit_code, outcome.seconds)
        if self._restarts.exhausted:
            self._tell(f"the command {outcome} after {self._restarts.total} restarts; no more")
        return pause

    def _rest(self, seconds: float) -> bool:
        """Wait; false if meanwhile the run came to its end."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._comes_to_its_end(self._next(left)):
                return False
        return True

    def _may_restart(self) -> bool:
        """Not without the claim. If the service is away, what it granted stands. While it does not
        answer, whoever stops the run is heard all the same.
        """
        threading.Thread(target=self._ask, name="holdfast-ask", daemon=True).start()
        while True:
            happening = self._next(None)
            if isinstance(happening, Answered):
                if not happening.may_restart:
                    self._tell(f"{self._record.loss}; the command is not started again")
                return happening.may_restart
            if isinstance(happening, Signalled) and self._comes_to_its_end(happening):
                return False

    def _ask(self) -> None:
        may = True
        with suppress(HoldfastError):
            may = self._record.is_still_ours() and self._record.holds_claims()
        self._happened.put(Answered(may))

    def _comes_to_its_end(self, happening: Happening | None) -> bool:
        """Whether the run ends by this, while no command runs."""
        match happening:
            case Signalled(number) as signalled if number in STOPPING:
                self._interrupts.note(signalled)
                self._interrupts.stopped(str(signalled))
                return True
            case Fenced(why):
                self._on_fence(why)
                return True
            case _:
                return False

    def _next(self, timeout: float | None) -> Happening | None:
        """What happens next; ``None`` once the time is up."""
        until = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            # A signal that comes just before the waiting begins does not end it.
            left = max(until - time.monotonic(), 0.0)
            try:
                return self._happened.get(timeout=min(left, LOOK_SECONDS))
            except Empty:
                if left <= LOOK_SECONDS:
                    return None

    def _on_signal(self, signalled: Signalled) -> None:
        if not self._is_opening:
            self._happened.put(signalled)
        elif signalled.number in STOPPING:
            self._is_opening = False
            raise Interrupted(signalled.number)

    def _note_fence(self, why: str, again: bool) -> None:
        """Called by whichever thread learns of it first."""
        if again or not self._is_fenced:
            self._is_fenced = True
            self._happened.put(Fenced(why))


def _listed(names: list[str]) -> str:
    """A few of them, for people."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _is_on_path(program: str) -> bool:
    """Whether there is such a file where commands are looked for, whatever may be done with it."""
    return shutil.which(program, mode=os.F_OK) is not None
