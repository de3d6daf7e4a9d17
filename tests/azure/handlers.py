"""What a Resource Manager answers, request by request. No sockets here."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping

from tests.azure import access, app_handlers
from tests.azure.faults import Refusal
from tests.azure.resources import (
    ISO_TIME,
    PARAMETERS,
    PROVIDER,
    SYSTEM_DATABASES,
    Answer,
    Json,
    Request,
    Resources,
    Server,
    key,
)


def answer(state: Resources, method: str, path: str, body: Json, doom: Refusal | None = None) -> Answer:
    """What a request gets, one at a time; `doom` is how the long operation that it starts will fail. Raises Refusal."""
    with state.lock:
        state.settle()
        for verb, pattern, handler in ROUTES:
            if verb == method and (match := pattern.fullmatch(path)):
                words = match.groupdict()
                if words["subscription"] not in state.subscriptions:
                    message = f"The subscription '{words['subscription']}' could not be found."
                    raise Refusal(404, "SubscriptionNotFound", message)
                return handler(state, Request(words, body, doom))
    raise Refusal(404, "InvalidResourceType", f"The emulator has no {method} {path}")


# --- Subscriptions, providers, groups ---------------------------------------------------------------------------------


def show_subscription(state: Resources, request: Request) -> Answer:
    name = request.words["subscription"]
    return Answer(200, {"id": f"/subscriptions/{name}", "subscriptionId": name, "displayName": state.subscriptions[name]})


def show_provider(state: Resources, request: Request) -> Answer:
    subscription = request.words["subscription"]
    left = state.registering.get(subscription, 0)
    if left:
        state.registering[subscription] = left - 1
    names = [region.title for region in state.regions.values()]
    registration = "NotRegistered" if subscription in state.unregistered else "Registering" if left else "Registered"
    body = {
        "id": f"/subscriptions/{subscription}/providers/{PROVIDER}",
        "namespace": PROVIDER,
        "registrationPolicy": "RegistrationRequired",
        "registrationState": registration,
        "resourceTypes": [{"resourceType": "flexibleServers", "locations": names, "apiVersions": ["2026-04-01-preview"]}],
    }
    return Answer(200, body)


def register_provider(state: Resources, request: Request) -> Answer:
    subscription = request.words["subscription"]
    if subscription in state.unregistered:
        state.unregistered.remove(subscription)
        state.registering[subscription] = state.registering_polls + bool(state.registering_polls)
    return show_provider(state, request)


def group_json(subscription: str, name: str, location: str, tags: Json | None) -> Json:
    return {
        "id": f"/subscriptions/{subscription}/resourceGroups/{name}",
        "name": name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": location,
        "tags": tags,
        "properties": {"provisioningState": "Succeeded"},
    }


def list_groups(state: Resources, request: Request) -> Answer:
    prefix = key(request.words["subscription"], "")
    return Answer(200, {"value": [group for name, group in state.groups.items() if name.startswith(prefix)]})


def show_group(state: Resources, request: Request) -> Answer:
    return Answer(200, state.group(request))


def group_exists(state: Resources, request: Request) -> Answer:
    return Answer(204 if key(request.words["subscription"], request.words["group"]) in state.groups else 404)


def put_group(state: Resources, request: Request) -> Answer:
    subscription, name = request.words["subscription"], request.words["group"]
    location = "".join(str(request.body.get("location", "")).lower().split())
    if location not in state.regions:
        message = f"The provided location '{location}' is not available for resource group."
        raise Refusal(400, "LocationNotAvailableForResourceGroup", message)
    old = state.groups.get(key(subscription, name))
    if old is not None and old["location"] != location:
        message = (
            f"Invalid resource group location '{location}'. The Resource group already exists in location '{old['location']}'."
        )
        raise Refusal(409, "InvalidResourceGroupLocation", message)
    if old is not None and old["properties"]["provisioningState"] == "Deleting":
        raise Refusal(409, "ResourceGroupBeingDeleted", being_deleted(name))
    group = group_json(subscription, name, location, request.body.get("tags"))
    state.groups[key(subscription, name)] = group
    if old is None:
        state.created.append(group["id"])
    return Answer(200 if old else 201, group)


def being_deleted(group: str) -> str:
    return f"The resource group '{group}' is in deprovisioning state and cannot perform this operation."


def list_resources(state: Resources, request: Request) -> Answer:
    """What is in a group: its servers and its apps."""
    state.group(request)
    found = [server for server in state.servers.values() if server.group.lower() == request.words["group"].lower()]
    prefix = key(request.words["subscription"], request.words["group"], "")
    apps = [app for path, app in state.container.apps.items() if path.startswith(prefix)]
    listed = [(server.id, server.name, f"{PROVIDER}/flexibleServers") for server in found]
    listed += [(app.id, app.name, f"{app_handlers.PROVIDER}/containerApps") for app in apps]
    return Answer(
        200, {"value": [{"id": path, "name": name, "type": kind, "location": "eastus2"} for path, name, kind in listed]}
    )


def delete_group(state: Resources, request: Request) -> Answer:
    group = state.group(request)
    name = key(request.words["subscription"], request.words["group"])
    group["properties"] = {"provisioningState": "Deleting"}

    def finish() -> None:
        for path, server in list(state.servers.items()):
            if path.startswith(f"{name}/"):
                remove_server(state, server)
        state.container.forget(f"{name}/")
        state.groups.pop(name, None)

    def undo() -> None:
        group["properties"] = {"provisioningState": "Succeeded"}

    headers = state.start(request, str(group["id"]), finish, undo).headers
    return Answer(202, None, {"Location": headers["Location"], "Retry-After-Ms": headers["Retry-After-Ms"]})


# --- Locations and long operations ------------------------------------------------------------------------------------


def capabilities(state: Resources, request: Request) -> Answer:
    state.registered(request)
    location = "".join(request.words["location"].lower().split())
    if location not in state.regions:
        message = f"The provided location '{location}' is not available for resource type '{PROVIDER}/locations/capabilities'."
        raise Refusal(400, "LocationNotAvailableForResourceType", message)
    return Answer(200, {"value": state.regions[location].capabilities()})


def server_capabilities(state: Resources, request: Request) -> Answer:
    return Answer(200, {"value": state.regions[state.server(request).location].capabilities(of_server=True)})


def check_name(state: Resources, request: Request) -> Answer:
    state.registered(request)
    name = str(request.body["name"]).lower()
    if name in state.taken or any(server.name == name for server in state.servers.values()):
        message = "Specified server name is already used."
        return Answer(200, {"name": name, "nameAvailable": False, "reason": "AlreadyExists", "message": message})
    return Answer(200, {"name": name, "nameAvailable": True, "message": ""})


def show_operation(state: Resources, request: Request) -> Answer:
    operation = state.operations[request.words["operation"]]
    body = {"name": request.words["operation"], "startTime": ISO_TIME}
    if not operation.done:
        return Answer(200, {**body, "status": "InProgress"}, {"Retry-After-Ms": str(state.retry_ms)})
    if operation.refusal:
        return Answer(200, {**body, "status": "Failed", "error": operation.refusal.error()})
    return Answer(200, {**body, "status": "Succeeded", "properties": {}})


def show_result(state: Resources, request: Request) -> Answer:
    operation = state.operations[request.words["operation"]]
    if not operation.done:
        location = f"~/subscriptions/{request.words['subscription']}/providers/{PROVIDER}/locations/eastus/operationResults/"
        query = "?api-version=2026-04-01-preview"
        headers = {"Location": f"{location}{request.words['operation']}{query}", "Retry-After-Ms": str(state.retry_ms)}
        return Answer(202, None, headers)
    if operation.refusal:
        raise operation.refusal
    return Answer(200)


# --- Servers ----------------------------------------------------------------------------------------------------------


def list_servers(state: Resources, request: Request) -> Answer:
    words = request.words
    if "group" in words:
        state.group(request)
    prefix = key(words["subscription"], *([words["group"]] if "group" in words else []), "")
    return Answer(200, {"value": [state.show(server) for path, server in state.servers.items() if path.startswith(prefix)]})


def show_server(state: Resources, request: Request) -> Answer:
    return Answer(200, state.show(state.server(request)))


def password_fits(login: str, password: str) -> bool:
    """Azure's rule for the administrator's password."""
    classes = sum(bool(re.search(kind, password)) for kind in ("[a-z]", "[A-Z]", "[0-9]", "[^A-Za-z0-9]"))
    parts = {login[start : start + 3].lower() for start in range(len(login) - 2)}
    return 8 <= len(password) <= 128 and classes >= 3 and not any(part in password.lower() for part in parts)


def unexpected() -> Refusal:
    """What Azure says to nearly anything that it didn't expect, a weak password among them; with its own spelling."""
    message = f"An unexpected error occured while processing the request. Tracking ID: '{uuid.uuid4()}'"
    return Refusal(500, "InternalServerError", message)


