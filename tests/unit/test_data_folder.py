from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from interfaces.host.data_folder import DataFolderError, development_key, prepare

ROOT = Path(__file__).parents[2]
PLANTED = "5f0c2ab9d8e74136b1c0d9e8f7a65432"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can plant files of others")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_and_the_key_are_made_for_their_owner_only(folder: Path) -> None:
    before = os.umask(0)
    try:
        key = development_key(folder / "deeper")
    finally:
        os.umask(before)
    assert re.fullmatch(r"[0-9a-f]{32}", key)
    assert mode_of(folder) == mode_of(folder / "deeper") == 0o700
    assert mode_of(folder / "deeper" / "api_key") == 0o600
    assert development_key(folder / "deeper") == key
    assert [path.name for path in (folder / "deeper").iterdir()] == ["api_key"]


def test_processes_that_start_at_once_agree_on_one_key(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from interfaces.host.data_folder import development_key\n"
        "sys.stdin.readline(); print(development_key(Path(sys.argv[1])))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    keys = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert keys == {development_key(folder)}


@pytest.mark.parametrize("left", ["", "\n", "  \n"])
def test_a_key_file_that_was_left_empty_is_made_again(folder: Path, left: str) -> None:
    prepare(folder)
    (folder / "api_key").write_text(left)
    key = development_key(folder)
    assert len(key) == 32
    assert (folder / "api_key").read_text().strip() == key


# A group of one's own is nobody else (below): an ordinary user's folder may be open to it.
@pytest.mark.parametrize("mode", [0o777, pytest.param(0o770, marks=as_root), 0o1777, 0o757])
def test_a_folder_that_others_can_write_in_is_not_believed(folder: Path, mode: int) -> None:
    folder.mkdir()
    (folder / "api_key").write_text(PLANTED)
    (folder / "api_key").chmod(0o600)
    folder.chmod(mode)
    with pytest.raises(DataFolderError, match="others can write in DATA_DIR") as refused:
        development_key(folder)
    assert "chmod go-w" in str(refused.value)
    assert mode_of(folder) == mode
    folder.chmod(0o700)
    assert development_key(folder) == PLANTED


def test_an_empty_folder_that_others_can_write_in_is_closed(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    development_key(folder)
    assert mode_of(folder) & 0o022 == 0


def test_a_folder_below_one_that_everybody_can_write_in_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(DataFolderError, match="everybody can write"):
        prepare(open_to_all / "data")
    open_to_all.chmod(0o1777)  # as /tmp: nobody can move what is another's
    prepare(open_to_all / "data")


def test_a_key_file_that_others_can_write_is_refused(folder: Path) -> None:
    prepare(folder)
    (folder / "api_key").write_text(PLANTED)
    (folder / "api_key").chmod(0o602)
    with pytest.raises(DataFolderError, match="can be written by others"):
        development_key(folder)


def test_a_key_file_that_others_can_only_read_is_closed_to_them(folder: Path) -> None:
    key = development_key(folder)
    (folder / "api_key").chmod(0o644)
    assert development_key(folder) == key
    assert mode_of(folder / "api_key") == 0o600


def test_a_link_in_place_of_the_key_is_refused(folder: Path, tmp_path: Path) -> None:
    prepare(folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(PLANTED)
    elsewhere.chmod(0o600)
    (folder / "api_key").symlink_to(elsewhere)
    with pytest.raises(DataFolderError, match="is a link"):
        development_key(folder)
    (folder / "api_key").unlink()
    (folder / "api_key").hardlink_to(elsewhere)
    with pytest.raises(DataFolderError, match="hard links"):
        development_key(folder)
    (folder / "api_key").unlink()
    os.mkfifo(folder / "api_key", 0o600)
    with pytest.raises(DataFolderError, match="is no plain file"):
        development_key(folder)


@pytest.mark.parametrize(
    "weak",
    [
        "a",
        "change-me",
        "secret" * 6,
        "1" * 40,
        "\u202eabc",
        "x" * 200,
        f"team:{PLANTED}",
        f"{PLANTED},{PLANTED[::-1]}",
    ],
)
def test_a_key_that_can_be_guessed_is_refused_and_not_told(folder: Path, weak: str) -> None:
    prepare(folder)
    (folder / "api_key").write_text(weak)
    (folder / "api_key").chmod(0o600)
    with pytest.raises(DataFolderError, match="can be guessed") as refused:
        development_key(folder)
    assert len(weak) < 6 or weak not in str(refused.value)


@as_root
def test_what_belongs_to_someone_else_is_refused(folder: Path) -> None:
    prepare(folder)
    (folder / "api_key").write_text(PLANTED)
    (folder / "api_key").chmod(0o600)
    os.chown(folder / "api_key", 12_345, -1)
    with pytest.raises(DataFolderError, match="belongs to user 12345"):
        development_key(folder)
    os.chown(folder, 12_345, -1)
    with pytest.raises(DataFolderError, match=r"DATA_DIR .* belongs to user 12345"):
        prepare(folder)


@as_root
def test_a_link_of_someone_elses_to_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    prepare(folder)
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert prepare(link) == folder
    os.chown(link, 12_345, -1, follow_symlinks=False)
    with pytest.raises(DataFolderError, match="a link of user 12345's"):
        prepare(link)


@as_root
@pytest.mark.parametrize("own", [True, False])
def test_a_group_of_one_s_own_is_nobody_else(own: bool) -> None:
    """Given umask 002, as where each user has such a group: the folder is closed, and believed."""
    user = next((u for u in pwd.getpwall() if u.pw_uid and has_own_group(u)), None)
    if user is None:
        pytest.skip("no user of this machine has a group of its own")
    with tempfile.TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        folder = Path(above, "data")
        folder.mkdir()
        (folder / "api_key").write_text(PLANTED)
        for path, mode in ((folder, 0o775), (folder / "api_key", 0o660)):
            os.chown(path, user.pw_uid, user.pw_gid if own else 0)
            path.chmod(mode)
        told = key_for(user, folder)
        assert told == PLANTED if own else "others can write in DATA_DIR" in told
        assert (mode_of(folder), mode_of(folder / "api_key")) == (
            (0o755, 0o600) if own else (0o775, 0o660)
        )


def key_for(user: pwd.struct_passwd, folder: Path) -> str:
    """The key that a process of the user's finds, or why it finds none."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            os.write(write, development_key(folder).encode())
        except BaseException as e:
            os.write(write, str(e).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read) as answer:
        return answer.read()


def has_own_group(user: pwd.struct_passwd) -> bool:
    try:
        group = grp.getgrgid(user.pw_gid)
    except KeyError:
        return False
    sharing = [other for other in pwd.getpwall() if other.pw_gid == user.pw_gid]
    return group.gr_name == user.pw_name and not group.gr_mem and len(sharing) == 1
