"""What the deployment needs in GitHub: the one list of its secrets and variables, and the preflight that names those missing."""

from __future__ import annotations

from dataclasses import dataclass

from scripts import settings
from scripts.console import Console
from scripts.errors import UsageError
from scripts.settings import Sources

ENVIRONMENT = "production"  # of the repository, where all of them stand
IDENTITY = "github-deploy"  # the workflow's identity in Azure, where no name is given
CREDENTIAL = f"github-{ENVIRONMENT}"  # the name of its federated credential
FROM_KEY_VAULT, SECRET_URL = "POSTGRES_FROM_KEY_VAULT", "POSTGRES_DSN_SECRET_URL"


@dataclass(frozen=True)
class Entry:
    """A secret or a variable of the environment."""

    name: str
    what: str  # it is, for a message
    is_secret: bool = False

    @property
    def kind(self) -> str:
        """As gh calls it."""
        return "secret" if self.is_secret else "variable"

    def command(self, repo: str) -> str:
        """What sets it by hand. gh reads a secret from stdin, or asks for it at a terminal."""
        value = "" if self.is_secret else " --body VALUE"
        return f"gh {self.kind} set {self.name} --env {ENVIRONMENT} --repo {repo}{value}"


ADMIN_DSN = Entry(settings.ADMIN_DSN, "the administrator's DSN, by which the migrations run", is_secret=True)
APP_DSN = Entry(settings.APP_DSN, "the application's DSN, which becomes a secret of the Container App", is_secret=True)
APP_DSN_URL = Entry(SECRET_URL, "the Key Vault secret that holds the application's DSN")
ALWAYS = (
    ADMIN_DSN,
    Entry("AZURE_CLIENT_ID", "the identity that the workflow logs in as"),
    Entry("AZURE_TENANT_ID", "the directory of that identity"),
    Entry("AZURE_SUBSCRIPTION_ID", "the subscription of all of it"),
    Entry("AZURE_RESOURCE_GROUP", "the resource group of the server and of the Container App"),
    Entry("POSTGRES_SERVER_NAME", "the flexible server"),
    Entry("CONTAINER_APP_NAME", "the Container App"),
    Entry("CONTAINER_APP_ENVIRONMENT", "the environment that it runs in, by its resource id"),
    Entry("CONTAINER_APP_IDENTITY", "the identity by which it pulls its image, by its resource id"),
    Entry("CONTAINER_REGISTRY", "the registry of that image, REGISTRY.azurecr.io"),
    Entry("API_IMAGE", "the image, REGISTRY.azurecr.io/NAME:TAG"),
)
SWITCH = Entry(FROM_KEY_VAULT, "on: the app takes its DSN from a Key Vault")
EVERYTHING = (*ALWAYS, APP_DSN, SWITCH, APP_DSN_URL)


def needed(*, from_key_vault: bool) -> tuple[Entry, ...]:
    """What has to be set: the application's DSN itself, or where the Container App finds it."""
    return (*ALWAYS, APP_DSN_URL if from_key_vault else APP_DSN)


def check(found: Sources, console: Console) -> None:
    """Names everything that the deployment needs and that isn't set, at once. An empty text counts as not set, as GitHub gives
    one for what it doesn't know. In Actions, each is an annotation of the run as well.

    Whether a setting is there is all that is looked at: of a secret, the workflow tells no more. Raises UsageError.
    """
    switch = found.get(FROM_KEY_VAULT)
    if switch is not None and switch.text not in ("on", "off"):  # the workflow compares with the very word
        problem = f"{switch.origin} is {switch.text!r}: on or off is meant"
        console.annotate(problem)
        raise UsageError(problem, f"gh variable set {FROM_KEY_VAULT} --env {ENVIRONMENT} --body on")
    wanted = needed(from_key_vault=switch is not None and switch.text == "on")
    missing = [entry for entry in wanted if found.get(entry.name) is None]
    for entry in missing:
        console.annotate(f"the {entry.kind} {entry.name} is not set: {entry.what}")
    if missing:
        listed = "\n".join(f"  {entry.kind:<8}  {entry.name}: {entry.what}" for entry in missing)
        kinds = list(dict.fromkeys(entry.kind for entry in missing))
        raise UsageError(
            f"{len(missing)} of what the deployment needs isn't set (in the environment of this process, or .env):\n{listed}",
            "invoke github.setup sets what is at hand, and makes the identity of AZURE_CLIENT_ID; by hand: "
            + "; ".join(f"gh {kind} set NAME --env {ENVIRONMENT}" for kind in kinds),
            {"missing": [entry.name for entry in missing]},
        )
    console.say(f"all that the deployment needs is set: {len(wanted)} secrets and variables")
    console.document({"missing": []})
