"""The ``holdfast-server`` command."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated, NoReturn

import psycopg
import typer
import uvicorn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from interfaces.host import packages
from interfaces.plain import plain

CONFIGURATION_EXIT = 2
# Before anything of these packages is imported: it may be somebody else's.
if complaint := packages.complaint():
    print(plain(complaint, keep="\n"), file=sys.stderr)
    raise SystemExit(CONFIGURATION_EXIT)

from application.eventstore import connect
from application.eventstore.migrate import MigrationError, migrate, who_logs_in
from interfaces import telemetry
from interfaces.access.auth import ApiKeys
from interfaces.host import bootstrap, data_folder
from interfaces.host.data_folder import DataFolderError, development_key
from interfaces.host.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from interfaces.host.postgres_keeper import Keeper
from interfaces.host.settings import ConfigurationError, Settings
from interfaces.http.doorkeeper import raise_file_limit
from interfaces.http.protocol import Connection
from projections import DEFINITIONS, dead_letters, schema

UNAVAILABLE_EXIT = 6
# Connections that wait to be taken; uvicorn's own figure.
BACKLOG = 2048
# A worker that does not answer its parent within this is replaced. One that begins on a busy
# machine must not be: it would never come to serve.
WORKER_ANSWER_SECONDS = 15

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The holdfast service: the record that survives AI coding agents.",
)
console = Console()
complaints = Console(stderr=True, soft_wrap=True, highlight=False)
log = logging.getLogger("holdfast.server")


@app.command()
def serve() -> None:
    """Run the service. All settings come from the environment; none is required to begin."""
    # uvicorn raises the signal again after its shutdown; the embedded Postgres must still be
    # stopped then.
    signal.signal(signal.SIGTERM, _end)
    with _told_at_the_end():
        _serve()


def _serve() -> None:
    settings = _settings()
    telemetry.configure(settings.log_level)
    for variable, name in Settings.mistyped().items():
        _warn(
            "setting_perhaps_mistyped",
            f"{variable} is set but is not a setting. "
            + (f"Did you mean {name}?" if name else "It has no effect."),
            variable=variable,
            setting=name,
        )
    with _database(settings, kept=True) as (url, owner_url), _listening(settings) as listener:
        settings, key = _with_keys(settings.model_copy(update={"database_url": url}))
        _prepare(url, owner_url)
        login, is_superuser = _login(url)
        # Listen first: the address must work once it is printed.
        listener.listen(BACKLOG)
        _announce(settings, listener, key)
        if is_superuser:
            log.warning(
                "service_logs_in_as_superuser",
                extra={
                    "login": login,
                    "advice": "use a login of its own in DATABASE_URL, and the owner in"
                    " MIGRATION_DATABASE_URL",
                },
            )
        raise_file_limit(bootstrap.limits_of(settings))
        config = uvicorn.Config(
            "interfaces.host.bootstrap:worker"
            if settings.workers > 1
            else bootstrap.application(settings),
            factory=settings.workers > 1,
            workers=settings.workers,
            loop="auto",
            http=Connection,
            # No WebSockets; and proxies come from our settings, not from uvicorn's variables.
            ws="none",
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_worker_healthcheck=WORKER_ANSWER_SECONDS,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=bootstrap.GRACE_SECONDS,
        )
        if settings.workers > 1:
            _for_workers(url, key)
            from uvicorn.supervisors import Multiprocess

            Multiprocess(config, sockets=[listener]).run()
        else:
            uvicorn.Server(config).run(sockets=[listener])


@app.command("migrate")
def migrate_command() -> None:
    """Apply missing migrations to the database; serve does this by itself."""
    settings = _settings()
    with _database(settings) as (url, owner_url):
        applied = _prepare(url, owner_url)
        console.print(f"applied: {', '.join(applied)}" if applied else "up to date")


@app.command()
def rebuild(
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Rebuild only this read model and those that depend on it. Can be repeated."
        ),
    ] = None,
) -> None:
    """Rebuild the read models from the events; the service can go on meanwhile."""
    settings = _settings()
    names = [each.model.name for each in DEFINITIONS]
    if unknown := set(only or ()).difference(names):
        raise typer.BadParameter(
            f"there is no read model {', '.join(sorted(unknown))}; there are {', '.join(names)}"
        )
    with _database(settings) as (url, owner_url):
        _prepare(url, owner_url)
        _rebuild(owner_url, only or ())


@app.command("dead-letters")
def dead_letters_command(
    retry: Annotated[
        bool, typer.Option("--retry", help="Rebuild the read models that have dead letters.")
    ] = False,
) -> None:
    """Count dead letters: events that a read model could not fold. Exit code 1 if there are any."""
    settings = _settings()
    with _database(settings) as (url, owner_url):
        _prepare(url, owner_url)
        found = _dead_letters(owner_url)
        if retry and found:
            _rebuild(owner_url, list(found))
            found = _dead_letters(owner_url)
    for name, count in found.items():
        console.print(f"{name}: {count} events could not be folded")
    if found:
        console.print("GET /api/dead-letters lists those of your namespace with the reasons")
        raise typer.Exit(1)
    console.print("no dead letters")


def _rebuild(owner_url: str, only: Collection[str]) -> None:
    with _bar("rebuilding read models") as watch:
        count = schema.rebuild(owner_url, watch, only)
    console.print(f"rebuilt from {count} events")


def _dead_letters(owner_url: str) -> dict[str, int]:
    with psycopg.connect(owner_url) as connection:
        return dead_letters.affected(connection, [each.place for each in DEFINITIONS])


def main() -> None:
    """Run the command line."""
    app()


@contextmanager
def _told_at_the_end() -> Iterator[None]:
    """Log as the last line that the service has stopped, with the exit code."""
    try:
        yield
    except (SystemExit, typer.Exit) as e:
        code = e.exit_code if isinstance(e, typer.Exit) else e.code
        if code == CONFIGURATION_EXIT:
            raise  # nothing was started
        log.info("service_stopped", extra={"exit_code": code or 0})
        raise
    except KeyboardInterrupt:
        log.info("service_stopped", extra={"exit_code": 128 + signal.SIGINT})
        raise
    else:
        log.info("service_stopped", extra={"exit_code": 0})


def _settings() -> Settings:
    try:
        return Settings.load()
    except ConfigurationError as e:
        complaints.print(plain(str(e), keep="\n"), markup=False)
        raise typer.Exit(CONFIGURATION_EXIT) from None


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(0)


def _fail(message: str) -> NoReturn:
    complaints.print(plain(f"holdfast-server: {message}", keep="\n\t"), markup=False)
    raise typer.Exit(UNAVAILABLE_EXIT)


@contextmanager
def _database(settings: Settings, *, kept: bool = False) -> Iterator[tuple[str, str]]:
    """The URLs of the service's login and of the database's owner.

    Without ``DATABASE_URL`` the embedded Postgres is started, and stopped after the block. With
    ``kept`` it is also restarted whenever it dies; if that fails, the process fails.
    """
    if settings.database_url is not None:
        yield settings.database_url, settings.migration_database_url or settings.database_url
        return
    try:
        postgres = EmbeddedPostgres(data_folder.prepare(settings.data_dir, others_pass=True))
        postgres.start()
    except (EmbeddedPostgresError, DataFolderError) as e:
        _fail(str(e))
    keeper = Keeper(postgres)
    if kept:
        keeper.start()
    try:
        yield postgres.service_url, postgres.url
    finally:
        keeper.stop()
        if keeper.failure is not None:
            _fail(f"the embedded Postgres has died and does not start again: {keeper.failure}")
        try:
            postgres.stop()
        except EmbeddedPostgresError as e:
            _fail(str(e))


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The service's socket, bound but not yet listening."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as e:
            _fail(f"cannot listen on {settings.host}:{settings.port}: {e.strerror}")
        listener.set_inheritable(True)
        yield listener


def _with_keys(settings: Settings) -> tuple[Settings, str | None]:
    """Settings with API keys, and the development key if one had to be made."""
    if settings.api_keys is not None:
        return settings, None
    try:
        key = development_key(settings.data_dir)
    except DataFolderError as e:
        _fail(str(e))
    return settings.model_copy(update={"api_keys": ApiKeys.parse(key)}), key


def _prepare(url: str, owner_url: str) -> list[str]:
    try:
        login = None if url == owner_url else connect.login_of(url)
        applied = migrate(owner_url, login)
        with nullcontext() if applied else _bar("building read models") as watch:
            schema.install(owner_url, watch)
    except MigrationError as e:
        _fail(str(e))
    except psycopg.OperationalError as e:
        _fail(f"cannot reach the database: {str(e).strip()}")
    except psycopg.errors.InsufficientPrivilege as e:
        advice = (
            "; if DATABASE_URL is a login without the owner's rights, put the owner's URL into"
            " MIGRATION_DATABASE_URL"
        )
        _fail(
            f"{connect.login_of(owner_url) or 'the login'} may not migrate the database:"
            f" {str(e).strip()}{advice if url == owner_url else ''}"
        )
    return applied


def _login(url: str) -> tuple[str, bool]:
    """The service's login, after a check that it can work, and whether it is a superuser."""
    try:
        return who_logs_in(url)
    except psycopg.OperationalError as e:
        # The advice is about rights; a wrong password or address needs none.
        advice = (
            ""
            if " set role " not in str(e)
            else (
                f"; the database's owner may have to run: GRANT {connect.SERVICE_ROLE}"
                f" TO {connect.login_of(url) or 'its user'}"
            )
        )
        _fail(
            f"the service cannot work under the role {connect.SERVICE_ROLE} with DATABASE_URL:"
            f" {str(e).strip()}{advice}"
        )


