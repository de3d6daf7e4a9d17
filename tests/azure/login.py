"""What leads az to an emulator instead of to Azure: a folder of its own and some variables."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

from tests.azure import vaults

TENANT = "44444444-4444-4444-8444-444444444444"
CLIENT = "22222222-2222-4222-8222-222222222222"
# What leads az elsewhere than to the emulator. AZURE_* and ARM_* go as well.
UNSET = (
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
)
CONFIG = """[core]
instance_discovery = false
collect_telemetry = false
encrypt_token_cache = false
use_msal_http_cache = false
only_show_errors = true
survey_message = false
no_color = true
[cloud]
name = local
"""
CLOUD = """[local]
endpoint_resource_manager = {url}/
endpoint_management = {url}/
endpoint_active_directory = {url}
endpoint_active_directory_resource_id = https://management.core.windows.net/
endpoint_microsoft_graph_resource_id = {url}/graph/
suffix_postgresql_server_endpoint = .postgres.database.azure.com
suffix_keyvault_dns = {vaults}
"""


def write(config_dir: Path, url: str, ca: bytes, subscriptions: Mapping[str, str], secret: str) -> dict[str, str]:
    """Writes az's folder, logged in as a service principal unless there are no subscriptions; returns the variables."""
    config_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    profile = [
        {
            "id": subscription,
            "name": name,
            "state": "Enabled",
            "user": {"name": CLIENT, "type": "servicePrincipal"},
            "isDefault": number == 0,
            "tenantId": TENANT,
            "homeTenantId": TENANT,
            "environmentName": "local",
            "managedByTenants": [],
        }
        for number, (subscription, name) in enumerate(subscriptions.items())
    ]
    entries = [{"client_id": CLIENT, "tenant": TENANT, "client_secret": secret}] if profile else []
    files = {
        "config": CONFIG,
        "clouds.config": CLOUD.format(url=url, vaults=vaults.SUFFIX),
        "azureProfile.json": json.dumps({"installationId": str(uuid.uuid4()), "subscriptions": profile}),
        "service_principal_entries.json": json.dumps(entries),
    }
    for name, text in files.items():
        (config_dir / name).write_text(text, encoding="utf-8")
        (config_dir / name).chmod(0o600)
    bundle = config_dir / "ca.pem"
    bundle.write_bytes(ca)
    return {
        "AZURE_CONFIG_DIR": str(config_dir),
        "AZURE_EXTENSION_DIR": str(config_dir / "cliextensions"),
        "REQUESTS_CA_BUNDLE": str(bundle),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def without_azure(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without what leads az elsewhere."""
    return {name: value for name, value in env.items() if name not in UNSET and not name.startswith(("AZURE_", "ARM_"))}
