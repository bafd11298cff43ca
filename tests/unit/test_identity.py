"""Instance ids: made, recognised, taken apart, matched (S0, spec 4)."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from domain.identity import (
    HASH_LENGTH,
    MAX_SLUG_LENGTH,
    InstanceId,
    generate,
    is_reference,
    matches,
    normal,
    parse,
    slug,
    unseen,
)
from tests.support.given import START

ENTROPY = bytes(range(16))


def test_an_id_is_project_type_and_six_hex_digits() -> None:
    made = generate("odin", "PS", START, ENTROPY)

    assert str(made) == f"odin-PS-{made.hash}"
    assert len(made.hash) == HASH_LENGTH == 6
    assert set(made.hash) <= set("0123456789abcdef")


def test_the_hash_is_the_beginning_of_a_sha256_over_time_entropy_project_and_type() -> None:
    digest = hashlib.sha256()
    for part in (START.isoformat().encode(), ENTROPY, b"odin", b"PS"):
        digest.update(len(part).to_bytes(4, "big") + part)

    assert generate("odin", "PS", START, ENTROPY).hash == digest.hexdigest()[:6]


def test_the_same_draw_gives_the_same_id() -> None:
    assert generate("odin", "PS", START, ENTROPY) == generate("odin", "PS", START, ENTROPY)


@pytest.mark.parametrize(
    "other",
    [
        generate("thor", "PS", START, ENTROPY),
        generate("odin", "MS", START, ENTROPY),
        generate("odin", "PS", START + timedelta(microseconds=1), ENTROPY),
        generate("odin", "PS", START, ENTROPY[::-1]),
    ],
    ids=["project", "type", "time", "entropy"],
)
def test_everything_that_goes_into_the_hash_changes_it(other: InstanceId) -> None:
    assert other.hash != generate("odin", "PS", START, ENTROPY).hash


def test_where_one_part_ends_and_the_next_begins_changes_the_hash() -> None:
    first, second = generate("ab", "C1", START, ENTROPY), generate("a", "BC1", START, ENTROPY)

    assert first.hash != second.hash


@pytest.mark.parametrize(
    "project", ["odin", "odin-x", "a", "7", "odin-PS-lookalike".lower(), "a--b"]
)
def test_what_was_made_is_recognised_and_taken_apart_again(project: str) -> None:
    made = generate(project, "MS", START, ENTROPY)

    assert parse(str(made)) == made


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("odin-PS-8f4a2b", ("odin", "PS", "8f4a2b")),
        ("odin-x-PS-8f4a2b", ("odin-x", "PS", "8f4a2b")),
        ("my-big-project-2-MS-000000", ("my-big-project-2", "MS", "000000")),
        # Read from the right: what looks like a type within the project belongs to the project.
        ("ps-ms-PS-abcdef", ("ps-ms", "PS", "abcdef")),
        ("odin-abcdef-PS-abcdef", ("odin-abcdef", "PS", "abcdef")),
    ],
)
def test_ids_are_parsed_from_the_right(text: str, parts: tuple[str, str, str]) -> None:
    assert parse(text) == InstanceId(*parts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "odin",
        "odin-PS",
        "PS-8f4a2b",
        "-PS-8f4a2b",
        "odin-ps-8f4a2b",
        "odin-XX-8f4a2b",
        "Odin-PS-8f4a2b",
        "odin-PS-8F4A2B",
        "odin-PS-8f4a2",
        "odin-PS-8f4a2bc",
        "odin-PS-8f4a2g",
        "odin_PS_8f4a2b",
        "odin-PS-8f4a2b\n",
        " odin-PS-8f4a2b",
        "ödin-PS-8f4a2b",
        f"{'a' * (MAX_SLUG_LENGTH + 1)}-PS-8f4a2b",
    ],
)
def test_what_is_not_an_id_is_not_recognised(text: str) -> None:
    assert parse(text) is None


def test_further_types_are_recognised_once_they_are_declared() -> None:
    assert parse("odin-QA7-8f4a2b") is None
    assert parse("odin-QA7-8f4a2b", ("PS", "QA7")) == InstanceId("odin", "QA7", "8f4a2b")


@pytest.mark.parametrize(
    ("project", "made"),
    [
        ("odin", "odin"),
        ("odin-x", "odin-x"),
        ("Odin X", "odin-x"),
        ("  Odin  ", "odin"),
        ("a_b.c/d", "a-b-c-d"),
        ("-odin-", "odin"),
        ("!!7!!", "7"),
        ("x" * 63, "x" * MAX_SLUG_LENGTH),
        ("app (copy).v2", "app-copy-v2"),
        ("R&D, 2026!", "r-d-2026"),
    ],
)
def test_a_project_name_becomes_a_slug(project: str, made: str) -> None:
    assert slug(project) == made


@pytest.mark.parametrize(
    ("project", "kept"),
    [
        ("проект", "p"),
        ("日本語", "p"),
        ("🚀", "p"),
        ("مشروع", "p"),
        ("ÄÖ", "p"),
        ("!!!", "p"),
        ("Größe", "gr-e"),
        ("日本語 app", "app"),
        ("проект-a", "a"),
        ("C++", "c"),
        ("C#", "c"),
        ("x" * 100, "x" * 54),
        # A hyphen at the cut is not left behind.
        ("x" * 53 + " " + "y" * 20, "x" * 53),
    ],
)
def test_what_a_slug_cannot_say_is_told_by_the_name_s_hash(project: str, kept: str) -> None:
    digest = hashlib.sha256(project.encode()).hexdigest()[:8]

    assert slug(project) == f"{kept}-{digest}"


def test_names_that_differ_in_a_letter_a_number_or_a_symbol_have_slugs_that_differ() -> None:
    names = [
        "проект-a",
        "другой-a",
        "a",
        "日本語 a",
        "C",
        "C++",
        "C#",
        "🚀",
        "🚀🚀",
        "ß",
        "ä",
        "x" * 99,
    ]
    names += ["x" * 98, "x" * 63 + "y", "एक", "एकक"]

    assert len({slug(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("café", "cafe\u0301"),
        ("проект й", "проект и\u0306"),
        ("  проект ", "проект"),
        ("\u3000日本\u00a0語", "日本 語"),
        ("Odin X", "odin-x"),
    ],
)
def test_one_name_written_in_two_ways_has_one_slug(one: str, other: str) -> None:
    assert slug(one) == slug(other)


@pytest.mark.parametrize(
    ("given", "form"),
    [("  a b ", "a b"), ("e\u0301", "é"), ("a\u2003b\u3000", "a b"), ("\u1100\u1161", "가")],
)
def test_a_name_has_one_form(given: str, form: str) -> None:
    assert normal(given) == form


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "a\n",
        "\ta",
        "\x1b[31m",
        "\x7f",
        "a\u0085b",
        "a\u00adb",
        "a\u200bb",
        "a\u200db",
        "a\u200cb",
        "a\u200eb",
        "a\u202eb",
        "a\u2066b",
        "a\u2028b",
        "\ufeffa",
        "a\u2060b",
        "a\ufe0fb",
        "a\u034fb",
        "\u3164",
        "a\U000e0041",
        "a\U000e0100",
        "\ud800",
        "🚀\u200d",
    ],
)
def test_what_nobody_can_see_is_found(text: str) -> None:
    assert unseen(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "a b",
        "проект",
        "日本語",
        "e\u0301x\u0323",
        "👩\u200d💻 app",
        "❤\ufe0f\u200d🔥",
        "👩🏽\u200d💻",
        "☁\ufe0f",
        "1\ufe0f\u20e3",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "می\u200cخواهم",
        "क\u094d\u200dष",
        "مشروع",
        "עברית",
    ],
)
def test_what_writing_needs_is_no_hidden_character(text: str) -> None:
    assert unseen(text) is None


@pytest.mark.parametrize("project", ["odin", "Odin X", "a--b", "x" * 100, "проект", "Größe", "C++"])
def test_a_slug_is_its_own_slug(project: str) -> None:
    made = slug(project)

    assert len(made) <= MAX_SLUG_LENGTH
    assert slug(made) == made


@pytest.mark.parametrize(
    ("text", "can_be"),
    [
        ("8f4a", True),
        ("odin-PS", True),
        ("odin-PS-8f4a2b", True),
        ("8f4", False),
        ("", False),
        ("8f4%", False),
        ("8f4_", False),
        ("8f4\\", False),
        ("8f4a ", False),
        ("8f4ä", False),
        ("8f4a\n", False),
    ],
)
def test_a_reference_has_four_plain_characters_or_more(text: str, can_be: bool) -> None:
    assert is_reference(text) is can_be


@pytest.mark.parametrize(
    ("reference", "fits"),
    [
        ("odin-x-PS-8f4a2b", True),
        ("odin-x-PS", True),
        ("odin", True),
        ("8f4a", True),
        ("8f4a2b", True),
        ("f4a2", False),
        ("x-PS-8f4a2b", False),
        ("8f4a2b0", False),
        ("thor", False),
    ],
)
def test_a_reference_is_a_leading_part_of_the_id_or_of_its_hash(reference: str, fits: bool) -> None:
    assert matches(reference, "odin-x-PS-8f4a2b") is fits
