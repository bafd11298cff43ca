"""The environment, read once into one frozen object (spec 14)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from domain.identity import DEFAULT_TYPES
from interfaces.auth import ApiKeys

LogLevel = Literal["debug", "info", "warning", "error"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class ConfigurationError(Exception):
    """Settings are missing or wrong; every one of them is named."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(["The configuration is not valid:", *problems]))


class Settings(BaseModel):
    """All settings. A field's name in capitals is its environment variable."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    database_url: str | None = None
    migration_database_url: str | None = None
    api_keys: ApiKeys | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    allowed_hosts: tuple[str, ...] = ()
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    data_dir: Path = Field(default_factory=lambda: platformdirs.user_data_path("holdfast"))
    environment: Literal["development", "production"] = "development"
    log_level: LogLevel = "info"
    stall_threshold_ms: Annotated[int, Field(ge=100, le=86_400_000)] = 180_000
    instance_stale_seconds: Seconds = 120
    claim_stale_seconds: Seconds = 300
    sweep_seconds: Seconds = 30
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

    @field_validator("environment", "log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url", "migration_database_url")
    @classmethod
    def _is_postgres(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"postgres(ql)?://|\w+\s*=", value):
            raise ValueError("must be a PostgreSQL URL, postgresql://user@host/database")
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
                f"{name.upper()}: required when ENVIRONMENT=production"
                for name in ("database_url", "api_keys")
                if name not in given
            ]
        if settings is not None:
            problems += settings._contradictions()
        if problems or settings is None:
            raise ConfigurationError(problems)
        return settings

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that a browser may take the service for at /mcp; none listed means any.

        On all addresses at once the service cannot know its names unless it is told.
        """
        if self.host in ("0.0.0.0", "::") and not self.allowed_hosts:
            return ()
        own = f"[{self.host}]" if ":" in self.host else self.host.lower()
        return ("127.0.0.1", "localhost", "[::1]", own, *self.allowed_hosts)

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
