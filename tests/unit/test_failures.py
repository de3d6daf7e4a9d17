"""What az says when something goes wrong, and what is to be done about it."""

from __future__ import annotations

import pytest

from scripts import failures
from scripts.failures import Way
from tests.azure.faults import APP_FAULTS, CLOSED_TO_PUT, EXPIRED, EXPIRED_SECRET, FAULTS

AGAIN, NEXT, REGISTER, STOP = Way.AGAIN, Way.NEXT_REGION, Way.REGISTER, Way.STOP
WORDS = {
    "location": "eastus",
    "server": "srv1",
    "group": "rg",
    "sku": "Standard_B1ms",
    "subscription": "11111111-1111-4111-8111-111111111111",
    "action": "Microsoft.DBforPostgreSQL/flexibleServers/write",
    "namespace": "Microsoft.DBforPostgreSQL",
    "resource": "Microsoft.DBforPostgreSQL/flexibleServers/srv1",
    "path": "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg",
}
OF_FAULTS = {
    "restricted-for-provisioning": ("restricted", NEXT),
    "location-is-offer-restricted": ("restricted", NEXT),
    "no-versions": ("restricted", NEXT),
    "exhausted": ("exhausted", NEXT),
    "quota": ("quota", STOP),
    "quota-in-operation": ("quota", STOP),
    "conflict": ("busy", AGAIN),
    "group-being-deleted": ("busy", AGAIN),
    "server-is-busy": ("busy", AGAIN),
    "server-busy": ("busy", AGAIN),
    "throttled": ("throttled", AGAIN),
    "internal": ("internal", STOP),
    "unavailable": ("unavailable", AGAIN),
    "forbidden": ("forbidden", STOP),
    "unregistered": ("registration", REGISTER),
    "not-found": ("missing", STOP),
    "password-policy": ("password", STOP),
    "operation-failed": ("internal", STOP),
    "operation-canceled": ("unknown", STOP),
    "vault-forbidden": ("vault forbidden", STOP),
}
BY_AZ_ITSELF = set(FAULTS) - set(OF_FAULTS) - set(APP_FAULTS)  # az says these in its own words, which follow below


def printed(code: str, message: str) -> str:
    """An error of Azure's as az prints it."""
    return f"ERROR: ({code}) {message}\nCode: {code}\nMessage: {message}\n"


@pytest.mark.parametrize("name", OF_FAULTS)
def test_what_azure_answers_is_known(name: str) -> None:
    refusal = FAULTS[name].refusal(WORDS)
    failure = failures.classify(printed(refusal.code, refusal.message), 3 if name == "not-found" else 1)
    assert (failure.kind, failure.way) == OF_FAULTS[name]
    assert failure.text == f"({refusal.code}) {refusal.message}", "said once"


def test_every_fault_has_its_text_here() -> None:
    assert {"drop", "drop-after", "slow-to-appear", "name-taken", "expired-login", "expired-secret"} == BY_AZ_ITSELF
    assert set(CLOSED_TO_PUT) <= set(OF_FAULTS)


