"""The numbers of a body, judged by how they were sent."""

from __future__ import annotations

import re

import pytest

from domain.errors import InvalidInput
from interfaces.errors import PayloadTooLarge
from interfaces.http.body import MAX_BYTES, parse

REFUSED = (
    "1e308",
    "1e16",
    "-1E+300",
    "1e-400",
    "5e-324",
    "1e-100",
    "1E099",
    "1e007",
    "0e100",
    "9007199254740993",
    "-9007199254740993",
    "9007199254740993.0",
    "9007199254740992.5",
    "0.9e17",
    "1.5E99",
    "0." + "0" * 400 + "1",
    "0." + "0" * 120_000 + "1",
    "1" * 300,
    "12345678901234567.25e0",
)
KEPT = (
    "9007199254740992",
    "-9007199254740992",
    "9.007199254740992E15",
    "1e15",
    "1e-99",
    "-2.5e-7",
    "0.1",
    "1732831424.1234567",
    "0." + "0" * 60 + "1",
    "1." + "0" * 120_000,
    "0e99",
    "-0",
    "12E3",
)
# What stands beside a number; a string may hold anything that looks like one.
BESIDE = ("", '"\\u0041"', '"a, 1e308: [1e400"', '"\\\\"', '"\\"", "1e999"', "12345678901234, 2e1")
SPACES = ("", " ", "\n\t")


def bodies(number: str) -> list[bytes]:
    return [
        f'{{"a": {{"b": [{beside}{", " if beside else ""}{space}{number}{space}]}}}}'.encode()
        for beside in BESIDE
        for space in SPACES
    ]


@pytest.mark.parametrize("number", REFUSED, ids=lambda number: str(number)[:24])
def test_a_number_that_the_store_cannot_hold_is_refused_wherever_it_stands(number: str) -> None:
    """Beyond 2^53, or an exponent of more than two digits, however it is written: its field."""
    for body in bodies(number):
        with pytest.raises(InvalidInput) as refused:
            parse(body)
        field = refused.value.errors[0]["field"]
        assert re.fullmatch(r"a\.b\.\d+", field), body[:80]


@pytest.mark.parametrize("number", KEPT, ids=lambda number: str(number)[:24])
def test_a_number_that_the_store_can_hold_is_taken_wherever_it_stands(number: str) -> None:
    for body in bodies(number):
        assert parse(body)["a"]["b"][-1] == float(number)


@pytest.mark.parametrize("key", ["1e308", "a: 1e308", ", 1e308", "12345678901234567890", "\\\\"])
def test_what_looks_like_a_number_in_a_text_is_a_text(key: str) -> None:
    body = f'{{"{key}": "{key}", "x": "[ 1e999, 99999999999999999 ]"}}'.encode()
    assert len(parse(body)) == 2


@pytest.mark.parametrize("number", ["1e-99", "1e-9", "-1e15", "1e1", "2.5E-42"])
def test_what_a_body_takes_with_its_numbers_written_out_is_bounded_like_the_body(
    number: str,
) -> None:
    """In jsonb 1e-99 is written with a hundred digits; the bound is that of what is sent."""
    many = MAX_BYTES // (len(number) + 1) - 10
    body = f'{{"a": [{",".join([number] * many)}]}}'.encode()
    assert len(body) <= MAX_BYTES
    with pytest.raises(PayloadTooLarge):
        parse(body)
    few = body.decode().split(",")[: many // 30]
    assert parse((",".join(few) + "]}").encode())


def test_the_field_is_named_by_its_path_whatever_stands_before_it() -> None:
    """Nested, empty ones, keys that look like numbers or have quotes."""
    body = (
        rb'{"a": [], "b": {"c": {}, "1e999": "x", "\"": [1, {"e.\u0041": [[], [3, 1e308]]}]},'
        rb' "f": 1e500}'
    )
    with pytest.raises(InvalidInput) as refused:
        parse(body.replace(b"1e500", b"0"))
    assert refused.value.errors[0]["field"] == 'b.".1.e.A.1.1'


def test_a_large_body_is_refused_without_reading_it_all_again() -> None:
    """The number that is refused stands behind tens of thousands of others: the body is named."""
    many = ",".join(["1e5"] * 40_000)
    with pytest.raises(InvalidInput) as refused:
        parse(f'{{"a": [{many}, 1e16]}}'.encode())
    assert refused.value.errors[0]["field"] == "body"
