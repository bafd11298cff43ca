"""SQL in files: named blocks, loaded once."""

from __future__ import annotations

import re
from importlib.resources import files

_BLOCK = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def load(package: str, filename: str) -> dict[str, str]:
    """The blocks of a ``.sql`` file, by name. A block begins at ``-- name: NAME``."""
    text = files(package).joinpath(filename).read_text(encoding="utf-8")
    parts = _BLOCK.split(text)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
