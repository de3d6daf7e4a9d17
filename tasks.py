"""The face: flags in, one call each, and the only place where an error becomes an exit code.

The modules that do the work are imported by the task that needs them, so that `invoke --list` stays fast.
"""

from __future__ import annotations

import functools
import gc
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task, task

from scripts import face, settings, shell
from scripts.console import Console
from scripts.errors import ExitCode, Interrupted, OpsError, UsageError

# Looking for cyclic garbage would take a tenth of a short command's time, and find none: so rarely, and not among what is here.
gc.freeze()
gc.set_threshold(100_000)

# Every flag is declared once: what it means is the same wherever it stands, but for the few of IN_TASK.
FLAGS = {
    "abort": "Go back: the new login role is disabled, the old one stays.",
    "accept_drift": "Go on although the database differs from what the files make.",
    "admin_password": "The administrator's password; `-` reads it from stdin (one is made).",
    "admin_password_file": "Read that password from this file.",
    "admin_user": "The administrator of a new server (serving_admin).",
    "allow_azure_services": "Let in everything inside Azure, other customers' machines too (rule 0.0.0.0).",
    "allow_cidr": "Let in this range, such as 203.0.113.0/24; may be repeated.",
    "allow_current_ip": "Let in the address from which this machine is seen.",
    "allow_ip_range_end": "The end of that range (its start).",
    "allow_ip_range_start": "Let in a range of addresses, from this one on.",
    "allow_out_of_order": "Apply a pending file although a newer one is applied.",
    "allow_remote": "Permit it on another machine than this one.",
    "allow_wide": "Permit ranges of a /8 or more.",
    "app": "The app whose template is meant: deploy/app_NAME.yaml (api).",
    "apply_migrations": "Apply the migrations when the server stands.",
    "as_app": "Use the application's DSN, POSTGRES_DSN.",
    "backtest_service_password": "The password of the application's role; `-` reads it from stdin (a new one).",
    "backtest_service_password_file": "Read that password from this file.",
    "backtest_service_user": "The application's login role (backtest_service); the second one has _b behind it.",
    "backup_retention_days": "Days that backups are kept, 7 to 35 (7).",
    "check_deadline": "Seconds that each check is given (10).",
    "check": "Only check the roles against their design; exit code 3 when something differs.",
    "connection_limit": "Connections of each of the two login roles (fitted to the server).",
    "create_app_users": "Make the application's login role when the server stands, as `invoke roles` does.",
    "database_name": "The database (serving).",
    "deadline": "Seconds to wait until the old login role is out of use (300).",
    "delete_group": "Delete the resource group with all that is in it.",
    "docker": "Run psql in a Docker container.",
    "dsn": "The database, as postgresql://USER:PASSWORD@HOST:5432/DB?sslmode=require; `-` reads it from stdin.",
    "emit_secrets": "Print DSNs and passwords.",
    "env_file": "The file that settings are read from (.env).",
    "explain": "Show what this would go by, and where each value comes from; nothing is done.",
    "fix": "Mend what is safe to mend without asking, and look again.",
    "finish": "Disable the old login role as soon as it is out of use.",
    "from_key_vault": "The secrets stand in a Key Vault, and no value of theirs is needed.",
    "github": "Print the problems as GitHub Actions shows them beside the lines of a pull request.",
    "github_environment": "The environment of the GitHub secret.",
    "github_secret": "Set this secret of the GitHub repository to the DSN, by gh.",
    "identity_name": "The identity that the workflow logs in to Azure as (github-deploy).",
    "idle_in_transaction_timeout": "How long the role's transactions may wait for their client (60s).",
    "json": "Print the result as one JSON document.",
    "key_vault": "Set a secret of this Azure Key Vault to the DSN, by az.",
    "keep_group": "Delete the server alone (which is the default).",
    "keep_password": "Leave the role's password as it is.",
    "local": "Use the server of `invoke up`; start it when it isn't running.",
    "location": "The region of a new server, such as eastus2.",
    "location_fallback": "Regions to take when that one is closed, or none; with commas (in the US: eastus2,centralus,westus2).",
    "lock_retries": "Times that a file which got no lock is tried again (4).",
    "lock_timeout": "How long a statement waits for a lock on a table (5s).",
    "lock_wait": "Seconds to wait for another runner to finish (300).",
    "migrations_dir": "The folder of the migrations (migrations/).",
    "name": 'What the migration does, in a few words: "add runs table".',
    "new_revision": "Make a new revision although nothing differs.",
    "no_clock": "Don't try the files on another day.",
    "no_replay": "Don't run the files again by force: they aren't meant to bear it.",
    "no_transaction": "The file is to run outside a transaction, as CREATE INDEX CONCURRENTLY wants.",
    "number": "The number of the new file (the next one).",
    "open_firewall": "Let this machine through the server's firewall for the length of this command.",
    "out": "The file to write (schema.sql beside the migrations).",
    "plan": "Show what would be done and write nothing.",
    "postgres_version": "The PostgreSQL of the server (16): 16 or 18 embedded, any with --docker.",
    "prune": "Drop what stands in the app's lists and not in the template.",
    "prune_firewall": "Remove the firewall rules that no flag asks for.",
    "psql": "Where psql comes from: local, docker, embedded or auto (auto).",
    "purge": "Delete the server's data as well.",
    "quiet": "Seconds without a connection after which a login role counts as out of use (10).",
    "ready_deadline": "Seconds until the database has to answer, or a new revision to be ready (360).",
    "repo": "The GitHub repository, OWNER/NAME (the one of this folder).",
    "rehearse": "Run the pending files for real, in a transaction that is rolled back.",
    "reset_admin_password": "Give the administrator of an existing server a new password.",
    "resource_group": "The resource group (of a server: its name and -rg).",
    "resume": "Run a no-transaction file that was cut off again, from its beginning.",
    "roles": "Count owners too, and the rights of roles that only one side has.",
    "revoke_extra": "Take away what the roles have beyond the design.",
    "secret_name": "The secret of the Key Vault (POSTGRES-DSN).",
    "secrets_file": "Keep the application's DSN in this dotenv file, which then only you can read.",
    "server_name": "The flexible server: 3 to 63 of a-z, 0-9 and -, one name for all of Azure.",
    "server_role": "The id of a role of your own on the server, instead of Contributor.",
    "set_secrets": "Set the secrets that are at hand, although they are set: what they hold can't be read back.",
    "sku_name": "The compute SKU (standard_b1ms).",
    "sslmode": "The TLS of the DSNs: require, or verify-full (require).",
    "sslrootcert": "With verify-full, the file of the roots that are trusted (the system's).",
    "statement_timeout": "How long one statement may take (as the server has it).",
    "storage_size_gib": "The size of the disk, from 32 on (32); it can grow, and not shrink.",
    "subscription_id": "The Azure subscription.",
    "target": "The database that is meant, as HOST/DATABASE; without it, that has to be typed.",
    "template": "Another template than that of --app.",
    "terminate": "Close the connections that are left at the deadline.",
    "tier": "Burstable, GeneralPurpose or MemoryOptimized (as the SKU says).",
    "to": "Stop after this version.",
    "unseen": "Disable the old login role although nobody was seen using the new one.",
    "use_docker_psql": "The same as --docker.",
    "variables": "List the variables that the template needs.",
    "version": "The version of the file: its digits, or R__name.",
    "wait": "Seconds to wait for a server that isn't up yet (0).",
    "yes": "Don't ask.",
    "zonal_resiliency": "High availability: enabled or disabled (disabled).",
}
# By the name of the task's function.
IN_TASK = {
    "migrate": {
        "resource_group": "With --open-firewall, the server's resource group (its name and -rg).",
        "server_name": "With --open-firewall, the flexible server (the one that the DSN names).",
        "subscription_id": "With --open-firewall, the Azure subscription.",
    },
    "provision": {
        "postgres_version": "The PostgreSQL of a new server, 11 to 18 (16).",
        "secrets_file": "Keep the DSNs, the administrator's too, in this dotenv file, which then only you can read.",
    },
    "quickstart": {"docker": "Run the server in a Docker container."},
    "render": {
        "check": "Only check the template by the rules of Azure; nothing is written.",
        "out": "The file to write, which then only you can read.",
    },
    "roles": {"statement_timeout": "How long one statement of the role may take (60s)."},
    "up": {"docker": "Run the server in a Docker container."},
}
REPEATABLE = ("allow_cidr", "location_fallback")