def put_server(state: Resources, request: Request) -> Answer:
    state.registered(request)
    group = state.group(request)
    words, body = request.words, request.body
    properties = body.get("properties", {})
    path = key(words["subscription"], words["group"], words["server"])
    if group["properties"]["provisioningState"] == "Deleting":
        raise Refusal(409, "ResourceGroupBeingDeleted", being_deleted(words["group"]))
    if path in state.servers:
        return patch_server(state, request)
    name = words["server"].lower()
    if name in state.taken or any(server.name == name for server in state.servers.values()):
        raise Refusal(409, "ServerNameAlreadyExists", "Specified server name is already used.")
    region = state.regions["".join(str(body["location"]).lower().split())]
    region.allow(str(properties.get("version", "")), body["sku"])
    login, password = str(properties.get("administratorLogin", "")), str(properties.get("administratorLoginPassword", ""))
    if not login or not password:
        missing = "AdministratorLoginPassword" if login else "AdministratorLogin"
        message = f"Parameter '{missing}' must be specified. This parameter cannot be NULL or empty."
        raise Refusal(400, "MissingRequiredParameter", message)
    high = {"mode": "Disabled", **properties.get("highAvailability", {})}
    server = Server(
        subscription=words["subscription"],
        group=words["group"],
        name=name,
        location=region.name,
        sku=dict(body["sku"]),
        login=login,
        password=password,
        version=str(properties["version"]),
        storage={"type": "", "iops": 120, "tier": "P4", "autoGrow": "Disabled", **properties.get("storage", {})},
        backup={"backupRetentionDays": 7, "geoRedundantBackup": "Disabled", **properties.get("backup", {})},
        high_availability={**high, "state": "NotEnabled" if high["mode"] == "Disabled" else "Healthy"},
        network={"publicNetworkAccess": "Enabled", **properties.get("network", {})},
        tags=body.get("tags"),
        zone=str(properties.get("availabilityZone") or "1"),
        databases={database: {"charset": "UTF8", "collation": "en_US.utf8"} for database in SYSTEM_DATABASES},
    )
    state.servers[path] = server
    state.created.append(server.id)
    if not password_fits(login, password):
        request = Request(words, body, unexpected())

    def finish() -> None:
        server.fqdn = f"{name}.postgres.database.azure.com"
        if state.hooks.on_server:
            server.fqdn = state.hooks.on_server(server)
        server.state = "Ready"

    def undo() -> None:
        del state.servers[path]

    return state.start(request, server.id, finish, undo)


