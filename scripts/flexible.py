"""The flexible server that is asked for, checked against Azure's rules before Azure is asked. Pure.

Source of the rules: https://learn.microsoft.com/azure/postgresql/configure-maintain/concepts-limits and the checks of az itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scripts.dsn import Dsn
from scripts.firewall import Rule
from scripts.secret import Secret
from scripts.shell import WINDOWS

PORT = "5432"
DOMAIN = ".postgres.database."  # behind a server's name in its host; behind it, a cloud's own domain
DEFAULT_LOCATIONS = ("eastus2", "centralus", "westus2")
US_LOCATIONS = (
    *("eastus", "eastus2", "centralus", "northcentralus", "southcentralus", "westcentralus", "westus", "westus2", "westus3"),
)
DEFAULT_DATABASE = "serving"
DEFAULT_ADMIN = "serving_admin"
DEFAULT_SKU = "standard_b1ms"
DEFAULT_STORAGE = 32  # GiB, the smallest
DEFAULT_VERSION = 16
DEFAULT_RETENTION = 7  # days, the shortest
TIERS = {"b": "Burstable", "d": "GeneralPurpose", "e": "MemoryOptimized"}  # by the letter behind standard_
STORAGE_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4095, 4096, 8192, 16384, 32767)  # GiB
VERSIONS = range(11, 19)  # PostgreSQL majors that some region has had
RETENTION = range(7, 36)  # days
SSL_MODES = ("require", "verify-full")
_RESERVED_ADMINS = {
    *("azure_superuser", "azure_pg_admin", "admin", "administrator", "root", "guest", "public", "replication", "azuresu"),
    "none",
}
_PASSWORD_CLASSES = (r"[A-Z]", r"[a-z]", r"[0-9]", r"[^A-Za-z0-9]")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What flags and settings ask for. None: left open, so that a server that stands keeps what it has."""

    subscription: str
    group: str
    server: str
    database: str
    locations: tuple[str, ...]  # the one asked for, then those to fall back to
    location_is_given: bool = False
    admin: str | None = None
    sku: str | None = None
    tier: str | None = None
    storage: int | None = None  # GiB
    version: int | None = None
    retention: int | None = None  # days
    zonal: bool | None = None
    rules: tuple[Rule, ...] = ()
    prune: bool = False

    @property
    def new_admin(self) -> str:
        """The administrator of a server that is to be made."""
        return self.admin or DEFAULT_ADMIN

    @property
    def new_sku(self) -> str:
        """The compute SKU of a server that is to be made."""
        return self.sku or DEFAULT_SKU

    @property
    def new_tier(self) -> str:
        """The tier of a server that is to be made."""
        return self.tier or tier_of(self.new_sku) or "GeneralPurpose"

    @property
    def new_storage(self) -> int:
        """GiB of a server that is to be made."""
        return self.storage or DEFAULT_STORAGE

    @property
    def new_version(self) -> int:
        """The PostgreSQL of a server that is to be made."""
        return self.version or DEFAULT_VERSION

    @property
    def new_retention(self) -> int:
        """Days that backups of a server that is to be made are kept."""
        return self.retention or DEFAULT_RETENTION


def tier_of(sku: str) -> str | None:
    """The tier that a SKU belongs to, or None when its name doesn't say."""
    match = re.match(r"standard_([bde])", sku, re.IGNORECASE)
    return TIERS[match[1].lower()] if match else None


def spelled(sku: str, offered: Sequence[str]) -> str | None:
    """A SKU as the region spells it, or None when the region doesn't offer it."""
    return next((name for name in offered if name.lower() == sku.lower()), None)


def server_name_problem(name: str) -> str | None:
    """What Azure would refuse in a server's name."""
    if not re.fullmatch(r"(?=.{3,63}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
        return f"{name!r}: a server's name has 3 to 63 of a-z, 0-9 and -, and no - at its ends"
    return None


def database_name_problem(name: str) -> str | None:
    """What Azure would refuse in a database's name."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,62}", name):
        return f"{name!r}: a database's name begins with a letter or _, and has at most 63 letters, digits, _ and -"
    if name in ("azure_maintenance", "azure_sys", "template0", "template1"):
        return f"{name!r}: this database is the server's own"
    return None


def group_name_problem(name: str) -> str | None:
    """What Azure would refuse in a resource group's name."""
    if not re.fullmatch(r"(?!-)[\w().-]{1,90}(?<!\.)", name):  # az would take one that begins with - for a flag
        return f"{name!r}: a resource group's name has at most 90 letters, digits, _, (, ), . and -, no - first and no . last"
    return None


def admin_name_problem(name: str) -> str | None:
    """What Azure would refuse in the administrator's name."""
    if name.lower() in _RESERVED_ADMINS or name.lower().startswith("pg_"):
        return f"{name!r}: Azure keeps this name for itself"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,62}", name):
        return f"{name!r}: the administrator's name begins with a letter or _, and has at most 63 letters, digits, _ and -"
    return None


