"""What can go wrong in Azure, each under a name, in the very shape in which it comes over the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal


class Refusal(Exception):
    """What Azure answers instead: its status, code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def error(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True)
class Fault:
    """How a request is met. `{words}` in the text are those of its path, and its location.

    - answer: with status, code and message; nothing is done. az itself asks three times more on 429 and 5xx.
    - operation: the request is accepted, and its long operation fails with code and message.
    - drop: the connection is closed; nothing is done. Here too az asks three times more, over some 5 s.
    - drop-after: the connection is closed, and it is done all the same.
    - hide: the request is met as usual; the next GETs of the same path (`times`) say ResourceNotFound.
    - body: with status and body.
    """

    kind: Literal["answer", "operation", "drop", "drop-after", "hide", "body"]
    status: int = 0
    code: str = ""
    message: str = ""
    body: dict[str, Any] = field(default_factory=dict)

    def refusal(self, words: dict[str, str]) -> Refusal:
        """The error, with the words in its text."""
        message = re.sub(r"{(\w+)}", lambda match: words.get(match[1], "?"), self.message)
        return Refusal(self.status or 500, self.code, message)


INTERNAL = "An unexpected error occured while processing the request. Tracking ID: '0b1ed0ab-7a5b-4a36-a02a-38b5a5f0a6f1'"
QUOTA = (
    "Operation could not be completed as it results in exceeding approved standardBSFamily Cores quota. Additional details - "
    "Deployment Model: Resource Manager, Location: {location}, Current Limit: 10, Current Usage: 10, Additional Required: 1, "
    "(Minimum) New Limit Required: 11. Submit a request for Quota increase at https://aka.ms/ProdportalCRP."
)
EXPIRED = (
    "AADSTS700082: The refresh token has expired due to inactivity. The token was issued on 2025-09-01T00:00:00.0000000Z and "
    "was inactive for 90.00:00:00. Trace ID: 9a1c2c5e-0000-0000-0000-000000000000 Correlation ID: "
    "3f0e4d21-0000-0000-0000-000000000000 Timestamp: 2026-01-02 03:04:05Z"
)
EXPIRED_SECRET = (
    "AADSTS7000222: The provided client secret keys for app '22222222-2222-4222-8222-222222222222' are expired. Visit the Azure "
    "portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for "
    "added security: https://aka.ms/certCreds."
)

# A closed location shows in its capabilities, where az itself stops, or only in the answer to the PUT.
CLOSED_TO_PUT = {
    # The words of older az, which read them out of the capabilities.
    "restricted-for-provisioning": Fault(
        "answer",
        400,
        "RestrictedLocation",
        "The location is restricted for provisioning of flexible servers. Please try using another region.",
    ),
    "location-is-offer-restricted": Fault(
        "answer",
        400,
        "LocationIsOfferRestricted",
        "Subscriptions are restricted from provisioning in location '{location}'. Try again in a different location. For "
        "exceptions to this rule please open a support request with Issue type of 'Service and subscription limits'. See "
        "https://review.learn.microsoft.com/en-us/azure/postgresql/flexible-server/how-to-request-quota-increase for more "
        "details.",
    ),
    "no-versions": Fault(
        "answer",
        400,
        "ParameterOutOfRange",
        "The value of the 'Version' should be in: []. Verify that the specified parameter value is correct.",
    ),
}

# What befalls container apps alone. A revision that comes up ill is no fault of a request: see apps.OUTCOMES.
INVALID = "The following field(s) are either invalid or missing. Field '{field}' is invalid with details: "
IMAGE = INVALID.replace("{field}", "template.containers.{container}.image")
UNKNOWN_IMAGE = IMAGE + '\'Invalid value: "{image}": GET https:: MANIFEST_UNKNOWN: manifest tagged by "{tag}" is not found\';.'
APP_FAULTS = {
    "app-busy": Fault(
        "answer",
        409,
        "ContainerAppOperationInProgress",
        "Cannot modify a container app '{app}' because there is an active provisioning operation in progress. Please try again "
        "later.",
    ),
    "image-unknown": Fault("answer", 400, "InvalidParameterValueInContainerTemplate", UNKNOWN_IMAGE),
    "image-unauthorized": Fault(
        "answer",
        400,
        "InvalidParameterValueInContainerTemplate",
        IMAGE
        + '\'Invalid value: "{image}": GET https:?scope=repository%3Aapi%3Apull&service=registry: UNAUTHORIZED: authentication '
        "required, visit https://aka.ms/acr/authorization for more information.';.",
    ),
    "image-unknown-in-operation": Fault(
        "operation",
        code="ContainerAppOperationError",
        message="Failed to provision revision for container app '{app}'. Error details: " + UNKNOWN_IMAGE + ".",
    ),
    "revision-expired": Fault(
        "operation",
        code="ContainerAppOperationError",
        message="Failed to provision revision for container app '{app}'. Error details: Operation expired.",
    ),
}

