"""One request, and the reply to it."""

from __future__ import annotations

from uvicorn._types import ASGISendEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


class Cycle(RequestResponseCycle):
    """Sends a whole reply at once: with one system call, and in one packet if it is small.

    uvicorn sends the head of a reply when it is known and the body when that is. A head that says
    how long the body is, is held until the body comes; all others go out as uvicorn sends them, as
    early as possible, since their body may be long in coming.
    """

    # What is held: the message, its bytes, and the length of the body that it announces.
    _start: HTTPResponseStartEvent | None = None
    _head = b""
    _length = 0

    async def send(self, message: ASGISendEvent) -> None:
        """What the application calls with each part of its reply."""
        if message["type"] == "http.response.start":
            if not self.response_started and self._hold(message):
                return
        elif self._start is not None:
            start, self._start = self._start, None
            if message["type"] == "http.response.body" and not message.get("more_body"):
                if self.flow.write_paused and not self.disconnected:
                    await self.flow.drain()
                if not self.disconnected:
                    self._reply(message.get("body", b""))
                return
            await super().send(start)
        await super().send(message)

    def _hold(self, start: HTTPResponseStartEvent) -> bool:
        """Keep a head, if it says how long its body is, and says nothing of the connection."""
        parts = [STATUS_LINE[start["status"]]]
        length = None
        lines = 1
        for name, value in (*self.default_headers, *start.get("headers", ())):
            parts += (name, b": ", value, b"\r\n")
            lines += 1
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                return False
        if length is None:
            return False
        head = b"".join(parts)
        if head.count(b"\n") != lines or head.count(b"\r") != lines:
            raise RuntimeError("a header of a reply has a line break")
        self._start, self._head, self._length = start, head, length
        return True

    def _reply(self, body: bytes) -> None:
        if self.scope["method"] == "HEAD":
            body = b""
        elif len(body) != self._length:
            raise RuntimeError("a reply is not as long as it says")
        self.response_started = True
        self.waiting_for_100_continue = False
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((self._head, end, body)))
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
