"""Every setting is documented with its default, and read in one place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interfaces.host.settings import ConfigurationError, Settings
from interfaces.host.unknown_names import WITHOUT_EFFECT

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
# A line `NAME=value`, or one that is commented out because there is no value for everybody.
GIVEN = re.compile(r"^(#?)([A-Z][A-Z_]*)=(.*)$", re.MULTILINE)
SETTINGS = {name.upper() for name in Settings.model_fields}
# What has no default that could be written down.
NO_DEFAULT = {
    "DATABASE_URL",
    "MIGRATION_DATABASE_URL",
    "API_KEYS",
    "DATA_DIR",
    "ALLOWED_HOSTS",
    "TRUSTED_PROXIES",
}


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_every_setting_is_in_the_example(name: str) -> None:
    """Whoever copies .env.example has seen every setting."""
    given = {found[2]: found for found in GIVEN.finditer(EXAMPLE)}
    assert name in given
    assert (given[name][1] == "#") == (name in NO_DEFAULT)


def test_the_example_offers_nothing_else() -> None:
    """Whoever sets what the example shows has set something."""
    assert {name for _, name, _ in GIVEN.findall(EXAMPLE)} == SETTINGS


def test_the_readme_offers_what_there_is() -> None:
    """Its table of settings has no other name, and the defaults that there are."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, table = readme.partition("\n## Settings\n")
    table, _, _ = table.partition("\n## ")
    offered = set(re.findall(r"`([A-Z][A-Z_]+)(?:=[^`]*)?`", table))
    assert offered <= SETTINGS
    assert len(offered) > 10
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+) \|", table, re.MULTILINE)
    assert rows
    for name, default in rows:
        assert Settings.load({name: default}) == Settings.load({}), name


@pytest.mark.parametrize("folder", ["tests", "bench", "demo"])
def test_nobody_starts_the_service_with_what_is_no_setting(folder: str) -> None:
    """A setting that has gone has gone from every start."""
    for path in (ROOT / folder).rglob("*.py"):
        if path.name not in ("test_settings.py", "test_unknown_names.py", "test_field_d_names.py"):
            for name in WITHOUT_EFFECT:
                assert f'"{name}"' not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_an_effect(name: str) -> None:
    """Somebody asks for it."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "interfaces").rglob("*.py")]
    assert any(re.search(rf"\b(settings|self)\.{name}\b", source) for source in sources)


def test_the_example_holds_the_defaults() -> None:
    """A service started with the example as it stands is one started with nothing."""
    given = {name: value for mark, name, value in GIVEN.findall(EXAMPLE) if not mark}
    assert Settings.load(given) == Settings.load({})


def test_the_example_s_suggestions_are_valid() -> None:
    """With the commented lines in force too, it is still a configuration."""
    settings = Settings.load({name: value for _, name, value in GIVEN.findall(EXAMPLE)})
    assert settings.database_url is not None


def test_the_settings_cannot_be_changed() -> None:
    """One frozen object, made at start."""
    with pytest.raises(ValueError, match="frozen"):
        Settings.load({}).port = 1  # type: ignore[misc]


def test_every_problem_is_named_at_once() -> None:
    """However many settings are wrong, one error names them all."""
    wrong = {
        name.upper(): "?"
        for name, field in Settings.model_fields.items()
        if field.annotation not in (str, Path, str | None) and name != "api_keys"
    }
    with pytest.raises(ConfigurationError) as refused:
        Settings.load(wrong)
    named = {problem.partition(":")[0] for problem in refused.value.problems}
    assert named == set(wrong)


def test_the_environment_is_read_in_one_place() -> None:
    """Only the settings read it; the command hands it on to worker processes."""
    readers = {
        str(path.relative_to(ROOT))
        for package in ("domain", "application", "projections", "interfaces")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\bos\.(environ|getenv)\b", path.read_text(encoding="utf-8"))
    }
    assert readers <= {"interfaces/host/settings.py", "interfaces/host/server.py"}