FAULTS = {
    **CLOSED_TO_PUT,
    **APP_FAULTS,
    "exhausted": Fault(
        "answer",
        409,
        "SkuNotAvailable",
        "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: {sku}' is currently not "
        "available in location '{location}'. Please try another size or deploy to a different location or different zone. See "
        "https://aka.ms/azureskunotavailable for details.",
    ),
    "quota": Fault("answer", 409, "QuotaExceeded", QUOTA),
    "quota-in-operation": Fault("operation", code="QuotaExceeded", message=QUOTA),
    "conflict": Fault("answer", 409, "Conflict", "Another operation on the resource '{server}' is in progress. Try again later."),
    "group-being-deleted": Fault(
        "answer",
        409,
        "ResourceGroupBeingDeleted",
        "The resource group '{group}' is in deprovisioning state and cannot perform this operation.",
    ),
    "server-is-busy": Fault(
        "answer",
        409,
        "ServerIsBusy",
        "Cannot complete operation while server '{server}' is busy processing another operation. Try again later.",
    ),
    "server-busy": Fault(  # the same in other words; both are seen
        "answer", 409, "ServerBusy", "Server '{server}' is busy with another operation. Please try again later."
    ),
    "throttled": Fault(
        "answer",
        429,
        "SubscriptionRequestsThrottled",
        "Number of write requests for subscription '{subscription}' actor '22222222-2222-4222-8222-222222222222' exceeded. "
        "Please try again after '5' seconds after additional tokens are available. Refer to https://aka.ms/arm-throttling for "
        "additional information.",
    ),
    "internal": Fault("answer", 500, "InternalServerError", INTERNAL),
    "unavailable": Fault("answer", 503, "ServiceUnavailable", "The service is temporarily unavailable. Please try again later."),
    "forbidden": Fault(
        "answer",
        403,
        "AuthorizationFailed",
        "The client '22222222-2222-4222-8222-222222222222' with object id '33333333-3333-4333-8333-333333333333' does not have "
        "authorization to perform action '{action}' over scope '{path}' or the scope is invalid. If access was recently "
        "granted, please refresh your credentials.",
    ),
    "vault-forbidden": Fault(
        "answer",
        403,
        "Forbidden",
        "Caller is not authorized to perform action on resource. If role assignments, deny assignments or role definitions were "
        "changed recently, please observe propagation time.",
    ),
    "unregistered": Fault(
        "answer",
        409,
        "MissingSubscriptionRegistration",
        "The subscription is not registered to use namespace '{namespace}'. See https://aka.ms/rps-not-found for "
        "how to register subscriptions.",
    ),
    "not-found": Fault(
        "answer",
        404,
        "ResourceNotFound",
        "The Resource '{resource}' under resource group '{group}' was not found. For "
        "more details please go to https://aka.ms/ARMResourceNotFoundFix",
    ),
    "password-policy": Fault(
        "answer",
        400,
        "InvalidParameterValue",
        "Invalid value given for parameter AdministratorLoginPassword. Specify a valid parameter value.",
    ),
    "operation-failed": Fault("operation", code="InternalServerError", message=INTERNAL),
    "operation-canceled": Fault("operation", code="OperationCanceled", message="The operation was canceled."),
    "drop": Fault("drop"),
    "drop-after": Fault("drop-after"),
    "slow-to-appear": Fault("hide"),
    "name-taken": Fault(
        "body",
        200,
        body={"nameAvailable": False, "reason": "AlreadyExists", "message": "Specified server name is already used."},
    ),
    "expired-login": Fault("body", 400, body={"error": "invalid_grant", "error_description": EXPIRED, "error_codes": [700082]}),
    "expired-secret": Fault(
        "body", 401, body={"error": "invalid_client", "error_description": EXPIRED_SECRET, "error_codes": [7000222]}
    ),
}


@dataclass
class Plan:
    """A fault that waits for its requests; `times` of them, or all when None, after `skip` of them."""

    method: str
    path: re.Pattern[str]
    fault: Fault
    times: int | None = 1
    skip: int = 0
    hits: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Whether this request is met by the fault; counts it if so."""
        if method != self.method or not self.path.search(path) or (self.times is not None and self.hits >= self.times):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True
