"""The folders and files of the embedded Postgres: made, copied, written whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def make_folders(folder: Path) -> None:
    """Make a folder and those above it that are missing; those that exist stay as they are."""
    for path in (*reversed(folder.parents), folder):
        if not path.is_dir():
            path.mkdir(exist_ok=True)
            # Root's must let the server's account through, whatever the umask.
            path.chmod(0o711 if os.geteuid() == 0 else 0o700)


def copy_installation(package: Path, copy: Path) -> None:
    """Copy the wheel's server to where another account can run it; whole, or not at all."""
    unfinished = copy.with_name(f"{copy.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(copy, ignore_errors=True)
    for source in (package / "pginstall18", package.with_name(f"{package.name}.libs")):
        if source.exists():
            target = unfinished / source.relative_to(package.parent)
            ignored = shutil.ignore_patterns("include")
            shutil.copytree(source, target, symlinks=True, ignore=ignored)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
    unfinished.rename(copy)


def write_whole(path: Path, text: str) -> None:
    """Write a file that a crash leaves as it was, or as it is to be."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(text)
    unfinished.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
