from __future__ import annotations

import base64
import secrets
import string
import uuid

import pytest

from interfaces.access.auth import ApiKeys
from interfaces.access.key_strength import weakness

# Of password managers: a third of it is none of letters and digits.
MARKED = string.ascii_letters + string.digits + "!@#$%^&*()-_=+[]{}<>?/.|~;"
GUESSED = [
    "a",
    "change-me",
    "x7Kq9mZ2pLw4",
    "change-me-change-me-change-me",
    "please-change-me-to-a-long-random-key",
    "your-api-key-goes-here-1234567890",
    "INSERT_YOUR_API_KEY_HERE_PLEASE",
    "my-super-secret-production-api-key-1234",
    "passwordpasswordpassword12",
    "correct-horse-battery-staple",
    "test-test-test-test-test-1",
    "example-key-for-the-documentation",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaab",
    "abababababababababababababab",
    "aabbccddeeffgghhiijjkkll",
    "123456789012345678901234",
    "98765432109876543210987654321",
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789abcdef0123456789abcdef",
    "00000000-0000-0000-0000-000000000000",
    "12345678-1234-1234-1234-123456789012",
    "deadbeefdeadbeefdeadbeefdeadbeef",
    "dev-key-do-not-use-in-production-1",
    "this-is-a-very-secret-key-do-not-share",
    "team-alpha-shared-api-key-2026",
    "openssl-rand-hex-32-output-here",
    "the-quick-brown-fox-jumps-over-the-lazy-dog",
    "pass-word-pass_word-pass.word1",
    "P@ssw0rd-for-production-2026",
    "S3cr3tK3yF0rPr0duct10n2026",
    "qwertyuiopasdfghjklzxcvbnm123",
    "poiuytrewqlkjhgfdsamnbvcxz",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "a1b2c3d4e5f6g7h8i9j0k1l2m3n4",
    "123e4567-e89b-12d3-a456-426614174000",
    "cGFzc3dvcmQxMjM0NTY3ODkw",
    "73656372657473656372657473656372657431",
]


@pytest.mark.parametrize("key", GUESSED)
def test_what_people_make_up_is_found_and_not_told(key: str) -> None:
    reason = weakness(key)
    assert reason
    assert key not in reason.split()


def test_what_is_drawn_is_good() -> None:
    for _ in range(500):
        for key in (
            secrets.token_hex(16),
            secrets.token_urlsafe(24),
            str(uuid.uuid4()),
            f"hf_{secrets.token_urlsafe(32)}",
            base64.b64encode(secrets.token_bytes(18)).decode(),
            "".join(secrets.choice(string.ascii_letters) for _ in range(24)),
            "".join(secrets.choice(MARKED) for _ in range(24)),
            "rotten-anvil-sprocket-lagoon-mutiny-quartz",
        ):
            assert weakness(key) is None, key


def test_a_weak_entry_is_told_by_its_number() -> None:
    keys = ApiKeys.parse(f"{secrets.token_hex(16)},team:change-me,x@team:{'ab' * 20}")
    assert [entry.split()[1] for entry in keys.weak] == ["2", "3"]
    assert "change-me" not in str(keys.weak)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ("team:same,same", "entries 1 and 2 are the same key in two namespaces (team and default)"),
        ("a,x:same,b,y:same", "entries 2 and 4 are the same key in two namespaces (x and y)"),
        ("one@x:same,two@x:same", "entries 1 and 2 are the same key under two names (one and two)"),
        ("x:same,two@x:same", "entries 1 and 2 are the same key under two names (none and two)"),
    ],
)
def test_one_key_for_two_is_refused_naming_both_entries(entries: str, told: str) -> None:
    with pytest.raises(ValueError, match="each needs a key of its own") as refused:
        ApiKeys.parse(entries)
    assert told in str(refused.value)
    assert "`same`" not in str(refused.value)


def test_the_same_entry_twice_does_no_harm() -> None:
    keys = ApiKeys.parse("team:same-key, team:same-key")
    assert keys.authenticate("same-key", "127.0.0.1").namespace == "team"


def test_an_entry_may_carry_a_name() -> None:
    keys = ApiKeys.parse("ci@team:key-1,ci@team:key=2@x,key-3,team:key-4")
    found = [keys.authenticate(k, "") for k in ("key-1", "key=2@x", "key-3", "key-4")]
    assert [(p.namespace, p.name) for p in found] == [
        ("team", "ci"),
        ("team", "ci"),
        ("default", ""),
        ("team", ""),
    ]


def test_every_bad_entry_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"entry 1: .*entry 3: .*entry 4: ") as refused:
        ApiKeys.parse("A:k,good,UP@team:k2,schlüssel")
    assert "schl" not in str(refused.value)
