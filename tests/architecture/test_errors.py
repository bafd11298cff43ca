"""Every error has a code of its own, a message, a place in the tree, and a status."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from http import HTTPStatus

import pytest

import domain.errors
from domain.errors import HoldfastError
from interfaces.errors import STATUS, status_of

for package in ("domain", "application", "projections", "interfaces"):
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        importlib.import_module(module.name)


def descendants(cls: type[HoldfastError]) -> list[type[HoldfastError]]:
    """All classes below this one."""
    below = cls.__subclasses__()
    return [*below, *(deeper for child in below for deeper in descendants(child))]


ERRORS = [cls for cls in descendants(HoldfastError) if not cls.__module__.startswith("tests.")]
# A write conflict is the plain conflict: others were first, and nothing else can be said of it.
# Whoever always finds what cannot be had any more asks later: as with a database that is away, a
# client can do no more.
SHARED_CODES = {"conflict", "database_unavailable"}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error.__name__))
def test_every_error_has_a_status_of_its_own_family(error: type[HoldfastError]) -> None:
    """Only what went wrong inside is 500; everything else says what to do about it."""
    status = status_of(error())
    assert HTTPStatus(status)
    assert (status == 500) == (error.code == "internal_error")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error.__name__))
def test_every_error_has_a_code_and_a_message(error: type[HoldfastError]) -> None:
    """The code is stable and in snake case; the docstring is the message."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)
    assert error().message


def test_codes_are_not_shared() -> None:
    """A client that knows the code knows the error."""
    counts = Counter(error.code for error in ERRORS)
    assert {code for code, count in counts.items() if count > 1} <= SHARED_CODES


def test_a_status_is_found_before_that_of_its_family() -> None:
    """The table is searched in order: what is more special comes first."""
    classes = list(STATUS)
    for n, cls in enumerate(classes):
        assert not any(issubclass(later, cls) for later in classes[n + 1 :])


def test_the_tree_is_drawn_whole() -> None:
    """The docstring of the module names every error that is defined there."""
    drawn = domain.errors.__doc__ or ""
    for error in ERRORS:
        if error.__module__ == "domain.errors":
            assert re.search(rf"\b{error.__name__}\b", drawn), error.__name__