def command(body: Callable[..., ExitCode | None]) -> Task[Any]:
    """Makes a task: its flags' help from FLAGS, SIGTERM as Ctrl-C, and an OpsError as a message and an exit code."""

    names = list(inspect.signature(body).parameters)[1:]
    several = [name for name in names if name in REPEATABLE]
    helps = {name: IN_TASK.get(body.__name__, {}).get(name, FLAGS[name]) for name in names}

    @functools.wraps(body)
    def run(_: Context, **flags: Any) -> None:
        console = Console(as_json=flags.get("json", False), in_actions=settings.in_github_actions())
        try:
            with shell.terminate_as_interrupt():
                if flags.pop("explain", False):
                    from scripts import origins

                    origins.show(called(body), flags, helps, console)
                    return
                code = body(console, **flags) or ExitCode.OK
        except OpsError as error:
            console.failure(error)
            code = error.exit_code
        except KeyboardInterrupt:
            console.failure(Interrupted("interrupted", "run the same command again: it goes on from what stands"))
            code = ExitCode.INTERRUPTED
        except ModuleNotFoundError as error:
            module = (error.name or "").partition(".")[0]
            if module in ("", "scripts", *sys.stdlib_module_names):  # a bug of ours
                raise
            mend = f"{shell.BOOTSTRAP} invoke {called(body)}, which makes .venv anew; in another environment: invoke doctor --fix"
            console.failure(OpsError(f"the Python package of `{module}` is missing in {sys.prefix}", mend))
            code = ExitCode.FAILED
        except OSError as error:
            if not shell.is_broken_pipe(error):
                raise
            sys.stderr.close()
            code = ExitCode.FAILED
        if code is not ExitCode.OK:
            raise Exit(code=int(code))

    return cast("Task[Any]", task(run, help=helps, auto_shortflags=False, iterable=several))


