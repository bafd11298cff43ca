"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, in the form of the HTTP API.")]
Session = Annotated[
    str | None,
    typer.Option("--session", metavar="ID", help="The session. Default: HOLDFAST_SESSION_ID."),
]
Instance = Annotated[
    str | None,
    typer.Option("--instance", metavar="ID", help="The instance. Default: HOLDFAST_INSTANCE_ID."),
]
