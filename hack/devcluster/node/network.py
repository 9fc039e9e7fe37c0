"""The node's bridge and the rules that let pods reach the world outside through it."""

import contextlib
import re
import socket
import subprocess
from pathlib import Path

from node.console import DevClusterError
from node.settings import ADDRESS, BRIDGE, NFT_TABLE, POD_CIDR, SERVICE_CIDR

# Rules of our own table instead of the CNI plug-in's, so that one command takes them all away.
_RULES = f"""
table ip {NFT_TABLE}
delete table ip {NFT_TABLE}
table ip {NFT_TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat
    ip saddr {POD_CIDR} ip daddr != {POD_CIDR} masquerade
  }}
}}
"""


def up() -> None:
    """Makes the bridge with the node's address, which the servers listen on, and the address translation."""
    if not _exists(BRIDGE):
        if route := _command("ip", "route", "show", POD_CIDR).strip():
            raise DevClusterError(
                f"this machine uses the addresses {POD_CIDR} already ({route}); change POD_CIDR in node/settings.py"
            )
        _command("ip", "link", "add", BRIDGE, "type", "bridge")
        _command("ip", "address", "add", f"{ADDRESS}/{POD_CIDR.rpartition('/')[2]}", "dev", BRIDGE)
    _command("ip", "link", "set", BRIDGE, "up")
    # Services are reached from the host even where it has no default route.
    _command("ip", "route", "replace", SERVICE_CIDR, "dev", BRIDGE)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    _command("nft", "--file", "-", text=_RULES)


def down() -> None:
    """Removes the bridge, what is left of the pods' links on it, and our and kube-proxy's rules."""
    for link in re.findall(
        r"^\d+: (\w+)@", _command("ip", "-o", "link", "show", "master", BRIDGE) if _exists(BRIDGE) else "", re.MULTILINE
    ):
        _command("ip", "link", "delete", link)
    if _exists(BRIDGE):
        _command("ip", "link", "delete", BRIDGE)
    for family, table in (("ip", NFT_TABLE), ("ip", "kube-proxy"), ("ip6", "kube-proxy")):
        with contextlib.suppress(DevClusterError):
            _command("nft", "delete", "table", family, table)


def is_up() -> bool:
    """Whether the bridge is there."""
    return _exists(BRIDGE)


def _exists(link: str) -> bool:
    return link in (name for _, name in socket.if_nameindex())


def _command(*argv: str, text: str = "") -> str:
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise DevClusterError(f"{argv[0]} is not installed") from error
    if done.returncode:
        raise DevClusterError(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")
    return done.stdout