def called(body: Callable[..., Any]) -> str:
    """The name by which a task is called, such as migrations.new."""
    return next(name for name in namespace.task_names if inspect.unwrap(namespace[name].body) is body)


def again(command: str, flags: Mapping[str, Any]) -> str:
    """The command that was given, as a shell takes it, for a message that says what to run next. It holds no password."""
    words = [f"invoke {command}"]
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif name.endswith("password"):
            words += [f"{flag} -"] if isinstance(value, str) else []
        elif isinstance(value, list | tuple):
            words += [f"{flag} {shell.quoted(item)}" for item in value]
        elif isinstance(value, str):
            words.append(f"{flag} {shell.quoted(value)}")
    return " ".join(words)


LONGEST = 1_000_000  # seconds, eleven days; Windows counts to some four million (threading.TIMEOUT_MAX)


def seconds(flag: str, value: str | None, default: float) -> float:
    """A flag's value as a number of seconds, of which no system waits for more than it can count."""
    try:
        number = default if value is None else float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= LONGEST:
        raise UsageError(f"--{flag} {value}: not a number of seconds from 0 to {LONGEST}")
    return number


def folder(value: str | None) -> Path:
    """The migrations folder that a flag names, else the project's."""
    if value == "":
        raise UsageError("--migrations-dir is empty", "give it a value, or leave it away")
    return Path(value).resolve() if value else settings.MIGRATIONS


