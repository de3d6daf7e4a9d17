"""What a Resource Manager answers to requests for identities, whose tokens they take, and what they may."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.azure import app_handlers, apps
from tests.azure.faults import Refusal
from tests.azure.resources import PROVIDER, Answer, Json, Request, Resources, key

AUTHORIZATION = "Microsoft.Authorization"
IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities"


def put_identity(state: Resources, request: Request) -> Answer:
    group, words = state.group(request), request.words
    if not request.body.get("location"):
        raise Refusal(400, "LocationRequired", "The location property is required for this definition.")
    made = apps.identity_json(words["subscription"], group["name"], words["name"], request.body["location"])
    known = state.container.identities
    is_new = made["id"].lower() not in known
    if is_new:
        known[made["id"].lower()] = made
        state.created.append(made["id"])
    return Answer(201 if is_new else 200, known[made["id"].lower()])


def credentials_of(state: Resources, request: Request) -> tuple[str, dict[str, Json]]:
    """The id of an identity, and its federated credentials by name."""
    identity = str(app_handlers.show_identity(state, request).body["id"])
    return identity, state.credentials.setdefault(identity.lower(), {})


def list_credentials(state: Resources, request: Request) -> Answer:
    return Answer(200, {"value": list(credentials_of(state, request)[1].values())})


def put_credential(state: Resources, request: Request) -> Answer:
    identity, credentials = credentials_of(state, request)
    name, properties = request.words["credential"], request.body["properties"]
    if missing := [word for word in ("issuer", "subject", "audiences") if not properties.get(word)]:
        raise Refusal(400, "BadRequest", f"Required property {missing[0]} is missing.")
    is_new = name not in credentials
    kind = f"{IDENTITY}/federatedIdentityCredentials"
    path = f"{identity}/federatedIdentityCredentials/{name}"
    credentials[name] = {"id": path, "name": name, "type": kind, "properties": properties}
    return Answer(201 if is_new else 200, credentials[name])


def exists(state: Resources, scope: str) -> bool:
    """Whether there is a resource of this id, of the kinds that the suite gives roles on."""
    words = scope.strip("/").lower().split("/")
    if len(words) < 4:
        return True
    group, name = key(words[1], words[3]), key(words[1], words[3], words[-1])
    if len(words) == 4 or group not in state.groups:
        return group in state.groups
    kinds = {
        f"{PROVIDER}/flexibleServers": name in state.servers,
        "Microsoft.App/managedEnvironments": name in state.container.environments,
        IDENTITY: scope.lower() in state.container.identities,
    }
    return any(found for kind, found in kinds.items() if kind.lower() == "/".join(words[5:7]))


def put_assignment(state: Resources, request: Request) -> Answer:
    words, given = request.words, dict(request.body["properties"])
    given["scope"] = scope = f"/subscriptions/{words['subscription']}{words['inner']}"
    if not exists(state, scope):
        raise Refusal(404, "ResourceNotFound", f"The Resource '{scope}' was not found.")
    role = rf"/subscriptions/[^/]+/providers/{AUTHORIZATION}/roleDefinitions/[0-9a-f-]{{36}}"
    if not re.fullmatch(role, given["roleDefinitionId"]):
        raise Refusal(400, "InvalidRoleDefinitionId", "The role definition ID is not valid.")
    principals = {identity["properties"]["principalId"] for identity in state.container.identities.values()}
    if given["principalId"] not in principals or given.get("principalType") != "ServicePrincipal":
        message = f"Principal {given['principalId'].replace('-', '')} does not exist in the directory."
        raise Refusal(400, "PrincipalNotFound", message)
    for item in state.assignments.values():
        if all(item["properties"][word].lower() == given[word].lower() for word in ("scope", "principalId", "roleDefinitionId")):
            message = f"The role assignment already exists. The ID of the existing role assignment is {item['name']}."
            raise Refusal(409, "RoleAssignmentExists", message)
    path = f"{scope}/providers/{AUTHORIZATION}/roleAssignments/{words['name']}"
    item = {"id": path, "name": words["name"], "type": f"{AUTHORIZATION}/roleAssignments", "properties": given}
    state.assignments[path.lower()] = item
    return Answer(201, item)


def list_assignments(state: Resources, request: Request) -> Answer:
    """Those of a principal; `filter` is what the query says."""
    whose = re.fullmatch(r"principalId eq '([^']+)'", request.body.get("filter", ""))
    if whose is None:
        raise Refusal(400, "UnsupportedQuery", "The filter is not supported.")
    found = [item for item in state.assignments.values() if item["properties"]["principalId"] == whose[1]]
    return Answer(200, {"value": found})


def list_permissions(state: Resources, request: Request) -> Answer:
    """What the one who asks may do in a group."""
    state.group(request)
    return Answer(200, {"value": state.permissions})


_SUBSCRIPTION = "/subscriptions/(?P<subscription>[^/]+)"
_PROVIDER = _SUBSCRIPTION + r"/resourcegroups/(?P<group>[^/]+)/providers/(?P<namespace>Microsoft\.ManagedIdentity)"
_NAMED = _PROVIDER + "/userAssignedIdentities/(?P<name>[^/]+)"
_ROLES = _SUBSCRIPTION + r"(?P<inner>.*)/providers/Microsoft\.Authorization/roleAssignments"
_TABLE: tuple[tuple[str, str, Callable[[Resources, Request], Answer]], ...] = (
    ("PUT", _NAMED, put_identity),
    ("GET", _NAMED + "/federatedIdentityCredentials", list_credentials),
    ("PUT", _NAMED + "/federatedIdentityCredentials/(?P<credential>[^/]+)", put_credential),
    ("GET", _SUBSCRIPTION + r"/resourcegroups/(?P<group>[^/]+)/providers/Microsoft\.Authorization/permissions", list_permissions),
    ("GET", _ROLES, list_assignments),
    ("PUT", _ROLES + "/(?P<name>[^/]+)", put_assignment),
)
ROUTES = [(method, re.compile(pattern, re.IGNORECASE), handler) for method, pattern, handler in _TABLE]