OF_AZ = [
    ("ERROR: Please run 'az login' to setup account.", 1, "login", STOP),
    (f"ERROR: {EXPIRED}\nInteractive authentication is needed. Please run:\naz login", 1, "login", STOP),
    (f"ERROR: {EXPIRED_SECRET}", 1, "login", STOP),
    ("ERROR: (ExpiredAuthenticationToken) The access token expiry UTC time is earlier than current UTC time.", 1, "login", STOP),
    ("ERROR: (InvalidAuthenticationTokenTenant) The access token is from the wrong issuer.", 1, "login", STOP),
    ("ERROR: The subscription of '1' doesn't exist in cloud 'AzureCloud'.", 1, "subscription", STOP),
    ("ERROR: Subscription '1' not found. Check the spelling and casing and try again.", 1, "subscription", STOP),
    ("ERROR: (SubscriptionNotFound) The subscription '1' could not be found.", 1, "subscription", STOP),
    ("ERROR: The location is restricted from performing this operation.", 1, "restricted", NEXT),
    ("ERROR: No available SKUs in this location", 1, "restricted", NEXT),
    (
        "ERROR: The location is restricted for provisioning of flexible servers. Please try using another region.",
        1,
        "restricted",
        NEXT,
    ),
    (
        "ERROR: Operation could not be completed as it results in exceeding approved Total Regional Cores quota.",
        1,
        "quota",
        STOP,
    ),
    ("ERROR: Specified server name is already used.", 1, "taken", STOP),
    ("ERROR: (ServerNameAlreadyExists) Specified server name is already used.", 1, "taken", STOP),
    (
        "ERROR: ('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))",
        1,
        "unavailable",
        AGAIN,
    ),
    ("ERROR: ('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))", 1, "unavailable", AGAIN),
    (
        "ERROR: HTTPSConnectionPool(host='management.azure.com', port=443): Max retries exceeded with url: /subscriptions",
        1,
        "unavailable",
        AGAIN,
    ),
    ("ERROR: HTTPSConnectionPool(host='management.azure.com', port=443): Read timed out.", 1, "unavailable", AGAIN),
    ("ERROR: Operation returned an invalid status 'Bad Gateway'\nContent: 502", 1, "unavailable", AGAIN),
    ("ERROR: (GatewayTimeout) The gateway did not receive a response from 'Microsoft.DBforPostgreSQL'.", 1, "unavailable", AGAIN),
    ("ERROR: (TooManyRequests) The request is being throttled.", 1, "throttled", AGAIN),
    ("ERROR: (ResourceNotFound) The Resource was not found.", 3, "missing", STOP),
    ("ERROR: (ResourceGroupNotFound) Resource group 'rg' could not be found.", 3, "missing", STOP),
    ("ERROR: (ParentResourceNotFound) Failed to perform 'read' on resource(s).", 3, "missing", STOP),
    ("ERROR: it is nowhere", 3, "missing", STOP),
    ("", 3, "missing", STOP),
    (
        "ERROR: Firewall rule operations are not supported for a server without public access enabled.",
        1,
        "private",
        STOP,
    ),
    ("ERROR: (RequestDisallowedByPolicy) Resource 'srv1' was disallowed by policy.", 1, "policy", STOP),
    ("ERROR: (ScopeLocked) The scope cannot perform delete operation because following scope(s) are locked.", 1, "locked", STOP),
    ("ERROR: (LinkedAuthorizationFailed) The client has permission.", 1, "forbidden", STOP),
    ("ERROR: unrecognized arguments: --zonal-resiliency Disabled", 2, "usage", STOP),
    ("ERROR: 'parametr' is misspelled or not recognized by the system.", 2, "usage", STOP),
    ("ERROR: the following arguments are required: --name/-n", 2, "usage", STOP),
    ("ERROR: argument --tier: invalid choice: 'x'", 2, "usage", STOP),
    (
        "ERROR: HTTPSConnectionPool(host='none.vault.azure.net'): Max retries exceeded: Failed to resolve 'none.vault.azure.net'",
        1,
        "vault",
        STOP,
    ),
    ("ERROR: (Forbidden) Caller is not authorized to perform action.\nInner error: ForbiddenByRbac", 1, "vault forbidden", STOP),
    (
        "ERROR: The user, group or application 'x' does not have secrets set permission on key vault 'v'.",
        1,
        "vault forbidden",
        STOP,
    ),
    ("ERROR: (PasswordNotComplex) Password validation failed.", 1, "password", STOP),
    ("ERROR: (ZonalAllocationFailed) Allocation failed.", 1, "exhausted", NEXT),
    ("ERROR: (OutOfCapacity) There is no capacity.", 1, "exhausted", NEXT),
]


@pytest.mark.parametrize(("text", "code", "kind", "way"), OF_AZ)
def test_what_az_itself_says_is_known(text: str, code: int, kind: str, way: Way) -> None:
    failure = failures.classify(f"{text}\n", code)
    assert (failure.kind, failure.way, failure.text) == (kind, way, text.removeprefix("ERROR: "))


def test_every_way_out_but_of_what_is_not_there_is_said() -> None:
    for text, code, kind, _ in OF_AZ:
        failure = failures.classify(text, code)
        assert failure.cause
        assert (failure.hint == "") == (kind in ("missing", "private")), kind


@pytest.mark.parametrize(
    "text",
    [
        "ERROR: (NeverHeardOf) Something new.\nCode: Another\n\nException Details: many lines\nof them",
        "Traceback (most recent call last):\n  File \"x.py\", line 5030, in <module>\nKeyError: 'value'",
        "ERROR: (Conflict) The resource 'srv1' is in a state that doesn't allow this.",
        "ERROR: (InvalidParameterValue) Invalid value given for parameter Tier. Specify a valid parameter value.",
        "ERROR: (ParameterOutOfRange) The value of the 'Version' should be in: [14,15].",
    ],
)
def test_an_unknown_failure_stops_and_is_kept_whole(text: str) -> None:
    failure = failures.classify(text, 1)
    whole = text.removeprefix("ERROR: ")
    assert (failure.kind, failure.way, failure.text, failure.is_refusal) == ("unknown", STOP, whole, False)
    assert "exit code 1" in failure.cause


def test_a_text_that_is_wrapped_is_known_all_the_same() -> None:
    text = "ERROR: Operation could not be completed as it results in exceeding\napproved 10 Cores quota"
    assert failures.classify(text, 1).kind == "quota"


def test_an_unregistered_subscription_is_told_the_command() -> None:
    failure = failures.classify("ERROR: (MissingSubscriptionRegistration) The subscription is not registered.", 1)
    assert failure.hint == "az provider register -n Microsoft.DBforPostgreSQL --wait"
