"""Functions that the views of all read models use: ages in words, thresholds of silence."""

from __future__ import annotations

from projections.kernel.readmodel import ReadModel


class Ages(ReadModel):
    """Functions, no rows."""

    name = "ages"