def patch_server(state: Resources, request: Request) -> Answer:
    server = state.server(request)
    state.idle(server)
    properties = request.body.get("properties", {})
    asked = {name: value for name, value in properties.get("storage", {}).items() if value is not None}
    if asked.get("storageSizeGB", server.storage["storageSizeGB"]) < server.storage["storageSizeGB"]:
        raise Refusal(400, "InvalidParameterValue", "Storage size can't be decreased.")
    password = properties.get("administratorLoginPassword")
    if password is not None and not password_fits(server.login, password):
        request = Request(request.words, request.body, unexpected())
    server.state = "Updating"

    def finish() -> None:
        server.state = "Ready"
        server.sku.update(request.body.get("sku") or {})
        server.storage.update(asked)
        server.backup.update({k: v for k, v in properties.get("backup", {}).items() if k != "earliestRestoreDate"})
        server.network.update(properties.get("network") or {})
        server.version = str(properties.get("version") or server.version)
        server.tags = request.body["tags"] if request.body.get("tags") is not None else server.tags
        if mode := properties.get("highAvailability", {}).get("mode"):
            server.high_availability = {"mode": mode, "state": "NotEnabled" if mode == "Disabled" else "Healthy"}
        if password is not None:
            server.password = password
            if state.hooks.on_password:
                state.hooks.on_password(server)

    def undo() -> None:
        server.state = "Ready"

    return state.start(request, server.id, finish, undo)


def remove_server(state: Resources, server: Server) -> None:
    del state.servers[key(server.subscription, server.group, server.name)]
    if state.hooks.on_server_deleted:
        state.hooks.on_server_deleted(server)


def delete_server(state: Resources, request: Request) -> Answer:
    try:
        server = state.server(request)
    except Refusal as refusal:
        if refusal.code == "ResourceNotFound":
            return Answer(204)
        raise
    state.idle(server)
    server.state = "Dropping"

    def undo() -> None:
        server.state = "Ready"

    return state.start(request, server.id, lambda: remove_server(state, server), undo)


# --- Children of a server ---------------------------------------------------------------------------------------------


def children(server: Server, kind: str) -> dict[str, Json]:
    """The children of a kind, by name; `kind` as the path has it, in lower case."""
    if kind == "configurations":
        return {
            name: {
                "value": server.parameters.get(name, default),
                "defaultValue": default,
                "dataType": data_type,
                "allowedValues": allowed,
                "source": "user-override" if name in server.parameters else "system-default",
                "isDynamicConfig": True,
                "isReadOnly": False,
                "isConfigPendingRestart": False,
            }
            for name, (data_type, default, allowed) in PARAMETERS.items()
        }
    return server.databases if kind == "databases" else server.rules


