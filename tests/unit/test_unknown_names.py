"""Names in the environment that are ours and that nothing reads, and names that are not ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interfaces.host.settings import Settings
from interfaces.host.unknown_names import OF_THE_CLIENT, OUR_OWN_WORDS, WITHOUT_EFFECT

ROOT = Path(__file__).parents[2]
SETTINGS = [name.upper() for name in Settings.model_fields]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("STALL_TRESHOLD_MS", "STALL_THRESHOLD_MS"),
        ("STALL_THRESHOLD_SECONDS", "STALL_THRESHOLD_MS"),
        ("STALE_TRESHOLD_MS", "STALL_THRESHOLD_MS"),
        ("CLAIM_STALE_MS", "CLAIM_STALE_SECONDS"),
        ("CLAIMS_STALE_SECONDS", "CLAIM_STALE_SECONDS"),
        ("INSTANCE_STALE_SECOND", "INSTANCE_STALE_SECONDS"),
        ("ENVIROMENT", "ENVIRONMENT"),
        ("ENVIRONEMNT", "ENVIRONMENT"),
        ("API_KEY", "API_KEYS"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATA_DRI", "DATA_DIR"),
        ("WORKRES", "WORKERS"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("RETENTION_DAY", "RETENTION_DAYS"),
        ("claim_stale_seconds", "CLAIM_STALE_SECONDS"),
        ("RATE_LIMITS_PER_MINUTE", None),
        ("RATE_LIMIT_PER_MINUTE", None),
        ("CORS_ORIGIN", None),
        ("HOLDFAST_PORT", "PORT"),
        ("HOLDFAST_DATABASE_URL", "DATABASE_URL"),
        ("HOLDFAST_STALL_TRESHOLD_MS", "STALL_THRESHOLD_MS"),
        ("HOLDFAST_SESION_ID", "HOLDFAST_SESSION_ID"),
        ("HOLDFAST_ULR", "HOLDFAST_URL"),
        ("HOLDFAST_TOKEN", None),
    ],
)
def test_a_name_that_nothing_reads_is_told_with_what_may_be_meant(
    variable: str, meant: str | None
) -> None:
    assert Settings.mistyped({variable: "5"}) == {variable: meant}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_letter_that_is_left_out_of_a_long_name_is_noticed(name: str) -> None:
    if len(name) >= 7:
        for at in range(len(name)):
            wrong = name[:at] + name[at + 1 :]
            if wrong not in SETTINGS:
                assert list(Settings.mistyped({wrong: "1"})) == [wrong]


def test_what_is_read_is_not_told() -> None:
    assert Settings.mistyped(dict.fromkeys(SETTINGS, "1")) == {}
    assert Settings.mistyped(dict.fromkeys(OF_THE_CLIENT, "1")) == {}


def test_nor_what_asks_for_nothing() -> None:
    idle = {name: value or "" for name, value in WITHOUT_EFFECT.items()}
    assert Settings.mistyped(idle) == {}


def test_nobody_is_bothered_with_what_is_none_of_ours() -> None:
    """What shells, containers, CI systems and other services have in their environments."""
    foreign = """
        PATH HOME USER LOGNAME SHELL TERM LANG LC_ALL PWD OLDPWD SHLVL EDITOR PAGER DISPLAY TMPDIR
        HOSTNAME HOSTTYPE MAIL TZ PORTS XDG_DATA_DIRS XDG_DATA_HOME XDG_RUNTIME_DIR SSH_AUTH_SOCK
        VIRTUAL_ENV PYTHONPATH PIP_INDEX_URL NODE_ENV RAILS_ENV ENV CI GITHUB_TOKEN GITHUB_WORKFLOW
        GITLAB_CI JENKINS_URL DOCKER_HOST KUBERNETES_SERVICE_HOST KUBERNETES_PORT AWS_REGION
        AWS_SECRET_ACCESS_KEY OPENAI_API_KEY ANTHROPIC_API_KEY GEMINI_API_KEY MONGODB_URI REDIS_URL
        DATABASE_HOST DATABASE_PORT DATABASE_USER DATABASE_NAME DATABASE_SSL DATABASE_PASSWORD
        PGHOST PGPORT PGUSER PGDATABASE POSTGRES_PASSWORD HTTP_PROXY HTTPS_PROXY NO_PROXY
        WEB_CONCURRENCY UVICORN_WORKERS FORWARDED_ALLOW_IPS LOG_FORMAT LOG_FILE DEBUG SECRET_KEY
        MAX_RETRIES TIMEOUT REQUEST_TIMEOUT IDLE_TIMEOUT READ_TIMEOUT_SECONDS SWEEP RETENTION
        HOLDFAST_SERVICE_HOST HOLDFAST_SERVICE_PORT HOLDFAST_SERVICE_PORT_HTTP
        HOLDFAST_PORT_8080_TCP HOLDFAST_PORT_8080_TCP_ADDR HOLDFAST_DB_SERVICE_HOST
        HOLDFAST_TEST_RUN_DIR
    """
    environ = dict.fromkeys(foreign.split(), "1")
    assert Settings.mistyped({**environ, "HOLDFAST_PORT": "tcp://10.0.0.7:8080"}) == {}


def test_beside_the_right_name_only_one_that_is_surely_ours_is_told() -> None:
    """Given API_KEYS, then API_KEY is some other program's; STALL_TRESHOLD_MS is nobody's."""
    assert Settings.mistyped({"API_KEYS": "k", "API_KEY": "k"}) == {}
    both = {"STALL_THRESHOLD_MS": "5", "STALL_TRESHOLD_MS": "5"}
    assert OUR_OWN_WORDS == 3
    assert Settings.mistyped(both) == {"STALL_TRESHOLD_MS": "STALL_THRESHOLD_MS"}


def test_the_client_s_names_are_those_in_its_code() -> None:
    """Given a new variable of the client, then the service knows it too."""
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "clients" / "python" / "holdfast").rglob("*.py")
    )
    said = {f"HOLDFAST_{name}" for name in re.findall(r'said\("([A-Z_]+)"\)', source)}
    assert said | set(re.findall(r'"(HOLDFAST_[A-Z_]+)"', source)) == OF_THE_CLIENT
