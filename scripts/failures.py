"""What az says when something goes wrong, and what is to be done about it: one table. Pure.

Texts measured with azure-cli 2.91.0 or read in its source and in reports of its users; each pattern is the part of a text
that doesn't vary. An unknown failure is shown whole and stops: a guess could create something twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

PROVIDER = "Microsoft.DBforPostgreSQL"
MISSING = 3  # az's exit code when a resource isn't there


class Way(Enum):
    """How it goes on after a failure."""

    AGAIN = "try again"
    NEXT_REGION = "next region"
    REGISTER = "register the provider"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One failed az call, classified."""

    kind: str
    way: Way
    cause: str  # a sentence's end: what happened
    hint: str  # the next command or step
    text: str  # what az said, whole

    @property
    def is_refusal(self) -> bool:
        """Whether Azure has said no, so that nothing was changed: of the others, nobody knows."""
        return self.kind not in ("unavailable", "internal", "unknown")


# (kind, way, patterns in az's text, cause, hint); the first that fits.
_TABLE: tuple[tuple[str, Way, tuple[str, ...], str, str], ...] = (
    (
        "login",
        Way.STOP,
        (
            r"Please run 'az login'",
            r"^az login$",
            r"AADSTS\d+",
            r"ExpiredAuthenticationToken",
            r"InvalidAuthenticationToken",
            r"authentication token.*expired",
        ),
        "az is not logged in, or its login has expired",
        "az login (in GitHub Actions: the step azure/login)",
    ),
    (
        "subscription",
        Way.STOP,
        (
            r"SubscriptionNotFound",
            r"subscription of '[^']*' doesn't exist",
            r"Subscription '[^']*' not found",
            r"InvalidSubscriptionId",
            r"Subscription '[^']*' not found",
        ),
        "the login can't see this subscription",
        "az account list -o table shows those it sees; give one as --subscription-id, or az login --tenant TENANT",
    ),
    (
        "restricted",
        Way.NEXT_REGION,
        (
            r"location is restricted",
            r"LocationIsOfferRestricted",
            r"'Version' should be in: \[\]",
            r"No available SKUs in this location",
            r"ProvisionNotSupportedForRegion",
            r"Provisioning in requested region is not supported",
            r"RequestDisallowedByAzure",  # "... best available regions"
            r"Invalid value for --version\. Allowed values: \[\]",
            r"The SKU name is not available in the \w+ tier",
        ),
        "the region is restricted for this subscription",
        "another region (--location, --location-fallback), or ask for access: https://aka.ms/postgres-request-quota-increase",
    ),
    (
        "no region",
        Way.NEXT_REGION,
        (r"LocationNotAvailableForResourceType", r"NoRegisteredProviderFound"),
        "there is no such region, or it has no flexible servers",
        "az account list-locations -o table shows the regions",
    ),
    (
        "exhausted",
        Way.NEXT_REGION,
        (
            r"InsufficientCapacity",
            r"OutOfCapacity",
            r"CapacityNotAvailable",
            r"no (?:available )?capacity",
            r"SkuNotAvailable",
            r"AllocationFailed",
            r"NotEnoughCapacity",
        ),
        "the region has no capacity for this SKU at the moment",
        "another region (--location, --location-fallback), or another --sku-name",
    ),
    (
        "quota",
        Way.STOP,
        (
            r"(?:exceeding|exceeds)\s+(?:the\s+)?approved\b",
            r"QuotaExceeded",
        ),
        "the quota of the subscription is used up",
        "a smaller --sku-name, or more quota: https://aka.ms/postgres-request-quota-increase",
    ),
    (
        "apps registration",
        Way.STOP,
        (
            r"Microsoft\.App\b.*resource provider",
            r"not registered[^\n]*Microsoft\.App\b",
            r"MissingSubscriptionRegistration[^\n]*Microsoft\.App\b",
        ),
        "the subscription is not registered for Container Apps",
        "az provider register -n Microsoft.App --wait",
    ),
    (
        "environment",
        Way.STOP,
        (r"The environment '[^']*' in resource group '[^']*' was not found", r"ManagedEnvironmentNot\w+"),
        "the environment of the Container App isn't there, or isn't ready",
        "az containerapp env list --output table shows those that there are; CONTAINER_APP_ENVIRONMENT is the id of one",
    ),
    (
        "app secret",
        Way.STOP,
        (r"Unable to get value using Managed identity",),
        "the Container App's identity can't read its secret in the Key Vault",
        "see that the secret is there, and give the identity the role Key Vault Secrets User on the vault",
    ),
    (
        "image",
        Way.STOP,
        (r"\bUNAUTHORIZED: authentication required", r"\bMANIFEST_UNKNOWN\b", r"\bDENIED: requested access", r"\bNAME_UNKNOWN\b"),
        "the image can't be pulled",
        "see that it is in the registry, and give the Container App's identity the role AcrPull there",
    ),
    (
        "app busy",
        Way.AGAIN,
        (r"ContainerAppOperationInProgress", r"active provisioning operation in progress"),
        "Azure is at another operation of the Container App",
        "wait until that is done: az containerapp show says its provisioningState",
    ),
    (
        "revision",
        Way.STOP,
        (r"Failed to provision revision", r"ContainerAppOperationError"),
        "the new revision did not come to run",
        "",
    ),
    (
        "registration",
        Way.REGISTER,
        (
            r"MissingSubscriptionRegistration",
            r"not registered to use namespace",
        ),
        f"the subscription is not registered for {PROVIDER}",
        f"az provider register -n {PROVIDER} --wait",
    ),
    (
        "vault",
        Way.STOP,
        (r"Failed to resolve '[^']*vault", r"VaultNotFound"),
        "there is no Key Vault of this name, or it can't be seen from here",
        "az keyvault list -o table shows those that there are",
    ),
    (
        "vault forbidden",
        Way.STOP,
        (
            r"ForbiddenByRbac",
            r"does not have secrets \w+ permission",
            r"ForbiddenByPolicy",
            r"ForbiddenByFirewall",
            r"\(Forbidden\) Caller is not authorized",
        ),
        "the login may not set a secret of this Key Vault",
        "let an owner of the vault give it the role Key Vault Secrets Officer, and let this machine through the vault's firewall",
    ),
    (
        "forbidden",
        Way.STOP,
        (
            r"AuthorizationFailed",
            r"does not have authorization",
        ),
        "the login has no right to do this",
        "let an owner of the subscription give it the role Contributor on the resource group (az role assignment create)",
    ),
    (
        "policy",
        Way.STOP,
        (r"RequestDisallowedByPolicy",),
        "a policy of the subscription forbids it",
        "its text above names the policy: whoever keeps it can grant an exemption",
    ),
    (
        "locked",
        Way.STOP,
        (
            r"ScopeLocked",
            r"ReadOnlyDisabledSubscription",
        ),
        "the resource or its subscription is locked against changes",
        "az lock list -o table shows the locks",
    ),
    (
        "taken",
        Way.STOP,
        (
            r"server name is already used",
            r"AlreadyExists",
        ),
        "the server's name is taken: it is one name for all of Azure, and another group or subscription has it",
        "choose another --server-name, or name the --resource-group and --subscription-id that it is in",
    ),
    (
        "password",
        Way.STOP,
        (
            r"PasswordNotComplex",
            r"PasswordTooShort",
            r"PasswordTooLong",
            r"password (?:is not|isn't) complex",
            r"Password validation failed",
            r"InvalidParameterValue[^\n]*AdministratorLoginPassword",
        ),
        "Azure refuses the administrator's password",
        "give another one: 8 to 128 characters, three of upper case, lower case, digits and others, no part of the login's name",
    ),
    (
        "busy",
        Way.AGAIN,
        (
            r"ServerIsBusy",
            r"ServerBusy",
            r"Another operation on the resource",
            r"ResourceGroupBeingDeleted",
            r"OperationInProgress",
            r"ConflictingServerOperation",
            r"ServerIsNotReady",
            r"is busy processing",
            r"OperationNotAllowed.*in progress",
        ),
        "the server is busy with another operation",
        "wait until that is done: az postgres flexible-server show says its state",
    ),
    (
        "throttled",
        Way.AGAIN,
        (
            r"TooManyRequests",
            r"\b429\b",
            r"throttl",
        ),
        "Azure lets no more requests through at the moment",
        "wait a minute",
    ),
    (
        "internal",
        Way.STOP,
        (
            r"InternalServerError",
            r"An unexpected error occur",
        ),
        "Azure calls it an internal error, which may be the region, a taken name or the password's rules",
        "another --location, --server-name or password; the status of Azure: https://azure.status.microsoft",
    ),
    (
        "unavailable",
        Way.AGAIN,
        (
            r"ServiceUnavailable",
            r"ServerTimeout",
            r"GatewayTimeout",
            r"BadGateway",
            r"(?:status code|Status|Content):? 50[234]\b",
            r"Connection aborted",
            r"Connection reset",
            r"ConnectionReset",
            r"RemoteDisconnected",
            r"Max retries exceeded",
            r"Connection broken",
            r"timed out",
            r"EOF occurred",
            r"GatewayError",
        ),
        "Azure can't be reached, or broke the connection",
        "see that the network is up (a proxy: HTTPS_PROXY)",
    ),
    (
        "missing",
        Way.STOP,
        (
            r"ResourceNotFound",
            r"ResourceGroupNotFound",
            r"ParentResourceNotFound",
        ),
        "a resource isn't there",
        "",
    ),
    (
        "private",
        Way.STOP,
        (
            r"not supported for a server\s+without public access",
            r"private access enabled server",
        ),
        "the server has no public access, and so no firewall rules",
        "",
    ),
    (
        "value",
        Way.STOP,
        (r"Invalid value for --", r"Allowed values: "),
        "az refuses a value",
        "give one that it allows",
    ),
    (
        "usage",
        Way.STOP,
        (
            r"unrecognized arguments",
            r"is misspelled or not recognized",
            r"the following arguments are required",
            r"invalid choice",
        ),
        "this az doesn't know the command as it is called here",
        "az upgrade, or another version of azure-cli: 2.87 or newer is needed",
    ),
)


