"""The opposite of `provision`: shows what would be deleted, asks, deletes, and looks whether it is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scripts import az, request, server, settings
from scripts.az import Az, AzError
from scripts.console import Console
from scripts.errors import OpsError, UsageError
from scripts.failures import PROVIDER
from scripts.flexible import Wanted

_TRIES = 10
_PAUSE = 2.0  # seconds


def command(flags: Mapping[str, Any], again: str, console: Console) -> None:
    """What `invoke teardown` does with its flags. Raises UsageError and OpsError."""
    found = settings.sources(flags["env_file"])
    if flags["keep_group"] and flags["delete_group"]:
        raise UsageError("--keep-group and --delete-group contradict each other", "leave one of them away")
    if flags["local"]:
        name = server.describe()
        if not name:
            console.say("nothing to do: there are no data of a server on this machine")
        else:
            console.confirm(f"Delete the data of {name}?", yes=flags["yes"], again=again)
            server.down(found, purge=True, say=console.say)
        console.document({"deleted": [name] if name else []})
        return
    client = Az(found.env, redact=console.redact)  # before all that is asked for
    reader = request.Reader(flags, found, task="teardown")
    subscription, group, name = request.place(reader)
    reader.finish()
    wanted = Wanted(subscription=subscription, group=group, server=name, database="", locations=())
    with client:
        run(
            wanted,
            client,
            console,
            store=settings.LOCAL / f"{name}.env",
            delete_group=flags["delete_group"],
            yes=flags["yes"],
            again=again,
        )


def run(
    wanted: Wanted,
    client: Az,
    console: Console,
    *,
    store: Path,
    delete_group: bool = False,
    yes: bool = False,
    again: str = "invoke teardown",
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Deletes the server, or with `delete_group` the resource group with all that is in it; and `store`, with its secrets.

    Raises OpsError when it is still there afterwards.
    """
    versions, _, group, server = client.ask(az.version(), az.login(wanted.subscription), az.group(wanted), az.server(wanted))
    az.check_version(versions)
    what = wanted.group if delete_group else wanted.server
    if (group if delete_group else server) is None:
        console.say(
            f"nothing to do: there is no {'group' if delete_group else 'server'} {what}"
            + ("" if delete_group else f" in the group {wanted.group}")
        )
        console.document({"deleted": []})
        return
    rows = []
    if server is not None:
        rows.append(
            f"server {server.name} in {server.location}: PostgreSQL {server.version}, {server.storage} GiB, its databases "
            "and its backups"
        )
    if delete_group:
        others = [
            item for item in client.ask(az.contents(wanted))[0] or [] if item != f"{PROVIDER}/flexibleServers {wanted.server}"
        ]
        rows += [f"group {wanted.group}", *(f"in it: {item}" for item in others)]
    for row in rows:
        console.say(f"  delete {row}")
    console.confirm_by_name("This can't be undone.", what, yes=yes, again=again)
    deleting = az.delete_group if delete_group else az.delete_server
    looking = az.group(wanted) if delete_group else az.server(wanted)
    said = ""
    with console.working(f"deleting {what} ..."):
        try:
            deleting(client, wanted)
        except AzError as error:
            if error.failure.kind != "missing":
                said = f":\n{error.message}"
        for _ in range(_TRIES):  # a refused delete may exit with 0
            if client.ask(looking)[0] is None:
                break
            if said:
                raise OpsError(f"{what} is still there{said}", again)
            sleep(_PAUSE)
        else:
            raise OpsError(
                f"{what} is still there, though az reported no failure", f"see its state in Azure's portal; then: {again}"
            )
    console.say(f"deleted {what}")
    if server is not None and store.is_file():
        store.unlink()
        console.say(f"deleted {store}, which held its secrets")
    console.document({"deleted": rows})