def _announce(settings: Settings, listener: socket.socket, key: str | None) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = plain(f"http://{host}:{listener.getsockname()[1]}")
    console.print(f"holdfast serves on {url}", highlight=False, markup=False, soft_wrap=True)
    if key is not None:
        console.print(f"API key  {key}", highlight=False, markup=False, soft_wrap=True)
    if settings.environment == "development" and not settings.is_local:
        _warn(
            "development_service_is_reachable",
            f"other machines can reach this development service (HOST={settings.host}), and what"
            " they send, API keys too, is not encrypted. For more than a trial set"
            " ENVIRONMENT=production, with TLS in front; or leave HOST=127.0.0.1.",
            host=settings.host,
        )


def _warn(event: str, text: str, **facts: object) -> None:
    """Write a warning to standard error and to the log."""
    complaints.print(plain(f"holdfast-server: warning: {text}"), markup=False)
    log.warning(event, extra={"reason": text, **facts})


def _for_workers(url: str, key: str | None) -> None:
    """Put into the environment what worker processes read from there."""
    os.environ["DATABASE_URL"] = url
    if key is not None:
        os.environ["API_KEYS"] = key


@contextmanager
def _bar(what: str) -> Iterator[schema.Watcher]:
    """A progress bar, hidden until there is something to count."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(what, visible=False)

        def watch(done: int, of: int) -> None:
            progress.update(task, completed=done, total=of, visible=True)

        yield watch


if __name__ == "__main__":
    main()
