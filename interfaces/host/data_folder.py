"""The service's folder, and the development key in it: believed only if nobody else could plant it.

Whoever can write in DATA_DIR can give the service an API key or a database of his own making; so it
must belong to the service's user (or root), and nobody else may write in it.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from interfaces.access.auth import is_well_formed
from interfaces.access.key_strength import weakness

if sys.platform != "win32":
    import fcntl
    import grp
    import pwd

KEY_FILE = "api_key"
_OTHERS_WRITE = 0o022
_OTHERS_READ = 0o044
_MAX_BYTES = 4_096

log = logging.getLogger("holdfast.data_folder")


class DataFolderError(Exception):
    """The folder, or a file in it, may be of someone else's making; the message says what to do."""


def prepare(folder: Path, *, others_pass: bool = False) -> Path:
    """The folder with its links resolved, made (0700) if it is missing.

    For root it lets others pass (0711), though not look, if the account is to reach a folder of
    its own in there that Postgres runs as.

    Raises :class:`DataFolderError` unless it belongs to this user and nobody else can write in it.
    One of ours that others could write in is closed to them instead if it is empty, or if those
    others are a group that nobody else is in.
    """
    try:
        _require_own_links(folder)
        folder = folder.resolve()
        _make(folder, _mode(others_pass))
        if sys.platform != "win32":
            _require_closed(folder)
    except OSError as e:
        raise DataFolderError(f"DATA_DIR {folder} cannot be used: {e.strerror}") from e
    return folder


def development_key(folder: Path) -> str:
    """The key that the folder keeps: made at first, readable to its owner only.

    Processes that start at once agree on one. Raises :class:`DataFolderError` for a file that
    others can write, and for a key that can be guessed.
    """
    folder = prepare(folder)
    path = folder / KEY_FILE
    try:
        with _locked(folder):
            key = read_secret(path)
            # An empty one is what a start that was cut short may have left.
            if not key:
                key = secrets.token_hex(16)
                write_secret(path, key)
    except OSError as e:
        raise DataFolderError(f"{path} cannot be used: {e.strerror}") from e
    # With a comma or a colon it is a list, or has a namespace: that is for API_KEYS.
    if not is_well_formed(key) or weakness(key) is not None or set(key) & set(",:"):
        raise DataFolderError(
            f"the key in {path} can be guessed, or is none; delete the file, and the next start"
            " makes a good one"
        )
    return key


def read_secret(path: Path) -> str:
    """The text of a file of ours, without the white space around it; blank if there is no file.

    One that others can only read is closed to them. Raises :class:`DataFolderError` for one that
    someone else has, or can have, written.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return ""
    except OSError as e:
        if path.is_symlink():
            raise DataFolderError(f"{path} is a link; it must be a file of this user's") from None
        raise e
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if sys.platform != "win32":
            _require_own_file(path, found)
            if found.st_mode & (_OTHERS_READ | _OTHERS_WRITE):
                log.warning("secret_was_readable_to_others", extra={"path": str(path)})
                os.fchmod(descriptor, 0o600)
        return file.read(_MAX_BYTES).decode("utf-8", "replace").strip()


def write_secret(path: Path, text: str) -> None:
    """Put a file there whole, readable to its owner only, whatever the umask; or none at all."""
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(descriptor)
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    if sys.platform != "win32":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _mode(others_pass: bool) -> int:
    return 0o711 if others_pass and sys.platform != "win32" and os.geteuid() == 0 else 0o700


def _make(folder: Path, mode: int) -> None:
    for path in (*reversed(folder.parents), folder):
        if not path.is_dir():
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
                path.chmod(mode)


def _require_own_links(folder: Path) -> None:
    if sys.platform != "win32" and folder.is_symlink():
        owner = folder.lstat().st_uid
        if owner not in (0, os.geteuid()):
            raise DataFolderError(
                f"DATA_DIR {folder} is a link of user {owner}'s, who could lead it anywhere; name"
                " the folder itself"
            )


def _require_closed(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid not in (0, os.geteuid()):
        raise DataFolderError(
            f"DATA_DIR {folder} belongs to user {found.st_uid}, who could plant a key or a database"
            f" there; it must belong to user {os.geteuid()}: chown it, or name another folder"
        )
    for above in folder.parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise DataFolderError(
                f"everybody can write in {above} (mode {mode & 0o7777:o}) and put another folder in"
                f" the place of DATA_DIR {folder}; close it (chmod o-w), or name another folder"
            )
    if not found.st_mode & _OTHERS_WRITE:
        return
    if found.st_uid == os.geteuid():
        # Closed first, then looked at: nothing is planted in between.
        folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS_WRITE)
        if not any(folder.iterdir()) or not _others_may_have_written(found):
            log.warning("data_folder_closed_to_others", extra={"path": str(folder)})
            return
        folder.chmod(stat.S_IMODE(found.st_mode))
    raise DataFolderError(
        f"others can write in DATA_DIR {folder} (mode {found.st_mode & 0o7777:o}), so what it holds"
        " may not be this service's; see that everything in it is, then close it: chmod go-w"
    )


def _others_may_have_written(found: os.stat_result) -> bool:
    """Whether the write bits of a folder or file of ours let in anybody but us.

    Where the umask is 002, each user has a group of his own, of his name.
    """
    if found.st_mode & stat.S_IWOTH or os.geteuid() == 0 or found.st_uid != os.geteuid():
        return True
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(found.st_gid)
    except KeyError:
        return True
    return not (
        user.pw_gid == group.gr_gid
        and user.pw_name == group.gr_name
        and set(group.gr_mem) <= {user.pw_name}
        and all(u.pw_uid == user.pw_uid for u in pwd.getpwall() if u.pw_gid == user.pw_gid)
    )


def _require_own_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        what = "has other names (hard links)" if stat.S_ISREG(found.st_mode) else "is no plain file"
    elif found.st_uid not in (0, os.geteuid()):
        what = f"belongs to user {found.st_uid}"
    elif found.st_mode & _OTHERS_WRITE and _others_may_have_written(found):
        what = f"can be written by others (mode {found.st_mode & 0o7777:o})"
    else:
        return
    raise DataFolderError(
        f"{path} {what}, so it may not be this service's; delete it, and the next start makes a new"
        " one"
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else is at work on the folder's key meanwhile."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