def whole_number(flag: str, value: str) -> int:
    """A flag's value as a whole number."""
    if not (value.isascii() and value.isdigit() and len(value) <= 18):  # 20261128093000: a file named by a moment
        raise UsageError(f"--{flag} {value}: a number is meant, such as 12")
    return int(value)


def major_version(value: str | None) -> int | None:
    """A major version of PostgreSQL as a number."""
    if value is not None and not (value.isascii() and value.isdigit()):
        raise UsageError(f"--postgres-version {value}: a major version is meant, such as 16")
    return None if value is None else int(value)


@command
def quickstart(
    console: Console, docker: bool = False, postgres_version: str | None = None, explain: bool = False, json: bool = False
) -> ExitCode:
    """Go from nothing to a migrated Postgres on this machine.

    A Postgres, the migrations, the application's role, and what stands then. Running it again changes nothing.
    """
    from scripts import quickstart as quickstarting

    return quickstarting.run(console, docker=docker, version=major_version(postgres_version))


@command
def up(
    console: Console, docker: bool = False, postgres_version: str | None = None, explain: bool = False, json: bool = False
) -> None:
    """Start the Postgres of this machine; once is enough.

    Embedded, or in Docker with --docker; without a flag, the one that was up last.
    """
    from scripts import server

    found = settings.sources()
    running = server.up(found, docker=docker, version=major_version(postgres_version), say=console.note)
    server.show(running, console)


@command
def down(console: Console, purge: bool = False, yes: bool = False, json: bool = False) -> None:
    """Stop the Postgres of this machine.

    Its data stay, unless --purge deletes those of all that were ever up here.
    """
    from scripts import server

    if purge and server.describe():
        console.confirm(f"Delete the data of {server.describe()}?", yes=yes, again="invoke down --purge")
    console.document(server.down(settings.sources(), purge=purge, say=console.say).facts())


@command
def doctor(
    console: Console, env_file: str | None = None, fix: bool = False, check_deadline: str | None = None, json: bool = False
) -> ExitCode:
    """Name what stands in the way, and what mends it.

    Nothing is changed without --fix. What isn't set up yet is no problem: it says what comes next.
    """
    from scripts import doctor as doctoring

    limit = seconds("check-deadline", check_deadline, doctoring.DEADLINE)
    return doctoring.run(doctoring.Options(env_file=env_file, fix=fix, seconds=limit), console)


@command
def provision(
    console: Console,
    subscription_id: str | None = None,
    location: str | None = None,
    location_fallback: Sequence[str] | None = None,
    resource_group: str | None = None,
    server_name: str | None = None,
    database_name: str | None = None,
    admin_user: str | None = None,
    admin_password: str | None = None,
    admin_password_file: str | None = None,
    reset_admin_password: bool = False,
    sku_name: str | None = None,
    tier: str | None = None,
    storage_size_gib: str | None = None,
    postgres_version: str | None = None,
    backup_retention_days: str | None = None,
    zonal_resiliency: str | None = None,
    allow_azure_services: bool = False,
    allow_ip_range_start: str | None = None,
    allow_ip_range_end: str | None = None,
    allow_cidr: Sequence[str] | None = None,
    allow_current_ip: bool = False,
    allow_wide: bool = False,
    prune_firewall: bool = False,
    open_firewall: bool = False,
    ready_deadline: str | None = None,
    apply_migrations: bool = False,
    create_app_users: bool = False,
    backtest_service_user: str | None = None,
    backtest_service_password: str | None = None,
    backtest_service_password_file: str | None = None,
    keep_password: bool = False,
    sslmode: str | None = None,
    sslrootcert: str | None = None,
    psql: str | None = None,
    docker: bool = False,
    use_docker_psql: bool = False,
    emit_secrets: bool = False,
    secrets_file: str | None = None,
    github_secret: str | None = None,
    github_environment: str | None = None,
    repo: str | None = None,
    key_vault: str | None = None,
    secret_name: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    plan: bool = False,
    yes: bool = False,
    explain: bool = False,
    json: bool = False,
) -> ExitCode:
    """Make or converge a Postgres in Azure, and fill it.

    An Azure Database for PostgreSQL with its firewall; then, where that is asked for, its migrations and the application's role.
    """
    flags = dict(locals())
    from scripts import provision as provisioning

    return provisioning.command(flags, again("provision", flags), console)


