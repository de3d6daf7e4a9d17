"""Extensions that pending files make, against what the server allows: told before anything runs, with the command that helps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scripts import ledger, lexer
from scripts.errors import OpsError
from scripts.psql import Session
from scripts.safety import Checked
from scripts.shell import quoted
from scripts.target import Target

_EXTENSION = re.compile(
    r'create\s+extension\s+(?:if\s+not\s+exists\s+)?(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[\w$]+))', re.IGNORECASE
)
# `azure.extensions` is the list of those that a flexible server allows; on any other server, there is no such setting.
# Source: https://learn.microsoft.com/azure/postgresql/extensions/how-to-allow-extensions
_QUERY = """SELECT pg_catalog.json_build_object(
  'allowed', current_setting('azure.extensions', true), 'database', current_database(),
  'roles', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', r.rolname, 'super', r.rolsuper,
      'create', has_database_privilege(r.oid, current_database(), 'CREATE'),
      'azure', EXISTS (SELECT FROM pg_roles AS g WHERE g.rolname = 'azure_pg_admin' AND pg_has_role(r.oid, g.oid, 'USAGE'))))
    FROM pg_roles AS r WHERE r.rolname IN ({roles})),
  'extensions', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', e.name, 'installed', e.installed_version IS NOT NULL, 'superuser', v.superuser, 'trusted', v.trusted))
    FROM pg_available_extensions AS e
      LEFT JOIN pg_available_extension_versions AS v ON v.name = e.name AND v.version = e.default_version
    WHERE e.name IN ({names})))"""


@dataclass(frozen=True)
class Wanted:
    """A CREATE EXTENSION of a pending file."""

    name: str
    file: str
    line: int
    as_user: bool  # whether the file has gone back to the user's own rights before it

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.file}:{self.line}"


def wanted(files: Iterable[Checked]) -> list[Wanted]:
    """The extensions that files make, in order."""
    found = []
    for checked in files:
        for file, text in checked.texts.items():
            if not re.search(r"\bextension\b", text, re.IGNORECASE):
                continue
            as_user = False
            for statement in lexer.lex(text).statements:
                as_user |= statement.words[:2] == ("RESET", "ROLE")
                match = _EXTENSION.match(lexer.uncommented(text, statement))
                # Under \if, whether it runs at all is decided there, perhaps by what the server has.
                if statement.words[:2] == ("CREATE", "EXTENSION") and match and not statement.depth:
                    name = match["quoted"].replace('""', '"') if match["quoted"] else match["plain"].lower()
                    found.append(Wanted(name, file, statement.line, as_user))
    return found


def check(session: Session, target: Target, user: str, group: str | None, files: Sequence[Checked], again: str) -> None:
    """Raises OpsError when the server won't make an extension of these files: not there, not allowed, or not by this role."""
    extensions = wanted(files)
    if not extensions:
        return
    names = ", ".join(ledger.literal(item.name) for item in extensions)
    roles = ", ".join(ledger.literal(role) for role in {user, group or user})
    said = json.loads("".join(session.read(_QUERY.format(roles=roles, names=names))))
    known = {item["name"]: item for item in said["extensions"] or ()}
    rights = {item["name"]: item for item in said["roles"]}
    pending = [item for item in extensions if not known.get(item.name, {}).get("installed")]
    if said["allowed"] is not None:
        _refuse_not_allowed(pending, said["allowed"], target, again)
    _refuse_unknown([item for item in pending if item.name not in known], again)
    azure = said["allowed"] is not None
    for item in pending:
        role = user if item.as_user or not group else group
        extension = known[item.name]
        if may_make(rights[role], extension, azure=azure):
            continue
        if may_make(rights[user], extension, azure=azure):
            way = f"files run as {role}, and {user} may: begin {item.file} with RESET ROLE;"
        elif extension["trusted"] or not extension["superuser"]:
            way = f"the database's owner runs: GRANT CREATE ON DATABASE {said['database']} TO {role};"
        else:
            way = f"a superuser runs: CREATE EXTENSION {item.name};"
        raise OpsError(
            f"{item.place}: {role} may not make the extension {item.name}; nothing was applied", f"{way} then: {again}"
        )


def _refuse_unknown(missing: Sequence[Wanted], again: str) -> None:
    if missing:
        listed = "\n".join(f"  {item.place}: CREATE EXTENSION {item.name}" for item in missing)
        raise OpsError(
            f"the server has no such extension; nothing was applied:\n{listed}",
            f"SELECT name FROM pg_available_extensions lists what it has; mend the files, then: {again}",
        )


def _refuse_not_allowed(pending: Sequence[Wanted], setting: str, target: Target, again: str) -> None:
    allowed = [name.strip() for name in setting.split(",") if name.strip()]
    missing = [item for item in pending if item.name.lower() not in {name.lower() for name in allowed}]
    if not missing:
        return
    listed = "\n".join(f"  {item.place}: CREATE EXTENSION {item.name}" for item in missing)
    new = dict.fromkeys(item.name for item in missing)
    server = target.dsn.hosts[0].partition(".")[0]
    group = target.found.get("AZURE_RESOURCE_GROUP")
    words = [
        *("az postgres flexible-server parameter set --resource-group", quoted(group.text) if group else "RESOURCE_GROUP"),
        *("--server-name", quoted(server), "--name azure.extensions --value", quoted(",".join([*allowed, *new]))),
    ]
    raise OpsError(
        f"the server doesn't allow these extensions (azure.extensions); nothing was applied:\n{listed}",
        f"{' '.join(words)}; then: {again}",
    )


def may_make(role: Mapping[str, bool], extension: Mapping[str, bool], *, azure: bool) -> bool:
    """Whether a role may make an extension; `azure`: where its administrators' group may make any that is allowed."""
    if role["super"] or (azure and role["azure"]):
        return True
    return role["create"] and (extension["trusted"] or not extension["superuser"])
