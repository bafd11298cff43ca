"""The row of the operations table (:class:`Operation`), and what its models and functions share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    model_validator,
)

from application.engine.fields import Command, Fence
from application.engine.unit_of_work import Context, Outcome
from application.eventstore.store import MAX_POSITION
from application.past import Past
from domain.aggregate import Json
from domain.errors import InvalidInput, Unavailable
from interfaces.operations.following import Followers
from projections.kernel.progress import Progress
from projections.kernel.reads import Freshness, Page, Reads, freshness

T = TypeVar("T")
Scope = Literal["read", "write", "admin"]
Bucket = Literal["api", "ingest"]

LIST_MAX = 200  # spec 9


def _true_or_false(value: object) -> object:
    # A query string knows text only.
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


Position = Annotated[int, Field(ge=0, le=MAX_POSITION)]
Flag = Annotated[StrictBool, BeforeValidator(_true_or_false)]


class Params(BaseModel):
    """A query's parameters, from path and query string. Unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_position: Position | None = None


class Listing(Params):
    """A page of a list."""

    limit: Annotated[int, Field(ge=1, le=LIST_MAX)] = 50
    offset: Annotated[int, Field(ge=0, le=2**31)] = 0
    # ``next_cursor`` of the page before; the next page starts behind it whatever changes.
    cursor: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _either_cursor_or_offset(self) -> Self:
        return either_cursor_or_offset(self)

    @property
    def page(self) -> Page:
        """The requested page."""
        return Page(self.limit, self.offset, self.cursor)


P = TypeVar("P", bound=Params)


def either_cursor_or_offset(given: P) -> P:
    """Return the parameters. Raises :class:`InvalidInput` if they have a cursor and an offset."""
    # Some clients send every default, so an offset of 0 is allowed beside a cursor.
    if getattr(given, "cursor", None) is not None and getattr(given, "offset", None):
        message = "give a cursor or an offset, not both"
        raise InvalidInput.of_fields(
            [{"field": name, "message": message} for name in ("cursor", "offset")]
        )
    return given


class ActionParams(BaseModel):
    """An action's fields; like any write it may carry a fence (spec 6)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: Fence | None = None


class Sweeps(Protocol):
    """The background jobs that operations can start."""

    async def detect_failures(self, context: Context) -> ActionResult:
        """Record every stalled session of a namespace now."""

    async def clean_up(self, context: Context, older_than: timedelta | None) -> ActionResult:
        """Delete sessions that ended long ago."""


class ActionResult(NamedTuple):
    """What an action did, and the position of its last event (the head if it wrote nothing)."""

    value: Json
    position: int


class Services(Protocol):
    """What queries and actions need to do their work."""

    @property
    def reads(self) -> Reads: ...
    @property
    def history(self) -> Past: ...
    @property
    def progress(self) -> Progress: ...
    @property
    def followers(self) -> Followers: ...
    @property
    def sweeps(self) -> Sweeps: ...
    @property
    def stall_threshold_ms(self) -> int: ...
    @property
    def instance_stale_seconds(self) -> float: ...
    async def submit(self, command: object, context: Context) -> Outcome:
        """Carry out a command."""

    async def submit_all(
        self, commands: Sequence[tuple[object, Context]]
    ) -> list[Outcome | BaseException]:
        """Carry out many commands. For each the outcome or the error."""


Prepare = Callable[[Services, str, Any], Awaitable[Mapping[str, object]]]
Query = Callable[[Services, str, Any], Awaitable[Json]]
Action = Callable[[Services, Context, Any], Awaitable[ActionResult]]


class Tool(NamedTuple):
    """An operation as an MCP tool: its name, and advice that is appended to the summary.

    ``grouped`` maps the name of an object to the fields that may also be sent inside it.
    """

    name: str
    advice: str = ""
    grouped: Mapping[str, Sequence[str]] = {}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One row of the table. Exactly one of ``command``, ``query`` and ``action`` is set.

    ``name`` is also stored with events as their command. ``prepare`` fills in a command's
    ``Found`` fields from the read models. With a ``tool`` the operation is offered by MCP too.

    ``reply`` is the model of what a success answers; None if that is always 204, without a body.
    ``may_be_empty``: 204 is answered too. Replies are not validated when they are given: tests hold
    them against the model, and OpenAPI publishes it.
    """

    name: str
    verb: Literal["GET", "POST", "PATCH", "PUT", "DELETE"]
    path: str
    summary: str
    model: type[BaseModel]
    command: bool = False
    prepare: Prepare | None = None
    query: Query | None = None
    action: Action | None = None
    reply: type[Any] | None = None
    may_be_empty: bool = False
    status: int = 200
    scope: Scope = "write"
    bucket: Bucket = "api"
    tool: Tool | None = None


def command(
    name: str,
    verb: Literal["POST", "PATCH", "PUT", "DELETE"],
    path: str,
    model: type[Command],
    status: int = 200,
    prepare: Prepare | None = None,
    scope: Scope = "write",
    bucket: Bucket = "api",
    tool: Tool | None = None,
    *,
    reply: type[Any] | None = None,
    may_be_empty: bool = False,
) -> Operation:
    """A row whose model is a command; its docstring's first line is the summary."""
    return Operation(
        name=name,
        verb=verb,
        path=path,
        summary=_first_line(model),
        model=model,
        command=True,
        prepare=prepare,
        reply=reply,
        may_be_empty=may_be_empty,
        status=status,
        scope=scope,
        bucket=bucket,
        tool=tool,
    )


def query(
    name: str,
    path: str,
    model: type[Params],
    query: Query,
    tool: Tool | None = None,
    *,
    reply: type[Any],
) -> Operation:
    """A row whose function reads; its docstring's first line is the summary."""
    return Operation(
        name=name,
        verb="GET",
        path=path,
        summary=_first_line(query),
        model=model,
        query=query,
        reply=reply,
        scope="read",
        tool=tool,
    )


def action(
    name: str,
    verb: Literal["POST", "DELETE"],
    path: str,
    model: type[ActionParams],
    action: Action,
    scope: Scope = "admin",
    bucket: Bucket = "api",
    *,
    reply: type[Any],
) -> Operation:
    """A row whose function sends many commands; its docstring's first line is the summary."""
    return Operation(
        name=name,
        verb=verb,
        path=path,
        summary=_first_line(action),
        model=model,
        action=action,
        reply=reply,
        scope=scope,
        bucket=bucket,
    )


async def unless_lagging(find: Awaitable[T], question: str) -> T:
    """What a read model finds. Raises ``Unavailable`` if that is nothing while it lags."""
    fresh = Freshness()
    freshness.set(fresh)
    found = await find
    if not found and fresh.lag:
        raise Unavailable(
            f"The read models lag behind, so it is not known yet {question}. Try again."
        )
    return found


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]
