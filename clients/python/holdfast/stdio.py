"""MCP by stdio: a thin bridge between an agent's pipes and the service's ``/mcp`` (spec 10).

Each line from stdin is one JSON-RPC message and goes to the service as it is; the answer comes back
as a line on stdout, where nothing else is ever written. What is said, and in which version of the
protocol, is the service's and the agent's affair; the bridge only puts into HTTP headers what the
protocol wants to see there.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import httpx

from holdfast.additions import UNKNOWN
from holdfast.errors import (
    Conflict,
    HoldfastError,
    Unavailable,
    Unreachable,
    of_reply,
    of_something_else,
)
from holdfast.exchange import Answer, Exchange, Unusable
from holdfast.proof import FIELD, proven_arguments
from holdfast.replies import parsed
from holdfast.request import dumped
from holdfast.settings import RUN_OVER, Settings, is_over, key_header, warn_of_clear_text

log = logging.getLogger("holdfast.mcp")

# The service itself gives up after 29 seconds.
TIMEOUT_SECONDS = 35.0
# An agent that gets no answer to its first words does without the server for good; a model
# can try a tool again.
FIRST_PATIENCE_SECONDS = 20.0
PATIENCE_SECONDS = 3.0
PAUSE_SECONDS = 0.2
AT_ONCE = 32

FIRST_WORDS = frozenset({"initialize", "server/discover"})
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
VERSION_IN_META = "io.modelcontextprotocol/protocolVersion"

PARSE_ERROR, INVALID_REQUEST, SERVICE_ERROR = -32700, -32600, -32000

Message = dict[str, Any]


class Bridge:
    """Carries messages until ``source`` ends."""

    def __init__(self, settings: Settings, source: BinaryIO, sink: BinaryIO) -> None:
        warn_of_clear_text(settings)
        self._settings = settings
        self._source = source
        self._sink = sink
        self._exchange = Exchange(settings.url, TIMEOUT_SECONDS)
        self._writing = threading.Lock()
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._in_flight: dict[object, bool] = {}
        self._version: str | None = None
        # The tools of a service of a former version that do not know the field of the proof.
        self._unproven: frozenset[str] = frozenset()
        self._first_until = time.monotonic() + FIRST_PATIENCE_SECONDS

    def run(self) -> None:
        """Read until the end; what is under way then is still answered."""
        threads: list[threading.Thread] = []
        for line in self._source:
            if not line.strip():
                continue
            self._room.acquire()
            thread = threading.Thread(target=self._carry, args=(line,), daemon=True)
            thread.start()
            threads = [other for other in threads if other.is_alive()] + [thread]
        for thread in threads:
            thread.join()
        self._exchange.close()

    def _carry(self, line: bytes) -> None:
        try:
            message = _parsed(line)
            if message is None:
                self._answer(_error(None, PARSE_ERROR, "This line is not JSON."))
            elif not isinstance(message, dict):
                self._answer(_error(None, INVALID_REQUEST, "A message is one JSON object a line."))
            elif isinstance(message.get("id"), dict | list):
                self._answer(_error(None, INVALID_REQUEST, "An id is a text or a number."))
            elif "method" in message and "id" in message:
                self._request(message, line)
            elif message.get("method") == "notifications/cancelled":
                self._cancel(message)
            elif "method" in message:
                with suppress(HoldfastError):
                    self._post(message, line)
        except Exception:
            log.exception("A message was not carried.")
        finally:
            self._room.release()

    def _request(self, message: Message, line: bytes) -> None:
        request_id = message["id"]
        with self._lock:
            self._in_flight[request_id] = True
        try:
            self._refuse_a_past_run(message)
            answer = self._proven(message, line)
        except HoldfastError as e:
            answer = _error(request_id, SERVICE_ERROR, e.message, {"code": e.code})
        except Exception as e:
            # Whatever it is, an agent that gets no answer waits for ever.
            log.exception("A request was not carried.")
            answer = _error(request_id, SERVICE_ERROR, f"The bridge failed: {e}")
        # As the service is asked from here on; an answer without an id must not wait for ever.
        answer = {**answer, "id": request_id}
        if message["method"] == "initialize":
            version = (answer.get("result") or {}).get("protocolVersion")
            self._version = version if isinstance(version, str) else None
        with self._lock:
            is_wanted = self._in_flight.pop(request_id)
        if is_wanted:
            self._answer(answer)

    def _refuse_a_past_run(self, message: Message) -> None:
        """An agent that outlived its run does not act in its name. Raises ``Conflict``."""
        if message["method"] != "tools/call":
            return
        params = message.get("params")
        arguments = params.get("arguments") if isinstance(params, dict) else None
        if not isinstance(arguments, dict):
            return
        own = {os.environ.get(name) for name in ("HOLDFAST_SESSION_ID", "HOLDFAST_INSTANCE_ID")}
        named = {value for value in arguments.values() if isinstance(value, str) and value}
        if named & own and is_over(os.environ):
            raise Conflict(f"{RUN_OVER}.", code="run_over")

    def _proven(self, message: Message, line: bytes) -> Message:
        """The answer to a request that shows, if it is made in the name of the run around the
        agent, that it is made by that run. Raises :class:`HoldfastError`.
        """
        params = message.get("params")
        if message["method"] != "tools/call" or not isinstance(params, dict):
            return self._post(message, line)
        tool, arguments = str(params.get("name")), params.get("arguments")
        with_fence = proven_arguments(tool, arguments, self._settings.fences.get)
        if with_fence is arguments or tool in self._unproven:
            return self._post(message, line)
        proven = {**message, "params": {**params, "arguments": with_fence}}
        answer = self._post(proven, dumped(proven).encode() + b"\n")
        if not _does_not_know(answer, FIELD):
            return answer
        self._unproven |= {tool}
        return self._post(message, line)

    def _cancel(self, message: Message) -> None:
        """Whoever cancels does not want an answer any more."""
        request_id = (message.get("params") or {}).get("requestId")
        with self._lock:
            if request_id in self._in_flight:
                self._in_flight[request_id] = False

    def _post(self, message: Message, line: bytes) -> Message:
        """The service's answer; empty to a notification. Raises :class:`HoldfastError`."""
        headers = self._headers(message)
        is_first = message["method"] in FIRST_WORDS
        until = self._first_until if is_first else time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self._exchange.ask("POST", "/mcp", content=line, headers=headers)
                break
            except (httpx.ConnectError, httpx.ConnectTimeout) as e:
                # It has not reached anyone: asking again does nothing twice.
                if time.monotonic() > until:
                    raise self._unreachable(e) from e
                time.sleep(PAUSE_SECONDS)
            except httpx.RequestError as e:
                raise self._unreachable(e, " It may have been carried out.") from e
            except Unusable as e:
                raise of_something_else(e.status, self._settings.shown_url, why=e.why) from e
        return self._read(answer, message.get("id"))

    def _headers(self, message: Message) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **key_header(self._settings.api_key),
        }
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        meta = params.get("_meta")
        stated = meta.get(VERSION_IN_META) if isinstance(meta, dict) else None
        if isinstance(stated, str):
            headers["MCP-Protocol-Version"] = _in_header(stated)
            headers["Mcp-Method"] = _in_header(str(message["method"]))
            name = params.get(NAMED_BY.get(str(message["method"]), ""))
            if isinstance(name, str):
                headers["Mcp-Name"] = _in_header(name)
        elif self._version is not None and message["method"] != "initialize":
            headers["MCP-Protocol-Version"] = self._version
        return headers

    def _read(self, answer: Answer, request_id: object) -> Message:
        body = _parsed(answer.content)
        if _answers(body, request_id):
            found: Message = body
            return found
        if answer.is_success and not answer.content and request_id is None:
            return {}
        error = of_reply(
            answer.status, body, answer.headers.get("x-request-id"), self._settings.shown_url
        )
        if isinstance(error, Unavailable):
            error.message += " Try again in a moment."
        raise error

    def _unreachable(self, error: Exception, remark: str = "") -> Unreachable:
        reason = str(error) or type(error).__name__
        return Unreachable(
            f"holdfast cannot be reached at {self._settings.shown_url}: {reason}.{remark} Go on"
            " with the work and try again later; if it stays away, a person has to start it with"
            " `holdfast-server serve`."
        )

    def _answer(self, message: Mapping[str, Any]) -> None:
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        # Once the agent has gone its pipe is broken; its end of stdin follows.
        with self._writing, suppress(OSError, ValueError):
            self._sink.write(text.encode() + b"\n")
            self._sink.flush()


