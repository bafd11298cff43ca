"""What is recorded of a command holds none of its secrets, and all else of it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import WORKER, Desk, desk

from holdfast import Client
from holdfast.secrets import masked, masked_command
from tests.acceptance.serving import Api, ok

PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----"
TOKENS = [
    "sk-abcdefghijklmnopqrstuvwxyz0123456789",
    "sk-proj-abcDEF123_456-xyz",
    "sk-ant-api03-abcdefghij",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "gho_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
    "glpat-abcdefghij0123456789",
    "xoxb-123456789012-abcdefghijkl",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "hf_abcdefghijklmnopqrstuvwxyz",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "npm_abcdefghijklmnopqrstuvwxyz0123456789",
    "SG.abcdefghijkl.mnopqrstuvwxyz",
    "gsk_abcdefghijklmnop1234",
    PRIVATE,
]


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_told_by_their_form_wherever_they_stand(token: str) -> None:
    for command in (
        ["agent", token],
        ["agent", f"--anything={token}"],
        ["sh", "-c", f"echo '{token}' | agent; agent x{'' if token == PRIVATE else ' '}{token}"],
        ["agent", f"https://example.org/?x={token}&y=2"],
    ):
        line = shlex.join(masked_command(command))
        assert token not in line
        assert token[8:] not in line
        assert line.startswith(command[0])
    assert token not in masked(f"ValueError: no good: {token}")


@pytest.mark.parametrize(
    "command",
    [
        "agent --token hunter2 -v",
        "agent --token=hunter2 -v",
        "agent --password 'hunter2 hunter2' -v",
        "agent --api-key hunter2 -v",
        "agent --apiKey=hunter2 -v",
        "agent --client-secret hunter2 -v",
        "agent --db-passwd hunter2 -v",
        "agent -password hunter2 -v",
        "env OPENAI_API_KEY=hunter2 agent -v",
        "env PGPASSWORD=hunter2 AWS_SECRET_ACCESS_KEY='hunter2 x' GH_TOKEN=hunter2 agent -v",
        "docker run -e SECRET_KEY_BASE=hunter2 agent -v",
        "curl -H 'Authorization: Bearer hunter2' -v",
        "curl -H 'authorization: token hunter2' -v",
        "curl -H 'X-API-Key: hunter2' -v",
        "curl --header='PRIVATE-TOKEN: hunter2' -v",
        "curl -u me:hunter2 -v",
        "curl --user me:hunter2 -v",
        "git clone https://me:hunter2@example.org/a.git -v",
        "psql postgresql://me:hunter2@db/x -v",
        "curl 'https://example.org/?access_token=hunter2&a=b' -v",
        """curl -d '{"user": "me", "password": "hunter2 and more"}' -v""",
        "sh -c 'export TOKEN=hunter2; agent --password hunter2 | cat' -v",
        """sh -c 'curl -H "Authorization: Basic hunter2=="' -v""",
        "sshpass -p hunter2 ssh me@host -v",
        "sshpass -phunter2 ssh me@host -v",
        "az storage --connection-string 'AccountName=a;AccountKey=hunter2;X=y' -v",
        # In scripts and data, and by what programs call them.
        "curl -ume:hunter2 -v",
        "curl --user=me:hunter2 -v",
        "sh -c 'curl -u me:hunter2 https://example.org' -v",
        "curl -b session=hunter2 -v",
        "curl -H 'Cookie: a=b; session=hunter2' -v",
        """curl -H 'Authorization: Digest username="x", response="hunter2"' -v""",
        'curl -d \'{"api_key": "hunter2", "private-key": "hunter2"}\' -v',
        """sh -c 'curl -d "{\\"password\\":\\"hunter2\\"}" https://example.org' -v""",
        "curl 'https://example.org/?next=token%3Dhunter2' -v",
        "curl https://hooks.slack.com/services/T0/B0/hunter2 -v",
        "sh -c 'mysql -u root -phunter2 db' -v",
        "sh -c 'sshpass -p hunter2 ssh me@host' -v",
        "sh -c 'echo hunter2 | docker login --password-stdin' -v",
        "docker login -u me -p hunter2 -v",
        "redis-cli -a hunter2 -v",
        "zip -P hunter2 x.zip x -v",
        "7z x -phunter2 x.7z -v",
        "openssl rsa -passin pass:hunter2 -v",
        "ldapsearch -w hunter2 -v",
        "helm upgrade --set a=1,db.password=hunter2,b=2 -v",
        "kubectl create secret generic x --from-literal=abc=hunter2 -v",
        "gh secret set NAME --body hunter2 -v",
        "agent --cred hunter2 --pw hunter2 --authkey hunter2 --token-value=hunter2 -v",
        "agent '<password>hunter2</password>' -v",
        """python -c "import os; os.environ['TOKEN'] = 'hunter2'" -v""",
        "csh -c 'setenv API_KEY hunter2' -v",
        "sh -c 'export API_KEY=$(echo hunter2); agent' -v",
        """bash -c "agent --token $'hunter2' --x" -v""",
        "bash -c 'agent --token \\\n  hunter2' -v",
        "claude -p 'log in with the password hunter2Zx9' -v",
    ],
)
def test_secrets_are_told_by_their_names_in_scripts_data_and_options(command: str) -> None:
    line = shlex.join(masked_command(shlex.split(command)))

    assert "hunter2" not in line
    assert line.startswith(command.split()[0])
    assert line.endswith(" -v")


@pytest.mark.parametrize(
    "command",
    [
        "claude -p 'write the parser of tokens' --max-tokens 1000",
        "make parser -j 4",
        "agent --token-limit 100 --password-file /run/secret --no-password x",
        "env TOKENIZERS_PARALLELISM=false MAX_TOKENS=5 KEYBOARD=de agent",
        "docker run -u 1000:1000 -p 8080:80 image",
        "git clone https://example.org/a.git https://example.org:8080/b@c",
        "ssh me@host -p 22",
        "rg task-1234567890abcdef sk-learn",
        "python -m pytest -k 'bearer or basic' tests/test_key.py::test_a",
        "mail a@example.org",
        "sort --key=2,3 --key 2",
        "agent --sort-key name --primary-key id --cache-key x-1 --auth basic",
        "python -c 'sorted(x, key=len)'",
        "docker run -p 8080:80 -b x image",
        "claude -p 'reset the password on page src/login.py and rename the token'",
    ],
)
def test_what_is_no_secret_stays(command: str) -> None:
    assert masked_command(shlex.split(command)) == shlex.split(command)


# What is on record


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def all_that_is_recorded(api: Api) -> str:
    events = ok(api.get("/api/events", params={"limit": 1000}))["events"]
    lists = [ok(api.get(f"/api/{kind}")) for kind in ("sessions", "instances")]
    return json.dumps([events, *lists])


SECRETS = ("--token", "hunter2", "ghp_abcdefghijklmnopqrstuvwxyz0123456789")


def test_nothing_that_a_run_records_holds_its_secrets(here: Desk) -> None:
    run = here.run(command=(sys.executable, "-c", WORKER, *SECRETS))
    run.up()
    run.say("7")
    assert run.end() == 7

    recorded = all_that_is_recorded(here.api)
    assert "hunter2" not in recorded
    assert "ghp_" not in recorded
    assert "--token" in recorded


def test_without_argv_only_the_program_is_recorded(here: Desk) -> None:
    run = here.run("--no-argv", command=(sys.executable, "-c", WORKER, "unheard-of"))
    run.up()
    run.say("7")
    assert run.end() == 7

    assert run.session()["metadata"]["command"] == Path(sys.executable).name
    recorded = all_that_is_recorded(here.api)
    assert "unheard-of" not in recorded
    assert "SIG" not in recorded


def test_a_command_that_is_logged_by_the_sdk_is_masked_too(client: Client, api: Api) -> None:
    with client.instance("odin") as agent:
        agent.emit("command_logged", command="deploy --token hunter2 -v", exit_code=0)
        with pytest.raises(ValueError, match="hunter2"), client.session("odin"):
            raise ValueError("no good: postgresql://me:hunter2@db/x")

    recorded = all_that_is_recorded(api)
    assert "hunter2" not in recorded
    assert "deploy --token *** -v" in recorded
    assert "postgresql://me:***@db/x" in recorded
