"""The environment, read once into one frozen object (spec 14)."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from application.engine.serving import tolerance_seconds
from domain.identity import DEFAULT_TYPES
from interfaces.access.auth import ApiKeys
from interfaces.host.unknown_names import unknown

LogLevel = Literal["debug", "info", "warning", "error"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class ConfigurationError(Exception):
    """Settings are missing or wrong; every one of them is named."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(["The configuration is not valid:", *problems]))


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, is that of this machine for itself."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if address.version == 6 else None
    return (mapped or address).is_loopback


class Settings(BaseModel):
    """All settings. A field's name in capitals is its environment variable."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    database_url: str | None = None
    migration_database_url: str | None = None
    api_keys: ApiKeys | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    max_connections: Annotated[int, Field(ge=10, le=100_000)] = 2_000
    max_connections_per_address: Annotated[int, Field(ge=5, le=100_000)] = 1_000
    header_timeout_seconds: Seconds = 10
    body_timeout_seconds: Seconds = 30
    write_timeout_seconds: Seconds = 30
    idle_timeout_seconds: Seconds = 30
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    data_dir: Path = Field(default_factory=lambda: platformdirs.user_data_path("holdfast"))
    environment: Literal["development", "production"] = "development"
    log_level: LogLevel = "info"
    stall_threshold_ms: Annotated[int, Field(ge=100, le=86_400_000)] = 180_000
    instance_stale_seconds: Seconds = 120
    claim_stale_seconds: Seconds = 300
    sweep_seconds: Seconds = 30
    passed_on_seconds: Seconds = 86_400
    instance_types: tuple[str, ...] = DEFAULT_TYPES
    retention_days: Annotated[int, Field(ge=1, le=36_500)] = 30

    @field_validator("api_keys", mode="before")
    @classmethod
    def _parse_keys(cls, value: object) -> object:
        return ApiKeys.parse(value) if isinstance(value, str) else value

    @field_validator("instance_types", mode="before")
    @classmethod
    def _parse_types(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        types = tuple(part.strip() for part in value.split(",") if part.strip())
        for name in types:
            if not re.fullmatch(r"[A-Z0-9]{1,16}", name):
                raise ValueError("must be capital letters and digits, separated by commas: PS,MS")
        return types

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _parse_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        hosts = tuple(part.strip().lower() for part in value.split(",") if part.strip())
        for name in hosts:
            if not re.fullmatch(r"([\w.-]+|\[[0-9a-f:]+\])(:\d+)?", name, re.ASCII):
                raise ValueError("must be host names, separated by commas: a.example.org,b:8443")
        return hosts

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _parse_proxies(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        proxies = tuple(part.strip() for part in value.split(",") if part.strip())
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise ValueError(
                    "must be IP addresses or networks, separated by commas: 10.0.0.7,10.1.0.0/16"
                ) from None
        return proxies

    @field_validator("environment", "log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url", "migration_database_url")
    @classmethod
    def _is_postgres(cls, value: str | None) -> str | None:
        if value is not None:
            if not re.match(r"postgres(ql)?://|\w+\s*=", value):
                raise ValueError("must be a PostgreSQL URL, postgresql://user@host/database")
            _check_parts(value)
        return value

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment. Raises :class:`ConfigurationError` naming every bad setting."""
        environ = os.environ if environ is None else environ
        given: dict[str, Any] = {
            name: environ[name.upper()] for name in cls.model_fields if name.upper() in environ
        }
        # An empty value is as good as none, but for the keys: no keys at all is never meant.
        given = {k: v for k, v in given.items() if v.strip() or k == "api_keys"}
        problems = []
        settings = None
        try:
            settings = cls(**given)
        except ValidationError as e:
            for error in e.errors(include_url=False):
                name = str(error["loc"][0]).upper()
                problems.append(f"{name}: {error['msg'].removeprefix('Value error, ')}")
        if str(given.get("environment", "")).lower() == "production":
            problems += [
                f"{name.upper()}: required when ENVIRONMENT=production{_meant(name, environ)}"
                for name in ("database_url", "api_keys")
                if name not in given
            ]
        if settings is not None:
            problems += settings._contradictions()
            problems += settings._open_doors()
        if problems or settings is None:
            raise ConfigurationError(problems)
        return settings

    @classmethod
    def mistyped(cls, environ: Mapping[str, str] | None = None) -> dict[str, str | None]:
        """Variables that are meant for the service and that it does not read.

        With each the setting that it may be meant for, or None where none is like it.
        """
        environ = os.environ if environ is None else environ
        return unknown(environ, [name.upper() for name in cls.model_fields])

    @property
    def serving_tolerance_seconds(self) -> float:
        """A gap longer than that in which the service cannot be reached is an absence (spec 5)."""
        return tolerance_seconds(
            self.stall_threshold_ms / 1000, self.instance_stale_seconds, self.claim_stale_seconds
        )

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that a browser may take the service for at /mcp; none listed means any.

        On all addresses at once the service cannot know its names unless it is told.
        """
        if self.host in ("0.0.0.0", "::") and not self.allowed_hosts:
            return ()
        own = f"[{self.host}]" if ":" in self.host else self.host.lower()
        return ("127.0.0.1", "localhost", "[::1]", own, *self.allowed_hosts)

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine can reach the service."""
        return is_loopback(self.host)

    def _open_doors(self) -> list[str]:
        """What lets strangers in: keys that can be guessed, where others may try."""
        weak = self.api_keys.weak if self.api_keys is not None else ()
        if self.environment == "production":
            where = "with ENVIRONMENT=production"
        elif not self.is_local:
            where = f"where HOST={self.host} lets other machines in"
        else:
            weak, where = (), ""
        problems = [
            f"API_KEYS: {reason}, which will not do {where}; make one with: openssl rand -hex 32"
            for reason in weak
        ]
        if self.migration_database_url is not None and self.database_url is None:
            problems.append("MIGRATION_DATABASE_URL: needs DATABASE_URL beside it")
        return problems

    def _contradictions(self) -> list[str]:
        shorter = {
            "INSTANCE_STALE_SECONDS": self.instance_stale_seconds,
            "STALL_THRESHOLD_MS": self.stall_threshold_ms / 1000,
        }
        return [
            f"CLAIM_STALE_SECONDS: {self.claim_stale_seconds:g} s must exceed {name}"
            f" ({seconds:g} s), or a claim is taken from a holder that nobody has missed yet"
            for name, seconds in shorter.items()
            if self.claim_stale_seconds <= seconds
        ]


def _meant(name: str, environ: Mapping[str, str]) -> str:
    close = [v for v, setting in Settings.mistyped(environ).items() if setting == name.upper()]
    return f" ({close[0]} is set: is that what is meant?)" if close else ""


def _check_parts(url: str) -> None:
    """Refuse what libpq would take apart in the wrong place, and then tell in its errors."""
    unreadable = ValueError(
        "cannot be read; in a password the characters @ : / ? # % and blanks are written %40 %3A"
        " %2F %3F %23 %25 %20"
    )
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        raise unreadable from None
    host, ports, name = (str(parts.get(part) or "") for part in ("host", "port", "dbname"))
    if "://" in url:
        authority, *rest = re.split(r"[/?#]", url.split("://", 1)[1])
        if authority.count("@") > 1 or any("@" in part for part in rest[:1]):
            raise unreadable
    if ("@" in host and not host.startswith(("/", "@"))) or ("@" in name and "%40" not in url):
        raise unreadable
    if not all(port.strip().isdecimal() for port in ports.split(",") if port.strip()):
        raise unreadable
