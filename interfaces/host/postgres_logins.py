"""Who may log in to the embedded Postgres: two roles, each with a password that was drawn.

The owner prepares the database; the service works under its own role, which can do no more than its
work. The passwords are in DATA_DIR, in the form of libpq's password file, so that no connection
string, environment or log ever holds one. Whoever else can reach the socket, or runs as the account
that Postgres runs as, does not get in without.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from application.eventstore.connect import SERVICE_ROLE
from interfaces.host.data_folder import read_secret, write_secret

OWNER = "holdfast_owner"
PASSWORD_FILE = "pg.passwords"

# A drawn password of 256 bits gains nothing from being hashed again and again, and each connection
# would pay for it.
SETTINGS = {"scram_iterations": "1", "password_encryption": "scram-sha-256"}

# No line for other addresses: there the server does not even listen.
HOST_BASED_AUTHENTICATION = """\
# Made by holdfast; every start makes it anew.
# TYPE  DATABASE  USER  METHOD
local   all       all   scram-sha-256
"""

_LINE = re.compile(r"^\*:\*:\*:(\w+):([0-9a-f]{64})$", re.MULTILINE)


def passwords(folder: Path) -> dict[str, str]:
    """The passwords by role that the folder keeps; none if the file is not there, or not whole.

    Raises ``DataFolderError`` for a file that is perhaps of someone else's making.
    """
    found = dict(_LINE.findall(read_secret(folder / PASSWORD_FILE)))
    return found if found.keys() == {OWNER, SERVICE_ROLE} else {}


def draw_passwords(folder: Path) -> dict[str, str]:
    """New passwords, kept in the folder."""
    drawn = {role: secrets.token_hex(32) for role in (OWNER, SERVICE_ROLE)}
    lines = [f"*:*:*:{role}:{password}" for role, password in drawn.items()]
    write_secret(folder / PASSWORD_FILE, "\n".join(lines))
    return drawn


def statements(drawn: dict[str, str]) -> str:
    """What gives the roles these passwords: a line each, as single-user mode reads them."""
    return "\n".join(
        [
            f"DO $$ BEGIN IF to_regrole('{SERVICE_ROLE}') IS NULL THEN"
            f" CREATE ROLE {SERVICE_ROLE}; END IF; END $$",
            f"ALTER ROLE {OWNER} LOGIN PASSWORD '{drawn[OWNER]}'",
            f"ALTER ROLE {SERVICE_ROLE} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"
            f" NOBYPASSRLS PASSWORD '{drawn[SERVICE_ROLE]}'",
            # Of the service's own database the migration takes it.
            "REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC",
            "",
        ]
    )