def classify(text: str, code: int) -> Failure:
    """What a failed call means. `text` is az's stderr without secrets, `code` its exit code."""
    text = _once(text)
    for kind, way, patterns, cause, hint in _TABLE:
        if any(re.search(pattern, text, re.IGNORECASE | re.DOTALL | re.MULTILINE) for pattern in patterns):
            return Failure(kind=kind, way=way, cause=cause, hint=hint, text=text)
    if code == MISSING:
        return Failure(kind="missing", way=Way.STOP, cause="a resource isn't there", hint="", text=text)
    cause = f"az failed (exit code {code}) in a way that isn't known here"
    return Failure(kind="unknown", way=Way.STOP, cause=cause, hint="", text=text)


# A clock that az draws while it waits.
_CLOCK = re.compile(r"\r?[-|/\\] Running \.\.|\r|\x1b\[K")


def _once(text: str) -> str:
    """az's words without its `ERROR: `, and without the lines that repeat an answer's code and message."""
    lines = [line.removeprefix("ERROR: ").rstrip() for line in _CLOCK.sub("", text).strip().splitlines()]
    first = lines[0] if lines else ""
    kept = [line for line in lines[1:] if line.partition(": ")[2] not in first or not line.startswith(("Code: ", "Message: "))]
    return "\n".join([first, *kept])
