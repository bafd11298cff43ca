"""The client's settings, from the environment (spec 17, "CLI")."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from holdfast.address import shown
from holdfast.errors import ConfigurationError, malformed_key
from holdfast.proof import FENCES, heard

DEFAULT_URL = "http://127.0.0.1:8080"
LONGEST_KEY = 128

log = logging.getLogger("holdfast")

_WARNED: set[str] = set()
# Blanks and control characters, and what belongs to a request and not to an address.
_NO_ADDRESS = re.compile(r"[\s\\\x00-\x1f\x7f?#]")
_WELL_FORMED_KEY = re.compile(r"[\x21-\x7e]+(?: +[\x21-\x7e]+)*")


@dataclass(frozen=True)
class Settings:
    """The client's settings, as the environment gives them.

    They are ``HOLDFAST_URL``, ``HOLDFAST_API_KEY``, ``HOLDFAST_SESSION_ID``,
    ``HOLDFAST_INSTANCE_ID`` and ``HOLDFAST_SPOOL_DIR``. An empty variable counts as not set.

    A process can outlive the run that gave it its ids (``HOLDFAST_SUPERVISOR`` names that run).
    Then the ids are not used, and are in ``past_run`` instead.

    ``fences`` are the supervisor's fences of the run's session and instance. Requests for those
    two carry them (:mod:`holdfast.proof`).
    """

    # It may have a password in it: what is told of it is shown_url.
    url: str = field(repr=False)
    api_key: str | None = field(repr=False)
    session_id: str | None
    instance_id: str | None
    spool_dir: Path
    past_run: tuple[str, ...] = ()
    fences: Mapping[str, int] = field(default_factory=dict)

    @property
    def shown_url(self) -> str:
        """The address without a password, for messages."""
        return shown(self.url)

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        url: str | None = None,
        api_key: str | None = None,
    ) -> Settings:
        """Read the environment; arguments override it.

        For a development service on this machine the API key is found automatically. Raises
        :class:`ConfigurationError` if the URL is none.
        """
        environ = os.environ if environ is None else environ

        def said(name: str) -> str | None:
            return environ.get(f"HOLDFAST_{name}", "").strip() or None

        url = _checked(url or said("URL") or DEFAULT_URL)
        session_id, instance_id = said("SESSION_ID"), said("INSTANCE_ID")
        past: tuple[str, ...] = ()
        if (session_id or instance_id) and is_over(environ):
            past = tuple(an_id for an_id in (session_id, instance_id) if an_id)
            session_id = instance_id = None
        return cls(
            url=url,
            api_key=api_key or said("API_KEY") or _development_key(url, environ),
            session_id=session_id,
            instance_id=instance_id,
            spool_dir=_spool_dir(said("SPOOL_DIR")),
            past_run=past,
            fences=heard(environ.get(FENCES, "")),
        )


SUPERVISOR = "HOLDFAST_SUPERVISOR"
RUN_OVER = (
    "The run whose ids are in HOLDFAST_SESSION_ID and HOLDFAST_INSTANCE_ID is over; this process"
    " outlived it, and nothing is recorded in its name any more"
)


def is_over(environ: Mapping[str, str]) -> bool:
    """Whether the run that set this environment is known to have ended."""
    supervisor = environ.get(SUPERVISOR, "").strip()
    if not supervisor:
        return False
    from holdfast.supervision import has_ended

    return has_ended(supervisor)


def key_header(api_key: str | None) -> dict[str, str]:
    """The header that lets in. Raises ``Unauthorized`` for what the service calls malformed: blank,
    control or non-ASCII characters, over 128 long (spec 13).
    """
    if not api_key:
        return {}
    if len(api_key) > LONGEST_KEY or not _WELL_FORMED_KEY.fullmatch(api_key):
        raise malformed_key()
    return {"X-API-Key": api_key}


def is_in_clear(url: str) -> bool:
    """Whether what is sent, the API key among it, can be read by whoever is on the way there."""
    return urlsplit(url).scheme == "http" and not is_local(url)


def warn_of_clear_text(settings: Settings) -> None:
    """Say that the API key goes in clear; once in a process for each address."""
    url = settings.url
    if settings.api_key and is_in_clear(url) and url not in _WARNED:
        _WARNED.add(url)
        log.warning(
            "The API key goes to %s in clear, for all on the way there to read: use https.",
            settings.shown_url,
        )


def is_local(url: str) -> bool:
    """Whether the URL leads to this very machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_one = (
            parts.scheme in ("http", "https")
            and bool((parts.hostname or "").encode("idna"))
            and parts.port != 0
            and not _NO_ADDRESS.search(url)
        )
    except ValueError:
        is_one = False
    if not is_one:
        raise ConfigurationError(
            f"HOLDFAST_URL: {shown(url)!r} is no address of a service; it looks like {DEFAULT_URL}"
        )
    return url.rstrip("/")


def _development_key(url: str, environ: Mapping[str, str]) -> str | None:
    """The key that a development service keeps in its data folder, for its own machine only."""
    if not is_local(url):
        return None
    given = environ.get("DATA_DIR", "").strip()
    folder = Path(given) if given else platformdirs.user_data_path("holdfast")
    if not folder.is_absolute():
        # Who has no home has no key there either.
        folder = folder if given else Path(os.devnull)
    try:
        return (folder / "api_key").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _spool_dir(given: str | None) -> Path:
    if given:
        return Path(given)
    usual = platformdirs.user_state_path("holdfast") / "spool"
    if usual.is_absolute():
        return usual
    # Who has no home has a folder of their own among the temporary ones.
    user = os.geteuid() if hasattr(os, "geteuid") else "user"
    return Path(tempfile.gettempdir()) / f"holdfast-{user}" / "spool"
