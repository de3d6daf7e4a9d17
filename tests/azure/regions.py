"""Where the emulated Azure has room: what each location offers, and each way in which one is closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.azure.faults import CLOSED_TO_PUT, FAULTS, Refusal

TITLES = {
    "australiaeast": "Australia East",
    "canadacentral": "Canada Central",
    "eastus": "East US",
    "eastus2": "East US 2",
    "centralus": "Central US",
    "germanywestcentral": "Germany West Central",
    "northcentralus": "North Central US",
    "northeurope": "North Europe",
    "southcentralus": "South Central US",
    "swedencentral": "Sweden Central",
    "uksouth": "UK South",
    "westeurope": "West Europe",
    "westus": "West US",
    "westus2": "West US 2",
    "westus3": "West US 3",
}
VERSIONS = ["13", "14", "15", "16", "17", "18"]
SIZES_GIB = [32, 64, 128, 256, 512, 1024, 2048, 4095, 4096, 8192, 16384, 32767]
SKUS = {  # tier -> name, cores, MiB of memory for each
    "Burstable": [("Standard_B1ms", 1, 2048), ("Standard_B2s", 2, 2048), ("Standard_B2ms", 2, 4096)],
    "GeneralPurpose": [("Standard_D2ds_v5", 2, 4096), ("Standard_D4ds_v5", 4, 4096)],
    "MemoryOptimized": [("Standard_E2ds_v5", 2, 8192), ("Standard_E4ds_v5", 4, 8192)],
}
# How a location can be closed: in its capabilities, where az itself stops, or only to the PUT, when all looks open before.
SHAPES = ("offer-restricted", "no-skus", *CLOSED_TO_PUT)


@dataclass
class Region:
    """A location: change `restriction`, `versions` or `skus` to close it or to make it poorer."""

    name: str
    title: str
    restriction: str | None = None  # one of SHAPES, or the name of any fault that answers the PUT
    versions: list[str] = field(default_factory=lambda: list(VERSIONS))
    skus: dict[str, list[tuple[str, int, int]]] = field(default_factory=lambda: {tier: list(skus) for tier, skus in SKUS.items()})
    zones: list[str] = field(default_factory=lambda: ["1", "2", "3"])

    def allow(self, version: str, sku: dict[str, str]) -> None:
        """Raises Refusal where a server of this kind can't be made here."""
        if self.restriction:
            fault = FAULTS.get(self.restriction, FAULTS["location-is-offer-restricted"])
            raise fault.refusal({"location": self.name, "sku": sku["name"]})
        if version not in self.versions:
            message = f"The value of the 'Version' should be in: [{','.join(self.versions)}]. "
            raise Refusal(400, "ParameterOutOfRange", message + "Verify that the specified parameter value is correct.")
        names = [name.lower() for name, _, _ in self.skus.get(sku["tier"], [])]
        if sku["name"].lower() not in names:
            message = f"The requested compute size '{sku['name']}' is not available in location '{self.name}'."
            raise Refusal(400, "SkuNotAvailable", message)

    def capabilities(self, *, of_server: bool = False) -> list[dict[str, Any]]:
        """The value of the capabilities call: one element, or none."""
        if self.restriction == "no-skus" and not of_server:
            return []
        closed = self.restriction == "offer-restricted" and not of_server
        reason = None
        if closed:
            reason = (
                "Provisioning in requested region is not supported. Your subscription is restricted from provisioning in "
                f"location '{self.name}'. Please try in a different region."
            )
        return [
            {
                "name": "FlexibleServerCapabilities",
                "status": "Disabled" if closed else "Available",
                "reason": reason,
                "supportedFeatures": [
                    {"name": "OfferRestricted", "status": "Enabled" if closed else "Disabled"},
                    {"name": "ZoneRedundantHa", "status": "Enabled" if len(self.zones) > 1 else "Disabled"},
                    {"name": "GeoBackup", "status": "Enabled"},
                    {"name": "OnlineResize", "status": "Enabled"},
                    {"name": "StorageAutoGrowth", "status": "Enabled"},
                ],
                "supportedServerEditions": [] if closed else [edition(tier, self.skus[tier], self.zones) for tier in self.skus],
                "supportedServerVersions": []
                if closed
                else [
                    {"name": version, "supportedVersionsToUpgrade": later(version, self.versions)} for version in self.versions
                ],
                "supportedFastProvisioningEditions": [],
            }
        ]


def later(version: str, versions: list[str]) -> list[str]:
    return [other for other in versions if int(other) > int(version)]


def edition(tier: str, skus: list[tuple[str, int, int]], zones: list[str]) -> dict[str, Any]:
    sizes = [
        {
            "storageSizeMb": gib * 1024,
            "supportedIops": 120,
            "defaultIopsTier": "P4",
            "supportedIopsTiers": [{"name": "P4", "iops": 120}],
        }
        for gib in SIZES_GIB
    ]
    modes = [] if tier == "Burstable" else ["SameZone", "ZoneRedundant"]
    return {
        "name": tier,
        "defaultSkuName": skus[0][0] if skus else None,
        "supportedStorageEditions": [{"name": "ManagedDisk", "defaultStorageSizeMb": 32768, "supportedStorageMb": sizes}],
        "supportedServerSkus": [
            {
                "name": name,
                "vCores": cores,
                "supportedIops": 640 * cores,
                "supportedMemoryPerVcoreMb": memory,
                "supportedZones": zones,
                "supportedHaMode": modes,
            }
            for name, cores, memory in skus
        ],
    }


def every_region() -> dict[str, Region]:
    """A fresh, open set of regions."""
    return {name: Region(name, title) for name, title in TITLES.items()}