def _parsed(text: bytes) -> Any:
    try:
        return parsed(text)
    except ValueError:
        return None


def _answers(body: Any, request_id: object) -> bool:
    """Whether it is a JSON-RPC answer to the request of this id (``None``: to a notification)."""
    if not isinstance(body, dict) or body.get("jsonrpc") != "2.0":
        return False
    if isinstance(body.get("error"), dict):
        # What the service could not read has no id that it could repeat.
        return body.get("id") in (request_id, None)
    return isinstance(body.get("result"), dict) and body.get("id") == request_id


def _does_not_know(answer: Message, field: str) -> bool:
    """Whether a tool refused its arguments because it does not know this field."""
    result = answer.get("result")
    told = result.get("structuredContent") if isinstance(result, dict) else None
    if not isinstance(told, dict) or not isinstance(told.get("errors"), list):
        return False
    return {"field": field, "message": UNKNOWN} in told["errors"]


def _error(request_id: object, code: int, text: str, data: Message | None = None) -> Message:
    error: Message = {"code": code, "message": text}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


_PLAIN = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_ENCODED = re.compile(r"=\?base64\?.*\?=")


def _in_header(text: str) -> str:
    """As the protocol writes a value in a header that headers would not take."""
    if _PLAIN.fullmatch(text) and not _ENCODED.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode('ascii')}?="
