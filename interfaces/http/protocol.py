"""A connection that costs bounded memory, CPU and time, whatever comes in on it.

uvicorn's protocol trusts whoever is at the other end: it parses and queues all requests that have
arrived, gathers a header for as long as it goes on, and waits for ever. Here

- data is handed to the parser in pieces of one request, and a few requests wait behind one that is
  being answered; the rest stays in the socket;
- every byte of a header, a trailer, a chunk's extension counts as it arrives;
- each phase has its time (:mod:`~interfaces.http.doorkeeper` looks at the clock);
- what is refused is answered in the product's form, and the connection ends with it.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from domain.errors import HoldfastError
from interfaces.errors import (
    HeadersTooLarge,
    MalformedRequest,
    PayloadTooLarge,
    RequestTimeout,
    TooManyConnections,
    UrlTooLong,
    reply_of,
    status_of,
)
from interfaces.http.cycle import Cycle
from interfaces.http.doorkeeper import MAX_HELD, Doorkeeper

MAX_URL = 32 * 1024
MAX_HEAD = 32 * 1024
MAX_HEADERS = 100
# A reply tells where the request went, as far as that is worth it.
MAX_TOLD_PATH = 1_000
# Requests that may wait behind one that is being answered.
MAX_WAITING = 4
# All that may arrive for one body, with its framing, before the connection ends: a client that has
# been refused for its size gets to read that even if it goes on sending for a while.
MAX_RAW_BODY = 16 * 1024 * 1024
# Framing of a body without a byte of the body.
MAX_FRAMING = 32 * 1024
# Up to here data goes to the parser in one piece, as nearly all requests do.
SMALL = 8 * 1024
# Pieces that are parsed before others have their turn. What is in chunks may be in chunks of one
# byte: so much of it is one piece, and a turn of its own.
MAX_PIECES = 16
MAX_CHUNKED = 1024
# Of a length: what has more is far beyond every limit.
MAX_DIGITS = 18
# For how long, in seconds, and how much is still read after a refusal, so that it can be read too.
LINGER_SECONDS = 2.0
MAX_LINGER = 1024 * 1024
# The pause, in seconds, after each piece of what is read only to be thrown away.
BREATH_SECONDS = 0.05

_BLANK = re.compile(rb"[\r\n]+")
_FRAMING = frozenset({b"transfer-encoding", b"content-length", b"expect"})

# Where a connection is: between requests, in a header, in a body, or refused.
BETWEEN, HEAD, BODY, REFUSED = range(4)


class Connection(HttpToolsProtocol):
    """A connection of ``holdfast-server serve``."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._doorkeeper: Doorkeeper = app_state["doorkeeper"]
        self._limits = self._doorkeeper.limits
        self.address = "unknown"
        self.url = b""
        self._phase = BETWEEN
        # When the present phase began.
        self._since = self._doorkeeper.now
        # The request that is being answered; `self.cycle` is the one that came last.
        self._answering: RequestResponseCycle | None = None
        self._has_key = False
        self._has_asked = False
        # A request came before the last one was answered. Whoever sends many at once takes turns
        # like a stranger: with a key too, it would leave nobody else any time.
        self._has_pipelined = False
        # Counted of the request that is arriving: bytes of its header as they come, lines and bytes
        # of what is complete in it, bytes of its body with and since the last without framing.
        self._raw_head = 0
        self._lines = 0
        self._head = 0
        self._raw_body = 0
        self._framing = 0
        self._body_in_piece = 0
        # Bytes of its body that are still to come, if its header tells how many.
        self._to_come = 0
        self._is_chunked = False
        # Nothing but blank lines has come of it.
        self._is_blank = False
        # Data that is not parsed yet, and from where on.
        self._rest: bytes | None = None
        self._at = 0
        self._refusal: HoldfastError | None = None
        self._lingered = 0
        # The bytes that wait to be read by the client, as last seen, and when they became fewer.
        self._unread = 0
        self._unread_since: float | None = None

    # What the doorkeeper asks

    @property
    def has_key(self) -> bool:
        """Whether a valid key came with one of its requests."""
        if not self._has_key and self._answering is not None:
            self._has_key = "principal" in self._answering.scope["state"]
        return self._has_key

    @property
    def is_busy(self) -> bool:
        """Whether a request of it is being answered."""
        return self._answering is not None and not self._answering.response_complete

    def drop(self) -> None:
        """End it at once."""
        self.transport.abort()

    # What the server asks

    def shutdown(self) -> None:
        """Answer the current request, then close. The first connection told informs the service."""
        self._doorkeeper.close()
        super().shutdown()

    def look(self, now: float) -> None:
        """End it if it has used up its time."""
        if self._is_unread(now):
            self.drop()
            return
        if self.transport.is_closing():
            return
        passed = now - self._since
        limits = self._limits
        if self._phase == BODY:
            if self.flow.read_paused:
                # It is this side that does not read.
                self._since = now
            elif passed > limits.body_seconds:
                self._refuse(RequestTimeout())
        elif self.is_busy:
            self._since = now
        elif self._phase == HEAD:
            if passed > limits.header_seconds:
                self._refuse(RequestTimeout())
        elif self._phase == REFUSED:
            if passed > LINGER_SECONDS:
                self.transport.close()
        # Whoever has connected has something to say.
        elif passed > (limits.idle_seconds if self._has_asked else limits.header_seconds):
            self.transport.close()

    def _is_unread(self, now: float) -> bool:
        """Whether the client has read nothing of its waiting replies for too long."""
        size = self.transport.get_write_buffer_size()
        if not size:
            self._unread_since = None
        elif self._unread_since is None or size < self._unread:
            self._unread_since = now
        self._unread = size
        since = self._unread_since
        return since is not None and now - since > self._limits.write_seconds

    # What the transport says

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self.address = self.client[0] if self.client else "unknown"
        self._since = self._doorkeeper.now
        if not self._doorkeeper.admit(self):
            self._answer_with(TooManyConnections())
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended; drop what it held, without leaving reference cycles."""
        self._doorkeeper.forget(self)
        answering = self._answering
        if answering is not None and not answering.response_complete:
            answering.disconnected = True
            answering.message_event.set()
        super().connection_lost(exc)
        self._let_go()
        self.pipeline.clear()
        self._answering = None
        self.cycle = None  # type: ignore[assignment]
        self.scope = None  # type: ignore[assignment]
        self.headers = []

    def data_received(self, data: bytes) -> None:
        """Data has arrived."""
        if self._phase == REFUSED:
            self._lingered += len(data)
            if self._lingered > MAX_LINGER:
                self.drop()
            else:
                self._breathe()
        elif self._rest is not None:
            # Some had been read already when reading was paused.
            rest, at = self._let_go()
            self._hold(rest[at:] + data, 0)
        else:
            self._take(data, 0)

    # Parsing

    def _take(self, data: bytes, at: int) -> None:
        """Parse data until enough requests wait or other connections get their turn."""
        end = len(data)
        left = MAX_PIECES
        while at < end:
            if not self._has_room:
                self._hold(data, at)
                return
            if left <= 0:
                self._hold(data, at)
                self._doorkeeper.take_turns(self._continue)
                return
            if (self._phase == BETWEEN or self._is_blank) and data[at] in b"\r\n":
                at = self._skip_blank(data, at)
                if self._phase == REFUSED:
                    return
                continue
            left -= MAX_PIECES if self._phase == BODY and self._is_chunked else 1
            cut = self._cut(data, at, end)
            piece = data if cut - at == end else memoryview(data)[at:cut]
            at = cut
            if not self._parse(piece):
                return

    def _skip_blank(self, data: bytes, at: int) -> int:
        """Where blank lines end. They say nothing, however many: the parser need not see them."""
        if self._phase == BETWEEN:
            self._phase = HEAD
            self._since = self._doorkeeper.now
            self._raw_head = 0
            self._is_blank = True
        found = _BLANK.match(data, at)
        end = at if found is None else found.end()
        self._raw_head += end - at
        if self._raw_head > MAX_HEAD:
            self._refuse(HeadersTooLarge())
        return end

    def _continue(self) -> None:
        """Go on with what is kept."""
        if self._rest is None or not self._has_room or self.transport.is_closing():
            return
        self.flow.is_full = False  # type: ignore[attr-defined]
        self._take(*self._let_go())
        self.flow.resume_reading()

    @property
    def _has_room(self) -> bool:
        """Whether another request may be parsed, or more of the last one's body."""
        waiting = len(self.pipeline)
        return waiting < MAX_WAITING and not (waiting and self._phase == BODY)

    def _cut(self, data: bytes, at: int, end: int) -> int:
        """Where the next piece ends: no header ends before its last bytes."""
        if self._phase == BODY:
            if self._is_chunked:
                end = min(end, at + MAX_CHUNKED)
            elif 0 < self._to_come <= end - at:
                return at + self._to_come
            else:
                return end
        if self._phase == HEAD:
            # A header that goes on beyond the limit need not be parsed to see it.
            end = min(end, at + MAX_URL + MAX_HEAD)
        cut = data.find(b"\r\n\r\n", at, end) + 4
        if cut < 4:
            return end
        if (
            at == 0
            and end < SMALL
            and self._phase != BODY
            and not self.is_busy
            and data.find(b"\r\n\r\n", cut) < 0
        ):
            return end
        return cut

    def _parse(self, piece: bytes | memoryview) -> bool:
        """Hand a piece to the parser. Returns whether to go on."""
        if self._phase == BETWEEN:
            self._phase = HEAD
            self._since = self._doorkeeper.now
            self._raw_head = 0
        was_body = self._phase == BODY
        self._body_in_piece = 0
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # The wish is not granted, and the answer is that of a request without it. What comes
            # behind may be in another protocol.
            self.cycle.keep_alive = False
            self._phase = REFUSED
            return False
        except httptools.HttpParserError as e:
            # Without a name here, or the error would keep this frame and be kept by it.
            self._refuse(_known(e))
            return False
        # In the piece with the header's end, framing is not told from the header; it is small.
        return self._is_within_limits(len(piece) if was_body else self._body_in_piece, len(piece))

    def _is_within_limits(self, body: int, size: int) -> bool:
        if self._phase == HEAD:
            self._raw_head += size - self._body_in_piece
            if self._raw_head > MAX_HEAD + len(self.url) + SMALL:
                self._refuse(HeadersTooLarge())
                return False
        elif self._phase == BODY:
            self._raw_body += body
            self._framing = 0 if self._body_in_piece else self._framing + body
            if self.cycle.response_complete:
                self._breathe()
            if self._framing > MAX_FRAMING:
                self._refuse(HeadersTooLarge())
                return False
            if self._raw_body > MAX_RAW_BODY:
                self._refuse(PayloadTooLarge())
                return False
        return True

    def _breathe(self) -> None:
        """Stop reading for a moment, so that other connections get their turn."""
        self.transport.pause_reading()
        self.loop.call_later(BREATH_SECONDS, self._go_on)

    def _go_on(self) -> None:
        if not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _hold(self, data: bytes, at: int) -> None:
        """Keep data for later, and read no more."""
        self._rest, self._at = data, at
        self._doorkeeper.held += len(data)
        flow = self.flow
        flow.pause_reading()
        flow.is_full = True  # type: ignore[attr-defined]
        if self._doorkeeper.held > MAX_HELD:
            self._doorkeeper.tell("too_many_requests_waiting", self.address)
            self.drop()

    def _let_go(self) -> tuple[bytes, int]:
        """What was kept, and from where on."""
        data, self._rest = self._rest, None
        if data is None:
            return b"", 0
        self._doorkeeper.held -= len(data)
        return data, self._at

    # What the parser says

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._phase = HEAD
        self._raw_head = self._head = self._lines = self._to_come = 0
        self._is_chunked = self._is_blank = False

    def on_url(self, url: bytes) -> None:
        """A piece of the URL."""
        self.url += url
        if len(self.url) > MAX_URL:
            raise UrlTooLong

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the header, or of the trailer, which counts but is not needed."""
        self._lines += 1
        self._head += len(name) + len(value) + 4
        if self._lines > MAX_HEADERS or self._head > MAX_HEAD:
            raise HeadersTooLarge
        if self._phase == BODY:
            return
        name = name.lower()
        if name in _FRAMING:
            self._on_framing(name, value)
        self.headers.append((name, value))

    def _on_framing(self, name: bytes, value: bytes) -> None:
        """What a header says of the body that follows."""
        if name == b"transfer-encoding":
            # Another one than a proxy understood is how a request gets past it inside of a body.
            if value.strip().lower() != b"chunked":
                raise MalformedRequest
            self._is_chunked = True
        elif name == b"content-length":
            if value.isdigit():
                self._to_come = int(value.lstrip(b"0")[:MAX_DIGITS] or b"0")
        elif value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """The request can be answered; its body may still be to come."""
        version = self.parser.get_http_version()
        if version != "1.1" and (version != "1.0" or self._is_chunked):
            raise MalformedRequest
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": self.parser.get_method().decode("ascii"),
            "scheme": self.scheme or "http",
            "server": self.server,
            "client": self.client,
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        before: RequestResponseCycle | None = self.cycle
        self.cycle = Cycle(
            self.scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            self.access_log,
            self.server_state.default_headers,
            asyncio.Event(),
            self.expect_100_continue,
            version != "1.0" and self.parser.should_keep_alive(),
            self.on_response_complete,
        )
        self._phase = BODY
        self._since = self._doorkeeper.now
        self._raw_body = self._framing = 0
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self._has_pipelined = True
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_in_piece += len(body)
        self._to_come -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived as a whole."""
        self._phase = BETWEEN
        self._since = self._doorkeeper.now
        super().on_message_complete()

    # Answering

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        self._has_asked = True
        if self._has_key and not self._has_pipelined:
            super()._start_asgi_task(cycle, app)
        else:
            self._doorkeeper.take_turns(partial(self._begin, cycle, app))

    def _begin(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # Whoever waited for his turn may have gone, or may have sent what ends it.
        if not cycle.disconnected:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """A request is answered: it is the next one's turn."""
        self.server_state.total_requests += 1
        answered = self._answering
        assert answered is not None
        if not self._has_key and self.has_key:
            self._doorkeeper.introduce(self)
        # What nobody has read of its body, nobody will.
        answered.body = bytearray()
        self._since = self._doorkeeper.now
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._end_with(self._refusal)
            return
        elif self._phase == BODY and self.expect_100_continue and not self._raw_body:
            # Whether the body that was not asked for will come, nobody can tell.
            self.transport.close()
            return
        if self._rest is not None and self._has_room:
            self.flow.is_full = False  # type: ignore[attr-defined]
            self._take(*self._let_go())
        self.flow.resume_reading()

    def _refuse(self, error: HoldfastError) -> None:
        """Answer with this error after all earlier requests are answered, then close."""
        self._doorkeeper.tell(error.code, self.address)
        if self._phase == BODY and self.cycle is self._answering:
            # The app waits for the rest of this very request.
            broken = self.cycle
            if broken.response_started:
                self.transport.close()
                return
            broken.disconnected = True
            broken.message_event.set()
            self._end_with(error)
            return
        if self._phase == BODY and self.pipeline:
            self.pipeline.popleft()
        if self.is_busy:
            self._phase = REFUSED
            self._refusal = error
        else:
            self._end_with(error)

    def _end_with(self, error: HoldfastError) -> None:
        self._answer_with(error)
        self._phase = REFUSED
        self._answering = None
        self._since = self._doorkeeper.now
        # Were it closed while there is something to be read, the client might never see why.
        self.flow.is_full = False  # type: ignore[attr-defined]
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _answer_with(self, error: HoldfastError) -> None:
        request_id = str(uuid4())
        path = self.url.partition(b"?")[0].decode("latin-1")[:MAX_TOLD_PATH]
        content = reply_of(error, path, request_id)
        head = [STATUS_LINE[status_of(error)]]
        for name, value in (
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
        ):
            head += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join([*head, b"\r\n", content]))


def _known(error: httptools.HttpParserError) -> HoldfastError:
    """What a callback of the parser has raised, or that the parser has found something."""
    cause = error.__context__
    return cause if isinstance(cause, HoldfastError) else MalformedRequest()


class _Flow(FlowControl):
    """Reading goes on when there is room for more requests too, not for a body alone."""

    is_full = False

    def resume_reading(self) -> None:
        if not self.is_full:
            super().resume_reading()
