"""A GitHub on this machine: the part of its API that the real gh needs for repositories, environments and their settings."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from nacl.public import PrivateKey, SealedBox

Json = dict[str, Any]
Said = tuple[int, Json | None]
REPOSITORY = "/repos/o/r"
NOT_FOUND: Said = (404, {"message": "Not Found"})


@dataclass
class Environment:
    """As GitHub keeps it."""

    policy: Json | None = None
    rules: Json = field(default_factory=dict)
    branches: dict[int, tuple[str, str]] = field(default_factory=dict)  # name and type
    variables: dict[str, str] = field(default_factory=dict)

    def json(self, name: str) -> Json:
        rules: list[Json] = []
        if self.rules.get("wait_timer"):
            rules.append({"id": 1, "type": "wait_timer", "wait_timer": self.rules["wait_timer"]})
        if self.rules.get("reviewers"):
            reviewers = [{"type": item["type"], "reviewer": {"id": item["id"]}} for item in self.rules["reviewers"]]
            prevent = self.rules.get("prevent_self_review", False)
            rules.append({"id": 2, "type": "required_reviewers", "prevent_self_review": prevent, "reviewers": reviewers})
        if self.policy:
            rules.append({"id": 3, "type": "branch_policy"})
        return {"id": 1, "name": name, "protection_rules": rules, "deployment_branch_policy": self.policy}


@dataclass
class GitHub:
    """One repository, o/r; its secrets can be read, as GitHub can."""

    address: str = ""
    env: dict[str, str] = field(default_factory=dict)
    token: str = "a token of a test"
    key: PrivateKey = field(default_factory=PrivateKey.generate)
    secrets: dict[str, str] = field(default_factory=dict)  # by path
    environments: dict[str, Environment] = field(default_factory=dict)
    subject: Json = field(default_factory=lambda: {"use_default": True})
    has_plan: bool = True  # or its rules may not be named
    requests: list[str] = field(default_factory=list)
    refuses: str = ""  # the method that is answered with 403
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def writes(self) -> list[str]:
        """What was written, in its order."""
        return [request for request in self.requests if not request.startswith("GET ")]

    def answer(self, method: str, path: str, token: str, body: bytes) -> Said:
        """What a request gets; `path` is with its query."""
        self.requests.append(f"{method} {path}")
        if token != f"token {self.token}":
            return 401, {"message": "Bad credentials"}
        if method == self.refuses:
            return 403, {"message": "Resource not accessible by personal access token"}
        parts = urlsplit(path)
        place = re.sub(REPOSITORY, REPOSITORY, parts.path.removeprefix("/api/v3"), flags=re.IGNORECASE)
        if place == REPOSITORY and method == "GET":
            return 200, {"id": 34, "full_name": "o/r", "owner": {"id": 12, "login": "o"}}
        if place == f"{REPOSITORY}/actions/oidc/customization/sub":
            return 200, self.subject
        facts = json.loads(body) if body else {}
        if found := re.fullmatch(rf"({REPOSITORY}/(?:actions|environments/([\w-]+))/secrets)(/[\w-]+)?", place):
            return self.answer_secret(method, found, facts)
        if found := re.fullmatch(rf"{REPOSITORY}/environments/([\w-]+)", place):
            return self.answer_environment(method, found[1], facts)
        if found := re.fullmatch(rf"{REPOSITORY}/environments/([\w-]+)/([\w-]+)(?:/(\w+))?", place):
            page = parse_qs(parts.query)
            first = (int(page.get("page", ["1"])[0]) - 1) * int(page.get("per_page", ["10"])[0])
            environment = self.environments.get(found[1])
            if environment is None:
                return NOT_FOUND
            if found[2] == "variables":
                return self.answer_variable(method, environment, facts, first)
            if found[2] == "deployment-branch-policies":
                return self.answer_policy(method, environment, found[3], facts)
        return NOT_FOUND

    def answer_secret(self, method: str, found: re.Match[str], facts: Json) -> Said:
        if found[2] and found[2] not in self.environments:
            return NOT_FOUND
        if method == "PUT":
            sealed = base64.b64decode(facts["encrypted_value"])
            self.secrets[f"{found[1]}{found[3]}"] = SealedBox(self.key).decrypt(sealed).decode()
            return 201, {}
        if found[3] == "/public-key":
            return 200, {"key_id": "1", "key": base64.b64encode(bytes(self.key.public_key)).decode()}
        names = [path.rpartition("/")[2] for path in self.secrets if path.rpartition("/")[0] == found[1]]
        return 200, {"total_count": len(names), "secrets": [{"name": name} for name in names]}

    def answer_environment(self, method: str, name: str, facts: Json) -> Said:
        if method == "PUT":
            policy = facts.pop("deployment_branch_policy", None)
            if facts and not self.has_plan:
                return 422, {
                    "message": "Failed to create the environment protection rule. Please ensure the billing plan supports it."
                }
            environment = self.environments.setdefault(name, Environment())
            environment.policy, environment.rules = policy, facts  # what isn't named is gone
            if not policy or not policy["custom_branch_policies"]:
                environment.branches.clear()
        return (200, self.environments[name].json(name)) if name in self.environments else NOT_FOUND

    def answer_policy(self, method: str, environment: Environment, number: str | None, facts: Json) -> Said:
        if not environment.policy or not environment.policy["custom_branch_policies"]:
            return NOT_FOUND
        if method == "POST":
            environment.branches[next(self.numbers)] = (facts["name"], facts.get("type", "branch"))
        elif method == "DELETE":
            return (204, None) if environment.branches.pop(int(number or 0), None) else NOT_FOUND
        listed = [{"id": one, "name": name, "type": kind} for one, (name, kind) in environment.branches.items()]
        return 200, {"total_count": len(listed), "branch_policies": listed}

    def answer_variable(self, method: str, environment: Environment, facts: Json, first: int) -> Said:
        variables = environment.variables
        if method == "GET":
            listed = [{"name": one, "value": value} for one, value in variables.items()]
            rest = {"next": first // 30 + 2} if len(listed) > first + 30 else {}
            return 200, {"total_count": len(listed), "variables": listed[first : first + 30], **rest}
        if (method == "POST") == (facts["name"] in variables):
            return (409, {"message": "Already exists - Variable already exists"}) if method == "POST" else NOT_FOUND
        variables[facts["name"]] = facts["value"]
        return (201, {}) if method == "POST" else (204, None)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[GitHub]:
    """A GitHub, and the environment in which gh speaks to it; its files stand in the folder."""
    if shutil.which("gh") is None:
        if os.environ.get("REQUIRE_DOCKER") == "1":
            pytest.fail("REQUIRE_DOCKER=1, and gh is not on PATH")
        pytest.skip("needs gh, which is not on PATH")
    made = GitHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":  # what `gh api --input -` sends
                body = b"".join(iter(self.chunk, b""))
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, facts = made.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
            following = (facts or {}).pop("next", None)
            data = b"" if facts is None else json.dumps(facts).encode()
            self.send_response(code)
            if following:
                place = self.path.partition("&page=")[0]
                self.send_header("Link", f'<https://{made.address}{place}&page={following}>; rel="next"')
            self.send_header("Content-Type", "application/json")
            if code != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def chunk(self) -> bytes:
            data = self.rfile.read(int(self.rfile.readline(), 16))
            self.rfile.readline()
            return data

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815  (the library's names)

        def log_message(self, *_: object) -> None:
            pass

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "gh-ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made.address = f"localhost:{server.server_port}"
        made.env = {
            "GH_HOST": made.address,
            "GH_ENTERPRISE_TOKEN": made.token,
            "GH_CONFIG_DIR": str(folder / "gh"),
            "SSL_CERT_FILE": str(folder / "gh-ca.pem"),
            "GH_NO_UPDATE_NOTIFIER": "1",
            "NO_PROXY": "localhost",
        }
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
