"""All that an attempt started ends with it: before the next one, and before its claim is free."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import HOLDFAST, WORKER, Desk, desk, gone

from holdfast.process import PROC, living
from tests.acceptance.serving import Api, name, ok
from tests.support.waiting import eventually

needs_linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")

# A process that says where it is, and does not go by itself.
STAYS = "import os, signal; os.write(1, b'up %d\\n' % os.getpid()); signal.pause()"
DEAF = (
    "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "os.write(1, b'up %d\\n' % os.getpid()); signal.pause()"
)
# Away from its parent, its session, its process group, and with an environment of its own.
DAEMON = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-c", sys.argv[1]], {})
    os._exit(0)
os.wait()
"""


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def leaving(how: str, what: str = STAYS, then: str = "exit 0") -> tuple[str, ...]:
    """A shell that starts something in the background, waits for a line, and ends."""
    python = sys.executable
    start = {
        "child": f'"{python}" -c "$1" &',
        "session": f'setsid "{python}" -c "$1" &',
        "orphan": f'("{python}" -c "$1" &)',
        "clean": f'(env -i setsid "{python}" -c "$1" &)',
        "daemon": f'"{python}" -c "$0" "$1" <&-',
    }[how]
    return ("sh", "-c", f"{start}\nread _\n{then}", DAEMON, what)


HOWS = ["child", "session", "orphan", "clean", "daemon"]


@needs_linux
@pytest.mark.parametrize("how", HOWS)
def test_what_a_command_leaves_behind_ends_with_it(here: Desk, how: str) -> None:
    run = here.run(command=leaving(how))
    pid = run.up()
    run.say("")

    assert run.end() == 0
    assert pid not in living()
    assert f"({pid})" in run.told
    assert run.session()["status"] == "completed"


@needs_linux
@pytest.mark.parametrize("how", HOWS)
def test_a_killed_attempt_is_gone_before_the_next_begins(here: Desk, how: str) -> None:
    command = leaving(how, then="test -e again && exit 0; touch again; kill -9 $$")
    run = here.run("--restart", "on-failure", "--backoff", "0", command=command)
    first = run.up()
    run.say("")
    second = run.up()
    is_alone = first not in living()
    run.say("")

    assert run.end() == 0
    assert is_alone
    assert second not in living()
    assert run.session()["metadata"]["restarts"] == 1


def test_the_claim_is_free_only_when_nothing_works_on_it_any_more(here: Desk) -> None:
    item = name("item")
    run = here.run("--claim", item, "--grace", "2", command=leaving("session", DEAF, "exit 3"))
    pid = run.up()
    run.say("")
    eventually(lambda: ok(here.api.get(f"/api/claims/{item}"))["holder"] is None, "its end")

    assert pid not in living()
    assert run.end() == 3


def test_who_does_not_listen_is_killed_after_the_grace(here: Desk) -> None:
    run = here.run("--grace", "0.3", command=leaving("session", DEAF))
    pid = run.up()
    run.say("")

    assert run.end() == 0
    assert pid not in living()


def test_the_end_of_a_pipeline_may_finish(here: Desk) -> None:
    """It reads the last words of a command that has ended already."""
    slow = f'"{sys.executable}" -c "import sys; sys.stdin.read(); open(\\"read\\", \\"w\\")"'
    run = here.run(command=("bash", "-c", f"exec > >({slow}); echo last words"))

    assert run.end() == 0
    assert (here.folder / "read").exists()
    assert "running" not in run.told


