"""What a Resource Manager answers to requests for Microsoft.App, and for the identities that its apps have."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from tests.azure import apps
from tests.azure.apps import App, Revision
from tests.azure.faults import Refusal
from tests.azure.resources import Answer, Json, Request, Resources, key

PROVIDER = apps.PROVIDER
QUERY = "?api-version=2025-07-01"
Kept = TypeVar("Kept")


# --- Registration, environments, identities ---------------------------------------------------------------------------


def show_provider(state: Resources, request: Request) -> Answer:
    subscription, ours = request.words["subscription"], state.container
    left = ours.registering.get(subscription, 0)
    if left:
        ours.registering[subscription] = left - 1
    registration = "NotRegistered" if subscription in ours.unregistered else "Registering" if left else "Registered"
    titles = [region.title for region in state.regions.values()]
    kinds = [{"resourceType": kind, "locations": titles} for kind in ("managedEnvironments", "containerApps")]
    body = {
        "id": f"/subscriptions/{subscription}/providers/{PROVIDER}",
        "namespace": PROVIDER,
        "registrationPolicy": "RegistrationRequired",
        "registrationState": registration,
        "resourceTypes": [{**kind, "apiVersions": ["2025-07-01"]} for kind in kinds],
    }
    return Answer(200, body)


def register_provider(state: Resources, request: Request) -> Answer:
    subscription, ours = request.words["subscription"], state.container
    if subscription in ours.unregistered:
        ours.unregistered.remove(subscription)
        ours.registering[subscription] = ours.registering_polls + bool(ours.registering_polls)
    return show_provider(state, request)


def registered(state: Resources, request: Request) -> None:
    if request.words["subscription"] in state.container.unregistered:
        message = (
            f"The subscription is not registered to use namespace '{PROVIDER}'. See https://aka.ms/rps-not-found for how to "
            "register subscriptions."
        )
        raise Refusal(409, "MissingSubscriptionRegistration", message)


def not_found(kind: str, request: Request) -> Refusal:
    words = request.words
    message = (
        f"The Resource '{kind}/{words['name']}' under resource group '{words['group']}' was not found. For more details please "
        "go to https://aka.ms/ARMResourceNotFoundFix"
    )
    return Refusal(404, "ResourceNotFound", message)


def the_one(kept: Mapping[str, Kept], kind: str, state: Resources, request: Request) -> Kept:
    """What a request names, of the resources of one kind. Raises Refusal."""
    registered(state, request)
    state.group(request)
    words = request.words
    found = kept.get(key(words["subscription"], words["group"], words["name"]))
    if found is None:
        raise not_found(f"{PROVIDER}/{kind}", request)
    return found


def show_environment(state: Resources, request: Request) -> Answer:
    return Answer(200, the_one(state.container.environments, "managedEnvironments", state, request))


def show_identity(state: Resources, request: Request) -> Answer:
    state.group(request)
    words = request.words
    path = f"/subscriptions/{words['subscription']}/resourcegroups/{words['group']}/providers/{request.words['namespace']}"
    found = state.container.identities.get(f"{path}/userAssignedIdentities/{words['name']}".lower())
    if found is None:
        raise not_found("Microsoft.ManagedIdentity/userAssignedIdentities", request)
    return Answer(200, found)


# --- Apps -------------------------------------------------------------------------------------------------------------


def the_app(state: Resources, request: Request) -> App:
    return the_one(state.container.apps, "containerApps", state, request)


def domain(state: Resources, app: App) -> str:
    environment = environment_of(state, app.document)
    return str(environment["properties"]["defaultDomain"])


def environment_of(state: Resources, document: Json) -> Json:
    """Raises Refusal when there is none, or when it takes no apps."""
    path = str(document["properties"]["environmentId"] or "")
    listed = state.container.environments.values()
    found = next((environment for environment in listed if environment["id"].lower() == path.lower()), None)
    if found is None:
        raise Refusal(404, "ManagedEnvironmentNotFound", f"The environment '{path}' was not found.")
    if found["properties"]["provisioningState"] != "Succeeded":
        message = f"The environment '{path}' has not been provisioned successfully."
        raise Refusal(400, "ManagedEnvironmentNotProvisioned", message)
    return found


def app_json(state: Resources, app: App) -> Json:
    return apps.app_json(app, domain(state, app))


def list_apps(state: Resources, request: Request) -> Answer:
    registered(state, request)
    words = request.words
    if "group" in words:
        state.group(request)
    prefix = key(words["subscription"], *([words["group"]] if "group" in words else []), "")
    found = [app for path, app in state.container.apps.items() if path.startswith(prefix)]
    return Answer(200, {"value": [app_json(state, app) for app in found]})


def show_app(state: Resources, request: Request) -> Answer:
    return Answer(200, app_json(state, the_app(state, request)))


def list_secrets(state: Resources, request: Request) -> Answer:
    return Answer(200, {"value": the_app(state, request).configuration["secrets"] or []})


def idle(state: Resources, app: App) -> None:
    if any(not operation.done and operation.target == app.id for operation in state.operations.values()):
        message = (
            f"Cannot modify a container app '{app.name}' because there is an active provisioning operation in progress. Please "
            "try again later."
        )
        raise Refusal(409, "ContainerAppOperationInProgress", message)


def with_identities(state: Resources, document: Json) -> Json:
    """The ids of the identities that an app has. Raises Refusal for one that isn't there."""
    given = document["identity"].get("userAssignedIdentities") or {}
    known = state.container.identities
    for name in given:
        if name.lower() not in known:
            message = (
                "Identity operation for resource failed with error 'Failed to perform resource identity operation. Status: "
                f"'BadRequest'. Response: the resource '{name}' was not found.'."
            )
            raise Refusal(400, "FailedIdentityOperation", message)
    if not given:
        return document
    shown = {name: {word: known[name.lower()]["properties"][word] for word in ("clientId", "principalId")} for name in given}
    return {**document, "identity": {**document["identity"], "userAssignedIdentities": shown}}


