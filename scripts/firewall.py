"""Firewall rules of a flexible server: what flags ask for, under names that say what is in them. Pure.

A rule is a range of IPv4 addresses; there is no IPv6 and no CIDR notation in it. 0.0.0.0 alone means everything inside
Azure, other customers' machines too. Source: https://learn.microsoft.com/azure/postgresql/network/how-to-networking-servers-deployed-public-access-add-firewall-rules
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address

from scripts import PRODUCT

AZURE_SERVICES = IPv4Address(0)
_WIDE = 2**24  # addresses of a /8
_TEMPORARY = f"{PRODUCT}-temporary-"
_STAMP = "%Y%m%dT%H%M%SZ"
_LONGEST_USE = timedelta(hours=6)  # after which a temporary rule is nobody's any more


@dataclass(frozen=True)
class Rule:
    """A range of addresses that may connect, both ends included."""

    name: str
    start: IPv4Address
    end: IPv4Address

    @property
    def addresses(self) -> str:
        """The range, for a sentence."""
        if self.is_azure:
            return "0.0.0.0 (everything inside Azure)"
        return str(self.start) if self.start == self.end else f"{self.start} to {self.end}"

    @property
    def is_azure(self) -> bool:
        """Whether it means everything inside Azure, and no address of its own."""
        return self.start == self.end == AZURE_SERVICES

    @property
    def is_wide(self) -> bool:
        """Whether it lets in as many addresses as a /8, or more."""
        return int(self.end) - int(self.start) + 1 >= _WIDE

    def same_addresses(self, other: Rule) -> bool:
        """Whether both let in the same, whatever they are called."""
        return (self.start, self.end) == (other.start, other.end)


def rule(start: IPv4Address, end: IPv4Address) -> Rule:
    """The rule of a range; its name is made of its content, so that a rule can be found again."""
    if start == end == AZURE_SERVICES:
        return Rule("allow-azure-services", start, end)
    words = [str(start), *([str(end)] if end != start else [])]
    return Rule("allow-" + "_".join(word.replace(".", "-") for word in words), start, end)


def asked(
    *,
    azure_services: bool = False,
    start: str | None = None,
    end: str | None = None,
    cidrs: Sequence[str] = (),
    current: str | None = None,
    allow_wide: bool = False,
) -> tuple[list[Rule], list[str]]:
    """The rules that flags ask for, each once, and what is wrong with the flags."""
    found = [rule(AZURE_SERVICES, AZURE_SERVICES)] if azure_services else []
    problems = []
    if end is not None and start is None:
        problems.append(f"--allow-ip-range-end {end} has no --allow-ip-range-start")
    elif start is not None:
        first = _address(start, "--allow-ip-range-start")
        last = first if end is None else _address(end, "--allow-ip-range-end")
        if isinstance(first, str) or isinstance(last, str):
            problems += dict.fromkeys(problem for problem in (first, last) if isinstance(problem, str))
        elif last < first:
            problems.append(f"--allow-ip-range-end {last} lies before --allow-ip-range-start {first}")
        elif first == last == AZURE_SERVICES:
            problems.append("0.0.0.0 means everything inside Azure: say so with --allow-azure-services")
        else:
            found.append(rule(first, last))
    for cidr in cidrs:
        network = _network(cidr)
        if isinstance(network, str):
            problems.append(network)
        else:
            found.append(network)
    if current is not None:
        address = _address(current, "the address of this machine")
        if isinstance(address, str):
            problems.append(address)
        elif address == AZURE_SERVICES:
            problems.append("0.0.0.0 is no machine's address; what is inside Azure is let in by --allow-azure-services")
        else:
            found.append(rule(address, address))
    found = list(dict.fromkeys(found))
    if not allow_wide:
        problems += [
            f"{item.addresses} lets in {int(item.end) - int(item.start) + 1:,} addresses: narrow it, or add --allow-wide"
            for item in found
            if item.is_wide
        ]
    return found, problems


def _address(text: str, what: str) -> IPv4Address | str:
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return f"{what} {text}: not an IPv4 address, such as 203.0.113.7"
    if isinstance(address, IPv4Address):
        return address
    return f"{what} {text}: the firewall of a flexible server knows IPv4 only"


def _network(text: str) -> Rule | str:
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return f"--allow-cidr {text}: not a range, such as 203.0.113.0/24"
    if isinstance(network, ipaddress.IPv6Network):
        return f"--allow-cidr {text}: the firewall of a flexible server knows IPv4 only"
    first = text.strip().partition("/")[0]
    if str(network.network_address) != first:
        return f"--allow-cidr {text}: it begins within its range; {network} is meant, or {first}/32"
    if network.network_address == network.broadcast_address == AZURE_SERVICES:
        return f"--allow-cidr {text}: 0.0.0.0 means everything inside Azure: say so with --allow-azure-services"
    return rule(network.network_address, network.broadcast_address)


def temporary(address: str, now: datetime, token: str) -> Rule:
    """A rule that is open for the length of one command; its name says since when, in UTC. Raises ValueError."""
    only = IPv4Address(address)
    return Rule(f"{_TEMPORARY}{now.strftime(_STAMP)}-{token}", only, only)


def in_use(found: Rule, now: datetime) -> bool:
    """Whether it is a temporary rule of a command that may still run."""
    match = re.fullmatch(re.escape(_TEMPORARY) + r"(\d{8}T\d{6}Z)-\w+", found.name)
    if match is None:
        return False
    try:
        since = datetime.strptime(match[1], _STAMP).replace(tzinfo=now.tzinfo)
    except ValueError:  # no name of ours
        return False
    return now - since < _LONGEST_USE


def lasts(found: Rule) -> bool:
    """Whether it is no temporary rule, which goes with the command that made it, or is left over from one that was killed."""
    return not found.name.startswith(_TEMPORARY)


def is_left(found: Rule, address: str, now: datetime) -> bool:
    """Whether it is a temporary rule that this machine may remove: one for its own address, or one that is nobody's any more.

    Another machine's may be in use.
    """
    only = IPv4Address(address)
    return not lasts(found) and (found.start == found.end == only or not in_use(found, now))


def lets_in(rules: Iterable[Rule], address: str) -> bool:
    """Whether one of the rules lets this address in."""
    only = IPv4Address(address)
    return any(item.start <= only <= item.end for item in rules if not item.is_azure)
