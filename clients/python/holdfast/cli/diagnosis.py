"""``holdfast doctor``: check the connection to the service, and say how to repair it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from holdfast.cli.failing import exit_code
from holdfast.cli.options import AsJson
from holdfast.cli.screen import out, print_json
from holdfast.errors import HoldfastError, NotFound, Unauthorized, Unavailable
from holdfast.settings import RUN_OVER, is_in_clear

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.spool import OtherAddress, OtherKey

# Ages are computed by the service; times of day are shown by this machine's clock.
CLOCK_SECONDS = 5.0
SEND_SECONDS = 30.0
# The service's error codes when its database is down, or does not answer in time.
DATABASE_AWAY = frozenset({"database_unavailable", "timeout"})
ENDED = frozenset({"completed", "failed", "closed"})


class Check(NamedTuple):
    """The result of one check: if it failed, also what to do and the exit code for it."""

    name: str
    ok: bool
    found: str
    advice: str | None = None
    exit_code: int = 1


def doctor(
    send: Annotated[
        bool,
        typer.Option(
            "--send", help="Send the writes that wait in the spool, if the service answers."
        ),
    ] = False,
    adopt: Annotated[
        str | None,
        typer.Option(
            "--adopt",
            metavar="ID|URL",
            help="Also send the writes that wait for another API key (give its id), with the"
            " current key; or those for another address (give its URL), to the current one.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the connection to the service, and say how to repair what fails.

    The exit code is 0 if every check passes. Otherwise it is that of the worst failure: 6 if the
    service cannot be reached, 5 if the API key is wrong, 1 for anything else.
    """
    from holdfast.client import Client

    with exit_code(as_json), Client(retries=0) as client:
        checks = [*_checks(client, send, adopt)]
    if as_json:
        print_json({"ok": all(check.ok for check in checks), "checks": [*map(_told, checks)]})
    else:
        from holdfast.cli.show import checks as show

        show.listed(out(), checks)
    worst = max((check.exit_code for check in checks if not check.ok), default=0)
    if worst:
        raise typer.Exit(worst)


def _checks(client: Client, send: bool, adopt: str | None) -> Iterator[Check]:
    source = "HOLDFAST_URL" if os.environ.get("HOLDFAST_URL", "").strip() else "the default"
    yield Check("address", True, f"{client.settings.shown_url} ({source})")
    if client.settings.api_key and is_in_clear(client.settings.url):
        advice = "use https, or a tunnel to this machine's loopback"
        yield Check("encryption", False, "the API key is sent over the network in clear", advice)
    yield (reached := _reached(client))
    admitted = reached
    if reached.ok:
        yield _clock(client)
        yield _versions(client)
        yield (admitted := _key(client))
        if admitted.ok:
            yield from _own(client)
    trouble = client.spool.trouble()
    if client.spool.lost().writes:
        yield _lost(client)
    if trouble is not None:
        yield _unusable(client, trouble)
        return
    is_admitted = reached.ok and admitted.ok
    if adopt is not None:
        yield _adoption(client, adopt, is_admitted)
    yield _spool(client, reached.ok, is_admitted, send or adopt is not None)
    for address in client.spool.other_addresses():
        yield _other_address(address)
    for other in client.spool.other_keys():
        yield _other_key(other)


def _reached(client: Client) -> Check:
    started = time.monotonic()
    try:
        client.health()
    except Unavailable as error:
        advice = (
            "start it with `holdfast-server serve` (in its repository: `make run`),"
            " or set HOLDFAST_URL to its address"
        )
        return Check("service", False, error.message, advice, error.exit_code)
    except HoldfastError as error:
        advice = "set HOLDFAST_URL to the address of a holdfast service"
        return Check("service", False, error.message, advice, error.exit_code)
    return Check("service", True, f"answers in {(time.monotonic() - started) * 1000:.0f} ms")


def _clock(client: Client) -> Check:
    before = time.time()
    try:
        told = datetime.fromisoformat(client.health()["timestamp"].replace("Z", "+00:00"))
    except (HoldfastError, ValueError) as e:
        return Check("clock", False, f"the service did not report its time: {e}")
    return clock(before, told.timestamp(), time.time())


def clock(before: float, told: float, after: float) -> Check:
    """Whether the service's time lies between the request and the reply on this machine's clock."""
    skew = max(before - told, told - after, 0.0)
    if skew < CLOCK_SECONDS:
        return Check("clock", True, "agrees with the service's")
    way = "ahead of" if told < before else "behind"
    found = f"this machine's clock is {skew:.0f} s {way} the service's"
    advice = "synchronise it with a time server; the ages that are shown are right all the same"
    return Check("clock", False, found, advice)


def _versions(client: Client) -> Check:
    from holdfast.request import Request

    own = version("holdfast")
    try:
        its = client.read(Request("GET", "/api/docs"))["info"]["version"]
    except HoldfastError as e:
        return Check(
            "versions", False, e.message, "check which program answers at this address", e.exit_code
        )
    found = f"holdfast {own}, service {its}"
    if own.split(".")[:2] == str(its).split(".")[:2]:
        return Check("versions", True, found)
    return Check("versions", False, found, "update the older of the two")


def _key(client: Client) -> Check:
    """Whether the service accepts the API key, or that its database is away and it cannot tell."""
    given = os.environ.get("HOLDFAST_API_KEY", "").strip()
    source = (
        "HOLDFAST_API_KEY" if given else "found: the key of the development service on this machine"
    )
    try:
        client.sessions.counts()
    except Unauthorized as error:
        advice = "set HOLDFAST_API_KEY to a key of this service (a development service prints it)"
        return Check("key", False, error.message.partition(":")[0], advice, error.exit_code)
    except Unavailable as error:
        if error.code not in DATABASE_AWAY:
            raise
        advice = (
            "nothing needs to be done on this machine: writes are kept in the spool meanwhile;"
            " the service's log says why its database is away"
        )
        return Check("database", False, error.message, advice, error.exit_code)
    return Check("key", True, source)