def checked(state: Resources, request: Request, body: Json, app: App | None) -> Json:
    """The document that a body comes to. Raises Refusal for what Azure refuses at once."""
    document = apps.completed(body)
    environment = environment_of(state, document)
    document["location"] = environment["location"]
    document = with_identities(state, document)
    apps.check(document, request.words["name"], "workloadProfiles" in environment["properties"])
    for secret in document["properties"]["configuration"]["secrets"] or []:
        state.container.value(document, secret)
    suffix = document["properties"]["template"]["revisionSuffix"]
    if app and suffix and (old := app.revision(f"{app.name}--{suffix}")):
        newest = old is app.revisions[-1]
        if not newest or old.template != document["properties"]["template"]:
            raise apps.invalid_field("template.revisionsuffix", f'"{suffix}": revision with suffix {suffix} already exists.')
    return document


def change(state: Resources, request: Request, app: App, document: Json) -> str:
    """Takes the document over and starts the operation; a revision comes of it when the template is another one."""
    app.document, app.state = document, "InProgress"
    template = document["properties"]["template"]
    due = not app.revisions or app.revisions[-1].template != template

    def finish() -> None:
        if due:
            state.created.append(f"{app.id}/revisions/{state.container.new_revision(app).name}")
        app.promote()
        app.state = "Succeeded"

    def undo() -> None:
        """What was asked for stays written down; a revision stands only if one that fails was to come."""
        if due and state.container.outcomes:
            state.created.append(f"{app.id}/revisions/{state.container.new_revision(app).name}")
        app.state = "Failed"

    return state.begin(request, app.id, finish, undo)


def headers_of(state: Resources, request: Request, operation: str, *, status: bool, result: bool) -> dict[str, str]:
    base = f"~/subscriptions/{request.words['subscription']}/providers/{PROVIDER}/locations/eastus2"
    headers = {"Retry-After-Ms": str(state.retry_ms)}
    if status:
        headers["Azure-AsyncOperation"] = f"{base}/containerappOperationStatuses/{operation}{QUERY}"
    if result:
        headers["Location"] = f"{base}/containerappOperationResults/{operation}{QUERY}"
    return headers


def put_app(state: Resources, request: Request) -> Answer:
    registered(state, request)
    state.group(request)
    words = request.words
    path = key(words["subscription"], words["group"], words["name"])
    app = state.container.apps.get(path)
    if app:
        idle(state, app)
    document = checked(state, request, request.body, app)
    if app is None:
        app = App(words["subscription"], words["group"], words["name"], document)
        state.container.apps[path] = app
        state.created.append(app.id)
    operation = change(state, request, app, document)
    return Answer(201, app_json(state, app), headers_of(state, request, operation, status=True, result=False))


def patch_app(state: Resources, request: Request) -> Answer:
    app = the_app(state, request)
    idle(state, app)
    document = checked(state, request, apps.merged(copy.deepcopy(app.document), request.body), app)
    operation = change(state, request, app, document)
    return Answer(202, None, headers_of(state, request, operation, status=state.container.patch_names_status, result=True))


def delete_app(state: Resources, request: Request) -> Answer:
    try:
        app = the_app(state, request)
    except Refusal as refusal:
        if refusal.code == "ResourceNotFound":
            return Answer(204)
        raise
    idle(state, app)
    before, app.state = app.state, "Deleting"

    def finish() -> None:
        del state.container.apps[key(app.subscription, app.group, app.name)]

    def undo() -> None:
        app.state = before

    operation = state.begin(request, app.id, finish, undo)
    return Answer(202, None, headers_of(state, request, operation, status=False, result=True))


