"""The main job from end to end on this machine: a server, the migrations, and what stands afterwards."""

from __future__ import annotations

from scripts import handover, ledger, logins, migrate, probe, roles, runner, server, settings, target
from scripts.console import Console
from scripts.errors import ExitCode
from scripts.psql import Session
from scripts.settings import sources
from scripts.shell import BOOTSTRAP, WINDOWS

_SCHEMAS = """SELECT nspname FROM pg_namespace
  WHERE nspname !~ '^(pg_|information_schema$|public$)' ORDER BY 1"""
_ACTIVATE = r".venv\Scripts\activate" if WINDOWS else "source .venv/bin/activate"
_NEXT = (
    ("invoke status --local", "which migrations it has"),
    ("invoke migrate --local", "apply what you add to migrations/"),
    ("invoke psql --local --as-app", "look at the database as the application does"),
    ("invoke down", "stop the server; its data stay"),
)


def run(console: Console, *, docker: bool = False, version: int | None = None) -> ExitCode:
    """Starts the server, applies the migrations, and shows the result. Running it again changes nothing.

    PENDING, when the application's role is otherwise than designed.
    """
    found = sources()
    password = settings.password("backtest-service-password", None, None, found)
    if password:
        console.conceal(password[0])  # before anything is said
    up = server.up(found, docker=docker, version=version, say=console.note, command="quickstart")
    goal = target.resolve(dsn=None, env_file=None, local=True, psql=None, docker=False, console=console)
    app = goal.app()
    if app:
        console.conceal(app[0].password, app[0].uri())
    console.say(f"server: {up.choice}, {'started' if up.started else 'running'}")
    wanted = logins.wanted(settings.app_user(None, found), None, {})
    with console.gathering() as documents:
        migrate.run(goal, runner.Options(wait=10.0), console)
        ended = roles.run(
            goal,
            roles.Options(
                wanted=wanted,
                destinations=handover.Destinations(app_file=goal.app_file, env=goal.env),
                password=password,
                keep_password=password is None and app is not None and probe.knows(goal, app[0]),
            ),
            console,
        )

    def look(session: Session) -> tuple[ledger.Facts, list[str], list[ledger.Row]]:
        return (
            ledger.facts(session.query(ledger.FACTS)),
            session.query(_SCHEMAS),
            sorted(ledger.rows(session.query(ledger.ROWS)), key=lambda row: row.version),
        )

    facts, schemas, rows = goal.ask(look)
    role = goal.as_app(wanted.names, console).dsn
    console.say("")
    console.table(
        [
            ["server", str(up.dsn)],
            ["version", f"PostgreSQL {facts.version}"],
            ["schemas", ", ".join(schemas)],
            ["migrations", ", ".join(f"{row.version} {row.name or ''}".rstrip() for row in rows)],
            ["application", str(role)],
        ]
    )
    console.say(f"\nnext, with `{BOOTSTRAP}` in front or after `{_ACTIVATE}`:")
    console.table([list(line) for line in _NEXT])
    migrated, made = documents
    console.document(
        {
            "target": str(goal.dsn),
            "server": up.facts(),
            "server_version": facts.version,
            "schemas": schemas,
            "versions": [row.version for row in rows],
            "role": role.params["user"],
            "dsn": str(role),
            "migrations": migrated,
            "roles": made,
        }
    )
    return ended.code