def password_problem(password: Secret, login: str) -> str | None:
    """Which rule of Azure's the administrator's password breaks; it is never quoted."""
    text = password.reveal()
    if not 8 <= len(text) <= 128:
        return "it has to have 8 to 128 characters"
    if re.search(r"[\x00-\x1f\x7f]", text):
        return "it holds a line break or another control character"
    if WINDOWS and not text.isascii():
        return "it holds letters outside ASCII, which az on Windows reads in the console's code page"
    if sum(re.search(pattern, text) is not None for pattern in _PASSWORD_CLASSES) < 3:
        return "it has to have characters of three kinds: upper case, lower case, digits, others"
    parts = {login[index : index + 3].lower() for index in range(len(login) - 2)}
    if any(part in text.lower() for part in parts):
        return "it may not hold three or more characters in a row of the login's name"
    return None


def whole(text: str, allowed: Sequence[int], unit: str) -> int | str:
    """A number out of those that Azure takes, or what is wrong with it."""
    if text.isascii() and text.isdigit() and int(text) in allowed:
        return int(text)
    listed = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
    return f"{text!r}: {unit} may be {listed}"


def compute_problem(sku: str | None, tier: str | None, zonal: bool | None) -> str | None:
    """What doesn't fit together in SKU, tier and resiliency; a part that is left open fits anything."""
    derived = tier_of(sku) if sku else None
    if sku is not None and not re.fullmatch(r"standard_[a-z0-9_]+", sku, re.IGNORECASE):
        return f"--sku-name {sku}: a compute SKU reads like standard_b1ms"
    if tier is not None and tier not in TIERS.values():
        return f"--tier {tier}: one of {', '.join(TIERS.values())}"
    if tier is not None and derived is not None and tier != derived:
        return f"--tier {tier}: {sku} is {derived}; leave --tier away, or choose a SKU of that tier"
    if zonal and (tier or derived) == "Burstable":
        return "--zonal-resiliency: the tier Burstable has no high availability; choose a standard_d* or standard_e* SKU"
    return None


def dsn(host: str, database: str, user: str, password: Secret, sslmode: str, roots: str) -> Dsn:
    """A DSN of a server of Azure's. `roots` (verify-full) is where its certificate's roots are: `system`, or a file."""
    params = {"user": user, "host": host, "port": PORT, "dbname": database, "sslmode": sslmode}
    if sslmode == "verify-full":
        params["sslrootcert"] = roots
    return Dsn(params, password)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A flexible server as Azure has it."""

    name: str
    location: str
    state: str  # Ready, Stopped, Updating ...
    host: str
    admin: str
    sku: str
    tier: str
    storage: int  # GiB
    version: int
    retention: int  # days
    zonal: bool
    is_public: bool
    in_vnet: bool


def location_key(location: str) -> str:
    """A region's name for comparison: Azure writes `East US 2` where az takes `eastus2`."""
    return re.sub(r"\s", "", location).lower()


@dataclass(frozen=True, kw_only=True)
class Region:
    """What a region offers to this subscription."""

    location: str
    restricted: str | None = None  # why it is, where it is
    skus: Mapping[str, Sequence[str]] | None = None  # tier -> SKUs; None: not known
    versions: Sequence[int] = ()
    storage: Mapping[str, Sequence[int]] | None = None  # tier -> GiB
    zones: bool = False  # whether it has high availability across zones

    def obstacle(self, wanted: Wanted) -> str | None:
        """Why the server can't be made here, or None when it can as far as is known."""
        if self.restricted is not None:
            return self.restricted
        if self.skus is None:
            return None
        offered = {tier.lower(): skus for tier, skus in self.skus.items()}.get(wanted.new_tier.lower(), ())
        if spelled(wanted.new_sku, offered) is None:
            return f"{wanted.new_sku} is not offered"
        if wanted.new_version not in self.versions:
            return f"PostgreSQL {wanted.new_version} is not offered"
        sizes = (self.storage or {}).get(wanted.new_tier, ())
        if sizes and wanted.new_storage not in sizes:
            return f"{wanted.new_storage} GiB are not offered"
        if wanted.zonal and not self.zones:
            return "high availability across zones is not offered"
        return None