def show_status(state: Resources, request: Request) -> Answer:
    """az looks at the second answer only, so that the first has to say how long to wait, whatever it holds."""
    operation = state.operations[request.words["operation"]]
    body: Json = {"name": request.words["operation"], "startTime": apps.CREATED}
    body["status"] = "InProgress" if not operation.done else "Failed" if operation.refusal else "Succeeded"
    if operation.done and operation.refusal:
        body["error"] = operation.refusal.error()
    return Answer(200, body, {"Retry-After-Ms": str(state.retry_ms)})


def show_result(state: Resources, request: Request) -> Answer:
    operation = state.operations[request.words["operation"]]
    if not operation.done:
        return Answer(202, None, headers_of(state, request, request.words["operation"], status=False, result=True))
    if operation.refusal:
        raise operation.refusal
    app = next((app for app in state.container.apps.values() if app.id == operation.target), None)
    return Answer(200, app_json(state, app)) if app else Answer(200)


# --- Revisions --------------------------------------------------------------------------------------------------------


def the_revision(state: Resources, request: Request) -> tuple[App, Revision]:
    app = the_app(state, request)
    found = app.revision(request.words["revision"])
    if found is None:
        message = f"Revision '{request.words['revision']}' of container app '{app.name}' was not found."
        raise Refusal(404, "RevisionNotFound", message)
    return app, found


def seen(app: App, revision: Revision) -> None:
    """Each look at a revision that is activating brings it nearer to its end."""
    revision.polls = max(0, revision.polls - 1)
    app.promote()


def list_revisions(state: Resources, request: Request) -> Answer:
    app = the_app(state, request)
    listed = [apps.revision_json(app, revision, domain(state, app)) for revision in app.revisions]
    for revision in app.revisions:
        seen(app, revision)
    return Answer(200, {"value": listed})


def show_revision(state: Resources, request: Request) -> Answer:
    app, revision = the_revision(state, request)
    body = apps.revision_json(app, revision, domain(state, app))
    seen(app, revision)
    return Answer(200, body)


def activate(state: Resources, request: Request) -> Answer:
    _, revision = the_revision(state, request)
    revision.active = True
    return Answer(200, "Activate succeeded")


def deactivate(state: Resources, request: Request) -> Answer:
    _, revision = the_revision(state, request)
    revision.active = False
    return Answer(200, "Deactivate succeeded")


def restart(state: Resources, request: Request) -> Answer:
    """New containers of the same revision have the secrets of now."""
    app, revision = the_revision(state, request)
    revision.secrets = state.container.values(app)
    return Answer(200, "Restart succeeded")


def add(state: Resources, path: str, app: Json) -> App:
    """An app that is there already, as a PUT would have made it."""
    words = path.split("/")
    request = Request({"subscription": words[2], "group": words[4], "name": words[-1]}, app, None)
    with state.lock:
        seconds, state.seconds = state.seconds, 0
        put_app(state, replace(request))
        state.seconds = seconds
    return state.container.apps[key(words[2], words[4], words[-1])]


IDENTITY = "/resourceGroups/{group}/providers/{namespace}/userAssignedIdentities/{name}"
APP = "/resourceGroups/{group}/providers/" + PROVIDER + "/containerApps"
REVISIONS = APP + "/{name}/revisions"
TABLE = {
    "GET /providers/" + PROVIDER: show_provider,
    "POST /providers/" + PROVIDER + "/register": register_provider,
    "GET /providers/" + PROVIDER + "/containerApps": list_apps,
    "GET /providers/" + PROVIDER + "/locations/{location}/containerappOperationStatuses/{operation}": show_status,
    "GET /providers/" + PROVIDER + "/locations/{location}/containerappOperationResults/{operation}": show_result,
    "GET /resourceGroups/{group}/providers/" + PROVIDER + "/managedEnvironments/{name}": show_environment,
    "GET " + IDENTITY: show_identity,
    "GET " + APP: list_apps,
    "GET " + APP + "/{name}": show_app,
    "PUT " + APP + "/{name}": put_app,
    "PATCH " + APP + "/{name}": patch_app,
    "DELETE " + APP + "/{name}": delete_app,
    "POST " + APP + "/{name}/listSecrets": list_secrets,
    "GET " + REVISIONS: list_revisions,
    "GET " + REVISIONS + "/{revision}": show_revision,
    "POST " + REVISIONS + "/{revision}/activate": activate,
    "POST " + REVISIONS + "/{revision}/deactivate": deactivate,
    "POST " + REVISIONS + "/{revision}/restart": restart,
}