def test_what_was_there_before_is_not_touched(here: Desk) -> None:
    """Not even what has the name, the folder and the terminal session of what is ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        run = here.run(command=leaving("child"))
        run.up()
        run.say("")
        assert run.end() == 0
        assert other.poll() is None
        other.kill()


@needs_linux
@pytest.mark.parametrize("how", HOWS)
def test_nothing_outlives_a_supervisor_that_is_killed(here: Desk, how: str) -> None:
    run = here.run(command=leaving(how))
    pid = run.up()
    run.process.kill()

    gone(pid)


@needs_linux
def test_nothing_outlives_a_process_group_that_is_killed(here: Desk) -> None:
    run = here.run(command=leaving("clean"), start_new_session=True)
    pid = run.up()
    os.killpg(run.pid, signal.SIGKILL)

    gone(pid)


@needs_linux
def test_a_run_without_its_guardian_goes_on_and_ends_well(here: Desk) -> None:
    run = here.run()
    worker = run.up()
    guardian = living()[worker].parent
    assert living()[guardian].parent == run.pid
    os.kill(guardian, signal.SIGKILL)
    eventually(lambda: living()[worker].parent == run.pid, "its adoption")
    run.say("0")

    assert run.end() == 0
    assert run.session()["status"] == "completed"


@needs_linux
def test_a_guardian_that_was_killed_is_replaced_for_the_next_attempt(here: Desk) -> None:
    run = here.run("--restart", "on-failure", "--backoff", "0")
    worker = run.up()
    guardian = living()[worker].parent
    os.kill(guardian, signal.SIGKILL)
    eventually(lambda: living()[worker].parent == run.pid, "its adoption")
    run.say("7")
    second = run.up()
    assert living()[second].parent not in (run.pid, guardian)
    run.process.kill()

    gone(second)


def test_arguments_reach_the_command_byte_by_byte(here: Desk) -> None:
    """Whatever the two processes between take their encoding to be."""
    odd = b"\xff\xfe \xc3\xa9 \n'\"".decode("utf-8", "surrogateescape")
    code = "import os, sys; os.write(1, os.fsencode(sys.argv[1]) + os.environb[b'ODD'])"
    for locale in ({"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8"}):
        done = subprocess.run(
            [HOLDFAST, "run", "--", sys.executable, "-c", code, odd],
            cwd=here.folder,
            env={**here.environ(), "ODD": odd, **locale},
            capture_output=True,
            check=True,
        )
        assert done.stdout == os.fsencode(odd) * 2


@needs_linux
def test_no_orphan_stays_unburied(here: Desk) -> None:
    orphans = "for i in 1 2 3 4 5; do (sleep 0 &); done; echo up 0; read _"
    run = here.run(command=("bash", "-c", orphans))
    run.up()
    eventually(lambda: not dead_children_of(run.pid), "the burials")
    run.say("")
    assert run.end() == 0


def dead_children_of(supervisor: int) -> list[str]:
    """Those who descend from it and lie dead."""
    ps = ["ps", "-A", "-o", "pid=,ppid=,stat="]
    listed = subprocess.run(ps, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    family = {str(supervisor)}
    family |= {pid for pid, parent, _ in rows if parent in family}
    return [pid for pid, parent, state in rows if parent in family and state.startswith("Z")]


def may_make_containers() -> bool:
    """Whether a namespace of processes can be made here."""
    if shutil.which("unshare") is None:
        return False
    made = subprocess.run(["unshare", "-p", "-f", "--mount-proc", "true"], capture_output=True)
    return made.returncode == 0


@pytest.mark.skipif(not may_make_containers(), reason="needs the right to make namespaces")
def test_as_the_first_process_of_a_container_it_buries_all_and_hears_its_end(here: Desk) -> None:
    unshare = ["unshare", "-p", "-f", "--mount-proc", "--kill-child"]
    command = [HOLDFAST, "run", "--project", "boxed", "--", sys.executable, "-c", WORKER]
    with subprocess.Popen(
        [*unshare, *command],
        cwd=here.folder,
        env=here.environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as box:
        assert box.stdout is not None
        assert box.stdout.readline().startswith("up ")
        [first] = [p.pid for p in living().values() if p.parent == box.pid]
        # Whoever enters from outside and leaves an orphan leaves it to the first process.
        enter = ["nsenter", "-t", str(first), "-p", "-m", "sh", "-c", "(sleep 0.2 &)"]
        subprocess.run(enter, check=True)
        eventually(lambda: orphan_of(first), "the orphan, dead or alive")
        eventually(lambda: not orphan_of(first), "the burial")
        os.kill(first, signal.SIGTERM)
        assert box.wait(60) == 128 + signal.SIGTERM
    [session] = ok(here.api.get("/api/sessions", params={"project_id": "boxed"}))["sessions"]
    assert session["status"] == "failed"


def orphan_of(first: int) -> list[int]:
    """The children of the first process that run ``sleep``, or did."""
    found = []
    for folder in PROC.iterdir():
        if folder.name.isdigit() and (folder / "stat").exists():
            text = (folder / "stat").read_text(errors="replace")
            program, rest = text.rpartition(")")[0].partition("(")[2], text.rpartition(")")[2]
            if program == "sleep" and int(rest.split()[1]) == first:
                found.append(int(folder.name))
    return found
