"""What a heartbeat tells of the working copy: true, cheap, and never in the way (spec 4)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.git import WorkingCopy

Git = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "odin"
    made.mkdir()
    return made


@pytest.fixture
def git(folder: Path) -> Git:
    """Runs git in the folder, which becomes a working copy."""

    def run(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", *identity, *arguments]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    run("init", "-b", "trunk")
    return run


def test_without_git_there_is_nothing_to_tell(folder: Path) -> None:
    assert WorkingCopy(folder).state() is None
    assert WorkingCopy(folder).name() == "odin"


def test_before_the_first_commit_there_is_a_branch_and_what_lies_about(
    folder: Path, git: Git
) -> None:
    (folder / "new").touch()

    assert WorkingCopy(folder).state() == {"branch": "trunk", "dirty_files": 1}


def test_what_no_remote_has_is_unpushed_whether_or_not_there_is_an_upstream(
    folder: Path, git: Git, tmp_path: Path
) -> None:
    git("commit", "--allow-empty", "-m", "one")
    git("commit", "--allow-empty", "-m", "two")
    assert unpushed(folder) == 2
    git("init", "--bare", str(tmp_path / "remote"))
    git("remote", "add", "origin", str(tmp_path / "remote"))
    git("push", "origin", "trunk")
    assert unpushed(folder) == 0
    git("checkout", "-b", "feature")
    git("commit", "--allow-empty", "-m", "three")

    assert unpushed(folder) == 1


def unpushed(folder: Path) -> int:
    state = WorkingCopy(folder).state()
    assert state is not None
    return int(state["unpushed_commits"])


def test_changed_staged_renamed_and_new_files_are_dirty(folder: Path, git: Git) -> None:
    for name in ("changed", "staged", "renamed", "clean", "deleted"):
        (folder / name).write_text(name * 20)
    git("add", ".")
    git("commit", "-m", "one")
    (folder / "changed").write_text("x")
    (folder / "staged").write_text("x")
    git("add", "staged")
    git("mv", "renamed", "moved")
    (folder / "deleted").unlink()
    (folder / "new with blanks").touch()

    state = WorkingCopy(folder).state()
    assert state is not None
    assert state["dirty_files"] == 5
    assert state["head"] == git("rev-parse", "HEAD")


def test_a_detached_head_has_no_branch(folder: Path, git: Git) -> None:
    git("commit", "--allow-empty", "-m", "one")
    git("checkout", "--detach")

    assert WorkingCopy(folder).state() == {
        "head": git("rev-parse", "HEAD"),
        "dirty_files": 0,
        "unpushed_commits": 1,
    }


def test_in_a_subfolder_the_project_is_that_of_the_whole_working_copy(
    folder: Path, git: Git
) -> None:
    below = folder / "src" / "deep"
    below.mkdir(parents=True)

    assert WorkingCopy(below).name() == "odin"


def test_looking_takes_no_lock_that_the_work_s_own_git_might_want(folder: Path, git: Git) -> None:
    (folder / "file").write_text("x")
    git("add", ".")
    git("commit", "-m", "one")
    (folder / ".git" / "index.lock").touch()

    state = WorkingCopy(folder).state()
    assert state is not None
    assert state["dirty_files"] == 0


def test_a_git_that_does_not_answer_is_given_up_and_left_alone_for_a_while(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, calls = tmp_path / "bin", tmp_path / "calls"
    tools.mkdir()
    (tools / "git").write_text(f'#!/bin/sh\necho called >>"{calls}"\nexec sleep 600\n')
    (tools / "git").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    copy = WorkingCopy(folder, timeout=0.5)

    assert [copy.state() for _ in range(3)] == [None] * 3
    assert calls.read_text() == "called\n"


def test_a_machine_without_git_is_no_obstacle(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert WorkingCopy(folder).state() is None
    assert WorkingCopy(folder).name() == "odin"
