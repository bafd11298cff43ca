"""The environment says where the service is and how to get in (spec 17)."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from holdfast import Client, ConfigurationError, Settings, Unauthorized, Unavailable
from holdfast.settings import key_header, warn_of_clear_text
from interfaces.host.data_folder import development_key
from tests.acceptance.serving import Api, Server


def test_without_any_setting_it_is_this_machine_s_service() -> None:
    settings = Settings.load({})

    assert settings.url == "http://127.0.0.1:8080"
    assert (settings.session_id, settings.instance_id) == (None, None)


def test_every_setting_is_read(tmp_path: Path) -> None:
    settings = Settings.load(
        {
            "HOLDFAST_URL": "https://holdfast.example.org/",
            "HOLDFAST_API_KEY": "key",
            "HOLDFAST_SESSION_ID": "s",
            "HOLDFAST_INSTANCE_ID": "odin-PS-8f4a2b",
            "HOLDFAST_SPOOL_DIR": str(tmp_path),
        }
    )

    assert settings == Settings(
        "https://holdfast.example.org", "key", "s", "odin-PS-8f4a2b", tmp_path
    )


def test_empty_is_as_good_as_absent() -> None:
    empty = {"HOLDFAST_URL": " ", "HOLDFAST_SESSION_ID": ""}

    assert Settings.load(empty).url == Settings.load({}).url
    assert Settings.load(empty).session_id is None


def test_what_is_given_goes_before_the_environment() -> None:
    environ = {"HOLDFAST_URL": "http://other:1", "HOLDFAST_API_KEY": "other"}
    settings = Settings.load(environ, url="http://mine:2", api_key="mine")

    assert (settings.url, settings.api_key) == ("http://mine:2", "mine")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://", "nonsense"])
def test_an_address_that_is_none_is_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigurationError, match="HOLDFAST_URL") as refused:
        Settings.load({"HOLDFAST_URL": url})

    assert refused.value.exit_code == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_development_service_s_key_is_found_on_its_machine(tmp_path: Path, host: str) -> None:
    key = development_key(tmp_path)
    settings = Settings.load({"HOLDFAST_URL": f"http://{host}:8080", "DATA_DIR": str(tmp_path)})

    assert settings.api_key == key
    assert key not in repr(settings)


def test_a_development_service_s_key_goes_nowhere_else(tmp_path: Path) -> None:
    development_key(tmp_path)
    environ = {"HOLDFAST_URL": "http://holdfast.example.org", "DATA_DIR": str(tmp_path)}

    assert Settings.load(environ).api_key is None


def test_a_client_needs_no_arguments(
    api: Api, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", server.url)
    monkeypatch.setenv("HOLDFAST_API_KEY", api.key or "")

    with Client() as client:
        assert client.sessions.list()["sessions"] == []


@pytest.mark.parametrize("key", ["clé", "two\nlines", "a\x01b", " ", "x" * 129, "\udcff"])
def test_a_key_that_no_request_could_carry_is_malformed(server: Server, key: str) -> None:
    """In the service's own words, whether or not it is there."""
    for url in (server.url, "http://127.0.0.1:9"):
        with Client(url, key) as client, pytest.raises(Unauthorized) as refused:
            client.sessions.list()
        assert refused.value.message.startswith("Malformed API key: set HOLDFAST_API_KEY")
    with Client(server.url, key) as client:
        assert client.health()["status"] == "ok"


def test_the_service_calls_the_same_keys_malformed(server: Server) -> None:
    def answer(key: str) -> str:
        headers = {b"X-API-Key": key.encode()}
        reply = httpx.get(f"{server.url}/api/sessions", headers=headers, trust_env=False)
        return str(reply.json()["message"])

    assert answer("x" * 129) == answer("clé") == "Malformed API key"
    assert answer("x" * 128) == answer("two words") == "Invalid API key"
    for sent in ("x" * 128, "two words"):
        assert key_header(sent) == {"X-API-Key": sent}


def test_a_password_in_the_address_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.load({}, url="http://me:sesame@holdfast.invalid:81/x", api_key="k")
    warn_of_clear_text(settings)
    with Client(settings=settings, retries=0) as client, pytest.raises(Unavailable) as raised:
        client.health()

    assert settings.url == "http://me:sesame@holdfast.invalid:81/x"
    assert settings.shown_url == "http://holdfast.invalid:81/x"
    assert "sesame" not in f"{settings!r} {raised.value} {client.spool.path} {caplog.text}"
    with pytest.raises(ConfigurationError) as refused:
        Settings.load({}, url="ftp://me:ses@ame@holdfast.invalid")
    assert "ame@" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["http://a\nb", "http://a b", "http://h\\@evil", "http://h?x=1", "http://h#f", "http://a..b"],
)
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Settings.load({}, url=url)