KINDS = {"databases": "databases", "firewallrules": "firewallRules", "configurations": "configurations"}


def list_children(state: Resources, request: Request) -> Answer:
    kind = request.words["kind"].lower()
    server = state.server(request, parent="read")
    return Answer(200, {"value": [server.child(KINDS[kind], name, values) for name, values in children(server, kind).items()]})


def show_child(state: Resources, request: Request) -> Answer:
    kind, name = request.words["kind"].lower(), request.words["child"]
    server = state.server(request, parent="read")
    found = children(server, kind).get(name)
    if found is None:
        path = f"{PROVIDER}/flexibleServers/{server.name}/{KINDS[kind]}/{name}"
        message = f"The requested resource of type '{path}' was not found."
        raise Refusal(404, "ResourceNotFound", message)
    return Answer(200, server.child(KINDS[kind], name, found))


def put_child(state: Resources, request: Request) -> Answer:
    kind, name = request.words["kind"].lower(), request.words["child"]
    server = state.server(request, parent="write")
    state.idle(server)
    properties = request.body.get("properties", {})

    def finish() -> None:
        if kind == "configurations":
            server.parameters[name] = str(properties["value"])
            return
        known = name in children(server, kind)
        children(server, kind)[name] = dict(properties)
        if not known:
            state.created.append(f"{server.id}/{KINDS[kind]}/{name}")
        if kind == "databases" and not known and state.hooks.on_database:
            state.hooks.on_database(server, name)

    if kind == "configurations" and name not in PARAMETERS:
        raise Refusal(400, "InvalidParameterName", f"The configuration '{name}' does not exist for {server.name} server.")
    return state.start(request, server.id, finish, lambda: None)


def delete_child(state: Resources, request: Request) -> Answer:
    kind, name = request.words["kind"].lower(), request.words["child"]
    server = state.server(request, parent="delete")
    if name not in children(server, kind):
        return Answer(204)
    state.idle(server)
    if kind == "databases" and name in SYSTEM_DATABASES:
        raise Refusal(400, "OperationNotAllowed", f"The database '{name}' is a system database and can't be dropped.")

    def finish() -> None:
        del children(server, kind)[name]
        if kind == "databases" and state.hooks.on_database_deleted:
            state.hooks.on_database_deleted(server, name)

    return state.start(request, server.id, finish, lambda: None)


Handler = Callable[[Resources, Request], Answer]


def routes(prefix: str, table: Mapping[str, Handler]) -> list[tuple[str, re.Pattern[str], Handler]]:
    """`METHOD path` -> handler, as patterns; `{word}` is one segment, and letter case says nothing."""
    found = []
    for line, handler in table.items():
        method, _, path = line.partition(" ")
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", prefix + path).replace(".", r"\.")
        found.append((method, re.compile(pattern, re.IGNORECASE), handler))
    return found


ROUTES = [
    *access.ROUTES,
    *routes("/subscriptions/{subscription}", app_handlers.TABLE),
    *routes(
        "/subscriptions/{subscription}",
        {
            "GET ": show_subscription,
            "GET /providers/" + PROVIDER: show_provider,
            "POST /providers/" + PROVIDER + "/register": register_provider,
            "GET /resourcegroups": list_groups,
            "HEAD /resourcegroups/{group}": group_exists,
            "GET /resourcegroups/{group}": show_group,
            "PUT /resourcegroups/{group}": put_group,
            "DELETE /resourcegroups/{group}": delete_group,
            "GET /resourcegroups/{group}/resources": list_resources,
        },
    ),
    *routes(
        "/subscriptions/{subscription}/providers/" + PROVIDER,
        {
            "GET /flexibleServers": list_servers,
            "POST /checkNameAvailability": check_name,
            "POST /locations/{location}/checkNameAvailability": check_name,
            "GET /locations/{location}/capabilities": capabilities,
            "GET /locations/{location}/azureAsyncOperation/{operation}": show_operation,
            "GET /locations/{location}/operationResults/{operation}": show_result,
        },
    ),
    *routes(
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/" + PROVIDER + "/flexibleServers",
        {
            "GET ": list_servers,
            "GET /{server}": show_server,
            "PUT /{server}": put_server,
            "PATCH /{server}": patch_server,
            "DELETE /{server}": delete_server,
            "GET /{server}/capabilities": server_capabilities,
            "GET /{server}/{kind}": list_children,
            "GET /{server}/{kind}/{child}": show_child,
            "PUT /{server}/{kind}/{child}": put_child,
            "PATCH /{server}/{kind}/{child}": put_child,
            "DELETE /{server}/{kind}/{child}": delete_child,
        },
    ),
]