def _own(client: Client) -> Iterator[Check]:
    """The session and the instance that commands act for by default."""
    settings = client.settings
    if settings.past_run:
        advice = "unset HOLDFAST_SESSION_ID and HOLDFAST_INSTANCE_ID, or end the leftover process"
        yield Check("run", False, RUN_OVER, advice)
    if settings.session_id:
        yield _alive("session", settings.session_id, client.sessions.get, "status")
    if settings.instance_id:
        yield _alive("instance", settings.instance_id, client.instances.get, "health")


def _alive(kind: str, an_id: str, ask: Callable[[str], Mapping[str, Any]], field: str) -> Check:
    advice = f"unset HOLDFAST_{kind.upper()}_ID, or set it to one that is open (`holdfast status`)"
    try:
        found = ask(an_id)
    except NotFound:
        return Check(kind, False, f"there is no {kind} {an_id}", advice)
    how, unknown_since = found[field], found.get("unknown_since")
    if how in ENDED:
        return Check(kind, False, f"{an_id} is {how}", advice)
    if unknown_since:
        # The next heartbeat settles it.
        how = f"{how}, but has sent no heartbeat since the service was away (from {unknown_since})"
    return Check(kind, True, f"{an_id} is {how}")


def _lost(client: Client) -> Check:
    writes, since, until = client.spool.lost()
    times = [
        datetime.fromtimestamp(one).astimezone().isoformat(" ", "seconds") for one in (since, until)
    ]
    when = f"at {times[0]}" if times[0] == times[1] else f"between {times[0]} and {times[1]}"
    lost = "1 write was" if writes == 1 else f"{writes} writes were"
    found = (
        f"{lost} lost in the last month, {when}: the service was unreachable and the spool could"
        " not be written"
    )
    advice = "set HOLDFAST_SPOOL_DIR to a folder of your own, on a disk with free space"
    return Check("lost", False, found, advice)


def _unusable(client: Client, trouble: str) -> Check:
    found = f"the spool {client.spool.path} cannot be written: {trouble}"
    advice = "free disk space or repair it, or set HOLDFAST_SPOOL_DIR to a writable folder"
    return Check("spool", False, found, advice)


def _adoption(client: Client, key_id: str, is_admitted: bool) -> Check:
    """Send under the current API key what was kept under another: only a person may decide that."""
    if not is_admitted:
        found = f"the writes that wait for the API key {key_id} were not sent"
        return Check("adopt", False, found, "first set HOLDFAST_API_KEY to a valid key")
    if any(
        key_id in (o.address, o.address.rstrip("/")) for o in client.spool.other_addresses()
    ) or ("://" in key_id):
        return _adopted_address(client, key_id)
    count = client.spool.adopt(key_id)
    if not count:
        found = f"nothing waits for the API key {key_id}"
        return Check("adopt", False, found, "give one of the ids that are listed below, if any")
    found = f"{count} that waited for the API key {key_id} are now sent with the current one"
    return Check("adopt", True, found)


def _adopted_address(client: Client, address: str) -> Check:
    try:
        count = client.spool.adopt_address(address)
    except (OSError, sqlite3.Error, ValueError) as e:
        found = f"the writes that wait for {address} were not taken over: {e}"
        return Check("adopt", False, found, "try again")
    if not count:
        return Check(
            "adopt", False, f"nothing waits for {address}", "give one of those listed below"
        )
    return Check("adopt", True, f"{count} that waited for {address} are now sent here")


def _other_address(other: OtherAddress) -> Check:
    since = datetime.fromtimestamp(other.since).astimezone().isoformat(" ", "minutes")
    advice = (
        "a client with that address sends them; if it is the same service as this one, send them"
        f" here with `holdfast doctor --adopt {other.address}`"
    )
    found = f"{other.writes} written for {other.address}, the first at {since}"
    return Check("other address", False, found, advice)


def _spool(client: Client, is_reached: bool, is_admitted: bool, send: bool) -> Check:
    """The writes that could not be sent yet, and are kept on disk."""
    if send and is_admitted:
        client.flush(SEND_SECONDS)
    kept, _, refused = client.spool.stats()
    found = [f"{kept} waiting to be sent"] if kept else []
    if refused:
        found.append(f"{refused} refused by the service in the last month")
    where = f"{', '.join(found)}, in {client.spool.path}" if found else "nothing waits to be sent"
    if not kept:
        return Check("spool", True, where)
    if is_admitted:
        advice = "send them with `holdfast doctor --send`"
    elif is_reached:
        advice = (
            "they are sent once this API key is valid; if it is the wrong one, set the right one"
            f" and run `holdfast doctor --adopt {client.spool.key_id}`"
        )
    else:
        advice = "they are sent once the service can be reached"
    return Check("spool", False, where, advice)


def _other_key(other: OtherKey) -> Check:
    from holdfast.spool import NO_KEY

    since = datetime.fromtimestamp(other.since).astimezone().isoformat(" ", "minutes")
    key = "no API key" if other.key_id == NO_KEY else f"the API key {other.key_id}"
    advice = (
        "a client with that key sends them; if they belong to the namespace of the current key,"
        f" send them with `holdfast doctor --adopt {other.key_id}`"
    )
    found = f"{other.writes} written under {key}, the first at {since}"
    return Check("other key", False, found, advice)


def _told(check: Check) -> dict[str, object]:
    return {"name": check.name, "ok": check.ok, "found": check.found, "advice": check.advice}
