"""The address from which the internet sees this machine: what a firewall rule has to let in."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from scripts.errors import OpsError, UsageError
from scripts.settings import Sources

SERVICE = "https://api.ipify.org"  # the one that az itself asks
VARIABLE = "POSTGRES_CURRENT_IP"
_TIMEOUT = 10.0  # seconds
_SET = f"set {VARIABLE} to the address"
_RANGES = ", or name a range: --allow-ip-range-start, --allow-cidr"


def address(found: Sources, fetch: Callable[[str], str] | None = None, *, takes_ranges: bool = False) -> str:
    """The IPv4 address: a setting, else what a service on the internet sees. Raises OpsError.

    `takes_ranges`: the command has flags for ranges, which a hint may name.
    """
    hint = _SET + (_RANGES if takes_ranges else "")
    setting = found.get(VARIABLE)
    try:
        text, origin = (setting.text, setting.origin) if setting else ((fetch or _fetch)(SERVICE), SERVICE)
    except OSError as error:
        reason = getattr(error, "reason", error)  # urllib wraps what went wrong
        why = getattr(reason, "strerror", None) or reason
        raise OpsError(f"{SERVICE}, which says what this machine's address is, can't be reached: {why}", hint) from None
    try:
        found_address = ipaddress.IPv4Address(text.strip())
    except ValueError:
        kind = UsageError if setting else OpsError
        raise kind(f"{origin} is no IPv4 address: {text.strip()[:60]!r}", hint) from None
    if found_address.is_unspecified:  # as a firewall rule, it would let in everything inside Azure
        raise OpsError(f"{origin} is no machine's address: {found_address}", hint)
    return str(found_address)


def _fetch(url: str) -> str:
    from urllib.request import urlopen

    with urlopen(url, timeout=_TIMEOUT) as answer:  # noqa: S310  (a constant, over HTTPS)
        return str(answer.read(64).decode("ascii", "replace"))
