"""Where the programs that people know take their secrets: a table, and what carries others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple


class Rule(NamedTuple):
    """Where secrets stand among the arguments of a program.

    ``programs``: its names; ``*`` for any, which has to say ``after`` at once. ``after``: the
    words that have to come before, of an action (``kv put``). ``options``: what is followed by
    a secret, in a word of its own or in the same; with ``*`` at its end in the same only.
    ``words``: how many words come before those that are secrets; -1 for the last one alone.
    ``pairs``: options whose value is a name and a secret with a colon, a comma or the like
    between them. ``named``: each ``name=value`` has a secret.
    """

    programs: str
    after: str = ""
    options: str = ""
    words: int | None = None
    pairs: str = ""
    named: bool = False


_MYSQL = "mysql mysqldump mysqladmin mysqlimport mysqlcheck mysqlshow mysqlsh mariadb mariadb-dump"
RULES = (
    # Databases
    Rule(_MYSQL, options="-p"),
    Rule("mongo mongosh mongodump mongorestore mongoimport mongoexport", options="-p"),
    Rule("sqlcmd bcp isql tsql", options="-P"),
    Rule("sqlplus sqlldr expdp impdp rman", words=0),
    Rule("redis-cli valkey-cli keydb-cli", options="-a"),
    Rule("redis-cli valkey-cli", after="auth", words=0),
    Rule("redis-cli valkey-cli", after="hello", words=1),
    Rule("cqlsh clickhouse-client influx", options="-p"),
    # The web
    Rule("curl", options="-b", pairs="-u -U -E --user --proxy-user --cert --proxy-cert --proxy -x"),
    Rule("wget ab siege", pairs="-A -P"),
    Rule("http https xh xhs", options="-a"),
    # Secrets' own programs
    Rule("vault bao", after="login", words=0),
    Rule("vault bao", after="unwrap", words=0),
    Rule("vault bao", after="unseal", words=0),
    Rule("vault bao", after="rekey", words=0),
    Rule("vault bao", after="token", words=1),
    Rule("vault bao", after="write", named=True),
    Rule("vault bao", after="kv put", named=True),
    Rule("vault bao", after="kv patch", named=True),
    Rule("op", after="signin", words=0),
    Rule("op", after="item create", named=True),
    Rule("op", after="item edit", named=True),
    Rule("bw", after="login", words=1, options="--session --code"),
    Rule("bw", after="unlock", words=0),
    Rule("bw", options="--session"),
    Rule("security", options="-w -p"),
    Rule("doppler infisical", after="secrets set", named=True),
    Rule("chamber", after="write", words=2),
    Rule("credstash", after="put", words=1),
    Rule("rclone", after="obscure", words=0),
    Rule("sshpass", options="-p"),
    # Hashes and files that a password opens
    Rule("htpasswd htdigest", words=-1),
    Rule("mkpasswd wpa_passphrase caddy", words=-1),
    Rule("openssl", options="-k -K"),
    Rule("openssl", after="passwd", words=0),
    Rule("ssh-keygen", options="-N -P"),
    Rule("zip unzip zipcloak", options="-P"),
    Rule("7z 7za 7zz", options="-p*"),
    Rule("rar unrar", options="-p* -hp*"),
    Rule("qpdf", after="--encrypt", words=0),
    Rule("pdftk", after="user_pw", words=0),
    Rule("pdftk", after="owner_pw", words=0),
    Rule("pdftk", after="input_pw", words=0),
    Rule("pdftotext pdfinfo pdftoppm pdfimages", options="-upw -opw"),
    Rule("ykman", options="-P -n -p"),
    Rule("useradd usermod", options="-p"),
    Rule("chpasswd", words=0),
    # Directories, shares, desktops, devices
    Rule("ldapsearch ldapadd ldapmodify ldapdelete ldapwhoami ldappasswd", options="-w -s"),
    Rule("smbclient rpcclient smbget smbmap", pairs="-U", words=1),
    Rule("crackmapexec nxc evil-winrm ncftp ncftpget ncftpput rdesktop", options="-p"),
    Rule("xfreerdp wlfreerdp", options="/p:* /gp:*"),
    Rule("lftp", pairs="-u"),
    Rule("sftp", pairs="*"),
    Rule("ipmitool", options="-P"),
    Rule("snmpget snmpwalk snmpset snmpbulkwalk snmpgetnext", options="-c -A -X"),
    Rule("net", after="use", words=1),
    Rule("net", after="user", words=1),
    Rule("mosquitto_pub mosquitto_sub", options="-P"),
    # Registries and packages
    Rule("*", after="login", options="-p"),
    Rule("az helm gh aws gcloud ibmcloud", after="login", options="-p"),
    Rule("twine poetry flit", options="-p"),
    Rule("poetry", after="config", words=1),
    Rule("cargo", after="login", words=0),
    Rule("nuget dotnet", after="setapikey", words=0),
    Rule("nuget dotnet", after="push", options="-k"),
    Rule("nuget dotnet", after="user-secrets set", words=1),
    Rule("composer", after="config", words=1),
    Rule("bundle", after="config", words=-1),
    # Clouds and services
    Rule("kubectl oc", after="create secret", options="--from-literal", named=True),
    Rule("gh", after="secret set", options="-b --body"),
    Rule("*", after="secret set", named=True),
    Rule("*", after="secrets set", named=True),
    Rule("heroku dokku", after="config:set", named=True),
    Rule("railway", after="variables", named=True),
    Rule("aws", after="put-parameter", options="--value"),
    Rule("aws", options="--secret-string --secret-binary"),
    Rule("az", after="secret set", options="--value"),
    Rule("pulumi", after="config set", words=1),
    Rule("cf", after="auth", words=1),
    Rule("doctl", options="-t"),
    Rule("vercel netlify", options="-t"),
    Rule("ngrok", after="authtoken", words=0),
    Rule("ngrok", after="add-authtoken", words=0),
    Rule("wandb", after="login", words=0),
    Rule("snyk", after="auth", words=0),
    Rule("travis", after="encrypt", words=0),
    Rule("jfrog jf", after="config", options="--password --access-token"),
)

# What runs what it is given: all that stands behind may be a program.
_CARRIERS = (
    "env sudo doas su runuser nice ionice nohup timeout gtimeout time setsid stdbuf strace"
    " ltrace chroot unshare nsenter taskset chrt flock watch xargs parallel entr script command"
    " exec docker podman nerdctl kubectl oc docker-compose podman-compose ssh mosh systemd-run"
    " busybox uv uvx pipx npx bunx pnpm yarn bundle poetry pdm hatch rye mise direnv doppler"
    " aws-vault op infisical dotenv holdfast caffeinate firejail bwrap proot flatpak snap"
    " toolbox distrobox tini dumb-init s6-setuidgid gosu su-exec faketime rlwrap unbuffer tmux"
    " screen"
)
CARRIERS = frozenset(_CARRIERS.split())
# Of these an argument may be a script.
_SHELLS = (
    "sh bash zsh dash ash ksh mksh fish csh tcsh rbash pwsh ssh mosh su runuser watch script"
    " eval parallel entr tmux screen flock"
)
SHELLS = frozenset(_SHELLS.split())
# Of these it may be a program that calls others.
INTERPRETERS = re.compile(r"(?:python|pypy|node|ruby|perl|php|deno|bun|lua)[\d.]*")
# What reads a secret from its standard input.
_READERS = re.compile(
    r"(?:^|\s|/)(?:chpasswd|cryptsetup|kinit|smbpasswd|mkpasswd|htpasswd|ssh-add\s+-)(?:\s|$)"
    r"|--(?:\w+-)*(?:password|pass|token|secret|passphrase|key)-?(?:from-)?(?:stdin|fd)\b|--with-token"
    r"|--passphrase-fd|\bsudo\s(?:-\w+\s+)*-\w*S|passwd\s(?:.*\s)?--stdin|\bpass(?:in)?[:=]?\s?stdin|\s-stdin\b"
    r"|\b(?:vault|bao)\s(?:.*[\s=])?-$|\bsecrets?[\s:](?:set|put|create|add|import)\b"
    r"|\benv\s+add\b|\bpass\s+insert\b|\blogin\b.*--(?:stdin|token=?\s?-)"
)


def _by_program() -> Mapping[str, Sequence[Rule]]:
    found: dict[str, list[Rule]] = {}
    for rule in RULES:
        for program in rule.programs.split():
            found.setdefault(program, []).append(rule)
    return found


_RULES = _by_program()


def rules(program: str) -> Sequence[Rule]:
    """The rules of a program, by its name without a folder."""
    return (*_RULES.get(program, ()), *_RULES["*"])


def programs(words: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Where programs stand in a command, and their names: the first word, and what it carries."""
    if not words:
        return
    first = _name(words[0])
    yield 0, first
    carries = first in CARRIERS
    for at, word in enumerate(words[1:], 1):
        name = _name(word)
        is_known = name in _RULES or name in SHELLS or name in CARRIERS
        if is_known and name != first and (carries or words[at - 1] == "--"):
            yield at, name


def reads_secret(words: Sequence[str]) -> bool:
    """Whether what is piped into this command is a secret."""
    return _READERS.search(" ".join(words)) is not None


def _name(word: str) -> str:
    return os.path.basename(word).removesuffix(".exe")