@command
def teardown(
    console: Console,
    subscription_id: str | None = None,
    resource_group: str | None = None,
    server_name: str | None = None,
    keep_group: bool = False,
    delete_group: bool = False,
    env_file: str | None = None,
    local: bool = False,
    yes: bool = False,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Delete what `provision` made, after asking for its name.

    The server with its data; the resource group stays, unless --delete-group is given.
    """
    flags = dict(locals())
    from scripts import teardown as tearing_down

    tearing_down.command(flags, again("teardown", flags), console)


@command
def migrate(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    migrations_dir: str | None = None,
    to: str | None = None,
    plan: bool = False,
    rehearse: bool = False,
    allow_out_of_order: bool = False,
    resume: bool = False,
    wait: str | None = None,
    lock_wait: str | None = None,
    lock_timeout: str | None = None,
    lock_retries: str | None = None,
    statement_timeout: str | None = None,
    open_firewall: bool = False,
    subscription_id: str | None = None,
    resource_group: str | None = None,
    server_name: str | None = None,
    ready_deadline: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Apply the pending migrations, each whole or not at all.

    Each file runs in one transaction with its ledger row.
    """
    flags = dict(locals())
    from scripts import migrate as migrating
    from scripts import runner, target

    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    options = runner.Options(
        folder=folder(migrations_dir),
        to=to,
        allow_out_of_order=allow_out_of_order,
        resume=resume,
        wait=seconds("wait", wait, 0.0),
        lock_wait=seconds("lock-wait", lock_wait, runner.LOCK_WAIT),
        lock_timeout=runner.LOCK_TIMEOUT if lock_timeout is None else settings.checked_time("lock-timeout", lock_timeout),
        lock_retries=runner.LOCK_RETRIES if lock_retries is None else whole_number("lock-retries", lock_retries),
        statement_timeout=None if statement_timeout is None else settings.checked_time("statement-timeout", statement_timeout),
    )
    way_in: AbstractContextManager[None] = nullcontext()
    if open_firewall:
        from scripts import opening

        way_in = opening.way_in(flags, goal, console)
    with way_in:
        migrating.run(goal, options, console, plan_only=plan, rehearse=rehearse)


@command
def status(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    migrations_dir: str | None = None,
    wait: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> ExitCode:
    """Show the state of every migration.

    Exit code 3 when something is pending or wrong.
    """
    from scripts import status as stating
    from scripts import target

    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    return stating.run(goal, folder(migrations_dir), seconds("wait", wait, 0.0), console)


@command
def roles(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    backtest_service_user: str | None = None,
    backtest_service_password: str | None = None,
    backtest_service_password_file: str | None = None,
    keep_password: bool = False,
    connection_limit: str | None = None,
    statement_timeout: str | None = None,
    lock_timeout: str | None = None,
    idle_in_transaction_timeout: str | None = None,
    emit_secrets: bool = False,
    secrets_file: str | None = None,
    github_secret: str | None = None,
    github_environment: str | None = None,
    repo: str | None = None,
    key_vault: str | None = None,
    secret_name: str | None = None,
    plan: bool = False,
    check: bool = False,
    revoke_extra: bool = False,
    wait: str | None = None,
    lock_wait: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> ExitCode:
    """Make or converge the application's login role; test it.

    Least-privileged; its DSN is handed over to where the flags say.
    """
    flags = dict(locals())
    from scripts import handover, logins, target
    from scripts import roles as role_making

    if dsn == "-" and backtest_service_password == "-":
        raise UsageError("--dsn - and --backtest-service-password - both read stdin", "put one of them into the environment")
    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    timeouts = {
        "statement_timeout": statement_timeout,
        "lock_timeout": lock_timeout,
        "idle_in_transaction_session_timeout": idle_in_transaction_timeout,
    }
    ended = role_making.run(
        goal,
        role_making.Options(
            wanted=logins.wanted(settings.app_user(backtest_service_user, goal.found), connection_limit, timeouts),
            destinations=handover.destinations(flags, env=goal.env, app_file=goal.app_file),
            password=settings.password(
                "backtest-service-password",
                backtest_service_password,
                backtest_service_password_file,
                goal.found,
                keep=keep_password,
            ),
            password_flag=f"--backtest-service-password-file {shell.quoted(backtest_service_password_file)}"
            if backtest_service_password_file
            else "--backtest-service-password -"
            if backtest_service_password
            else "",
            keep_password=keep_password,
            plan_only=plan,
            check_only=check,
            revoke_extra=revoke_extra,
            wait=seconds("wait", wait, 0.0),
            lock_wait=seconds("lock-wait", lock_wait, 300.0),
        ),
        console,
    )
    return ended.code


@command
def rotate(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    backtest_service_user: str | None = None,
    emit_secrets: bool = False,
    secrets_file: str | None = None,
    github_secret: str | None = None,
    github_environment: str | None = None,
    repo: str | None = None,
    key_vault: str | None = None,
    secret_name: str | None = None,
    plan: bool = False,
    finish: bool = False,
    abort: bool = False,
    terminate: bool = False,
    unseen: bool = False,
    deadline: str | None = None,
    quiet: str | None = None,
    wait: str | None = None,
    lock_wait: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Change the application's secret without downtime.

    Begin, deploy the new DSN, then --finish; or go back with --abort.
    """
    flags = dict(locals())
    from scripts import handover, logins, target
    from scripts import rotate as rotating

    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    rotating.run(
        goal,
        rotating.Options(
            wanted=logins.wanted(settings.app_user(backtest_service_user, goal.found), None, {}),
            destinations=handover.destinations(flags, env=goal.env, app_file=goal.app_file),
            finish=finish,
            abort=abort,
            terminate=terminate,
            unseen=unseen,
            plan_only=plan,
            deadline=seconds("deadline", deadline, 300.0),
            quiet=seconds("quiet", quiet, 10.0),
            wait=seconds("wait", wait, 0.0),
            lock_wait=seconds("lock-wait", lock_wait, 300.0),
        ),
        console,
    )


@command
def render(
    console: Console,
    app: str | None = None,
    template: str | None = None,
    out: str | None = None,
    check: bool = False,
    variables: bool = False,
    from_key_vault: bool = False,
    env_file: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Put the settings into a template of deploy/.

    As envsubst would, and safely; --check looks at it as Azure would.
    """
    flags = dict(locals())
    from scripts import manifest

    manifest.command(flags, console)


@command
def deploy(
    console: Console,
    app: str | None = None,
    template: str | None = None,
    from_key_vault: bool = False,
    subscription_id: str | None = None,
    resource_group: str | None = None,
    prune: bool = False,
    new_revision: bool = False,
    ready_deadline: str | None = None,
    env_file: str | None = None,
    plan: bool = False,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Bring a Container App to what its template says.

    And wait until its new revision is ready.
    """
    flags = dict(locals())
    from scripts import deploy as deploying

    deploying.command(flags, again("deploy", flags), console)


@command
def psql(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    as_app: bool = False,
    backtest_service_user: str | None = None,
    explain: bool = False,
) -> ExitCode:
    """Open a psql on the database.

    As the administrator, or with --as-app as the application.
    """
    from scripts import logins, target

    if as_app and dsn:
        raise UsageError("--as-app takes the DSN of POSTGRES_DSN, and --dsn names another", "leave one of them away")
    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console, as_app=as_app)
    if as_app:
        goal = goal.as_app(logins.wanted(settings.app_user(backtest_service_user, goal.found), None, {}).names, console)
    return ExitCode.OK if goal.attach() == 0 else ExitCode.FAILED


@command
def push(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    backtest_service_user: str | None = None,
    emit_secrets: bool = False,
    secrets_file: str | None = None,
    github_secret: str | None = None,
    github_environment: str | None = None,
    repo: str | None = None,
    key_vault: str | None = None,
    secret_name: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Put the application's DSN where it belongs.

    POSTGRES_DSN, or the one of --dsn: into a dotenv file, a secret of GitHub, a Key Vault.
    """
    flags = dict(locals())
    from scripts import handover, logins, target

    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=None, docker=False, console=console, as_app=not dsn)
    names = logins.wanted(settings.app_user(backtest_service_user, goal.found), None, {}).names
    if dsn:
        target.check_app(goal.dsn, goal.origin, names)
    else:
        goal = goal.as_app(names, console)
    handover.push(
        goal.dsn,
        handover.destinations(flags, env=goal.env, app_file=goal.app_file),
        console,
    )


@command
def close(
    console: Console,
    subscription_id: str | None = None,
    resource_group: str | None = None,
    server_name: str | None = None,
    env_file: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Close what a killed `--open-firewall` left open.

    The firewall rules that it left for this machine, and those that nobody can be using any more.
    """
    flags = dict(locals())
    from scripts import opening

    opening.close_left(flags, settings.sources(env_file), console)


@command
def check(console: Console, env_file: str | None = None, explain: bool = False, json: bool = False) -> None:
    """Name what the deployment needs and isn't set.

    Every secret and variable; the workflow begins with it.
    """
    from scripts import github

    github.check(settings.sources(env_file), console)


@command
def setup(
    console: Console,
    repo: str | None = None,
    subscription_id: str | None = None,
    resource_group: str | None = None,
    server_name: str | None = None,
    server_role: str | None = None,
    identity_name: str | None = None,
    from_key_vault: bool = False,
    set_secrets: bool = False,
    env_file: str | None = None,
    plan: bool = False,
    yes: bool = False,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Set up GitHub and Azure for the deployment.

    GitHub's environment with its secrets and variables, the workflow's identity with its roles.
    """
    flags = dict(locals())
    from scripts import setup as setting_up

    setting_up.command(flags, again("github.setup", flags), console)


@command
def dump(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    migrations_dir: str | None = None,
    out: str | None = None,
    wait: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Write the schema to schema.sql beside the migrations.

    The same from run to run, so that a review sees what a migration changes.
    """
    from scripts import dump as dumping
    from scripts import target

    file = folder(migrations_dir) / dumping.NAME if out is None else dumping.named(out)
    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    dumping.run(goal, file, seconds("wait", wait, 0.0), console)


@command
def baseline(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    migrations_dir: str | None = None,
    to: str | None = None,
    accept_drift: bool = False,
    plan: bool = False,
    yes: bool = False,
    wait: str | None = None,
    lock_wait: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Give a database that has its schema already its ledger.

    Records the files up to --to as applied; none of them runs.
    """
    from scripts import baseline as adopting
    from scripts import runner, target

    options = adopting.Options(
        folder=folder(migrations_dir),
        to=adopting.version(to),
        accept_drift=accept_drift,
        plan_only=plan,
        yes=yes,
        wait=seconds("wait", wait, 0.0),
        lock_wait=seconds("lock-wait", lock_wait, runner.LOCK_WAIT),
    )
    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    adopting.run(goal, options, console)


@command
def repair(
    console: Console,
    version: str,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    migrations_dir: str | None = None,
    target: str | None = None,
    plan: bool = False,
    wait: str | None = None,
    lock_wait: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Mend one row of the ledger.

    Records the checksum of one changed file anew, or forgets that one was started; nothing else is touched.
    """
    from scripts import repair as repairing
    from scripts import runner
    from scripts import target as targets

    options = repairing.Options(
        version=version,
        folder=folder(migrations_dir),
        target=target,
        plan_only=plan,
        wait=seconds("wait", wait, 0.0),
        lock_wait=seconds("lock-wait", lock_wait, runner.LOCK_WAIT),
    )
    goal = targets.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    repairing.run(goal, options, console)


@command
def reset(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    migrations_dir: str | None = None,
    allow_remote: bool = False,
    plan: bool = False,
    yes: bool = False,
    wait: str | None = None,
    lock_wait: str | None = None,
    lock_timeout: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Drop all in the database, and apply every file anew.

    After asking for its name.
    """
    from scripts import reset as resetting
    from scripts import runner, target

    options = runner.Options(
        folder=folder(migrations_dir),
        wait=seconds("wait", wait, 0.0),
        lock_wait=seconds("lock-wait", lock_wait, runner.LOCK_WAIT),
        lock_timeout=runner.LOCK_TIMEOUT if lock_timeout is None else settings.checked_time("lock-timeout", lock_timeout),
    )
    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    resetting.run(goal, options, resetting.Permission(remote=allow_remote, yes=yes, plan_only=plan), console)


@command
def prove(
    console: Console,
    migrations_dir: str | None = None,
    postgres_version: str | None = None,
    no_replay: bool = False,
    no_clock: bool = False,
    json: bool = False,
) -> None:
    """Try the files on throwaway servers, in every way.

    Whether they come to the same however they are applied; exit code 1 when they don't.
    """
    flags = dict(locals())
    from scripts import prove as proving

    version = major_version(postgres_version) or settings.DEFAULT_VERSION
    options = proving.Options(
        folder=folder(migrations_dir),
        version=version,
        replay=not no_replay,
        clock=not no_clock,
        again=again("migrations.prove", flags),
    )
    proving.run(options, settings.sources().env, console)


@command
def drift(
    console: Console,
    dsn: str | None = None,
    env_file: str | None = None,
    local: bool = False,
    psql: str | None = None,
    docker: bool = False,
    migrations_dir: str | None = None,
    to: str | None = None,
    roles: bool = False,
    wait: str | None = None,
    explain: bool = False,
    json: bool = False,
) -> ExitCode:
    """Show where the database differs from the files.

    Those that are applied; exit code 3 when it does.
    """
    from scripts import drift as drifting
    from scripts import target

    options = drifting.Options(folder=folder(migrations_dir), to=to, all_roles=roles, wait=seconds("wait", wait, 0.0))
    goal = target.resolve(dsn=dsn, env_file=env_file, local=local, psql=psql, docker=docker, console=console)
    return drifting.run(goal, options, console)


@command
def lint(console: Console, migrations_dir: str | None = None, github: bool = False, json: bool = False) -> ExitCode:
    """Look at the migrations before anything runs.

    What is refused, our rules, and those of squawk.
    """
    from scripts import lint as linting

    return linting.run(folder(migrations_dir), github=github, env=settings.sources().env, console=console)


@command
def new(
    console: Console,
    name: str,
    migrations_dir: str | None = None,
    number: str | None = None,
    no_transaction: bool = False,
    json: bool = False,
) -> None:
    """Begin a migration: a file with the next number.

    One which no other branch has.
    """
    from scripts import new as beginning

    options = beginning.Options(
        folder=folder(migrations_dir),
        name=name,
        number=None if number is None else whole_number("number", number),
        transactional=not no_transaction,
    )
    beginning.run(options, settings.sources().env, console)


namespace = Collection(
    *(quickstart, up, down, doctor, provision, teardown, migrate, status, roles, rotate, render, deploy, psql),
    Collection("migrations", new, lint, baseline, repair, dump, drift, prove, reset),
    Collection("secret", push),
    Collection("firewall", close),
    Collection("github", check, setup),
)
namespace.configure({"tasks": {"dedupe": False}})
face.put_on()
