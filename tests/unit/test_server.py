"""What is said of a server of this machine."""

from __future__ import annotations

import io
import json

import pytest

from scripts import server
from scripts.console import Console
from scripts.dsn import Dsn
from scripts.server import Choice, Up


@pytest.mark.parametrize(
    ("choice", "version", "image"),
    [
        (Choice(kind="embedded", version=18), 18, None),
        (Choice(kind="docker", version=16, image="postgres:15"), None, "postgres:15"),  # what it has, only its name may say
    ],
)
def test_no_version_is_told_that_the_image_may_not_have(choice: Choice, version: int | None, image: str | None) -> None:
    out = io.StringIO()
    dsn = Dsn({"user": "postgres", "host": "localhost", "dbname": "serving"})
    running = Up(choice=choice, dsn=dsn, started=True, socket="", password_file="p", app_file="a")
    server.show(running, Console(as_json=True, out=out))
    assert json.loads(out.getvalue())["choice"] == {"kind": choice.kind, "version": version, "image": image}
