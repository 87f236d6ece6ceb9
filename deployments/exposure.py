"""Who can reach the service, as far as settings tell, and what to say when that is anybody. Changes nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

_DIRECT = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_ENABLE_DIRECT_INGRESS", "RAY_SERVE_THROUGHPUT_OPTIMIZED")


def warnings(
    host: str | None, environment: Mapping[str, str], *, keyed: bool, grpc_from_anywhere: bool = False
) -> list[str]:
    """What should be known before strangers find it. host: that the proxies listen on, None where it is not known.

    grpc_from_anywhere: gRPC is on, and answers calls from other machines.
    """
    found: list[str] = []
    if host is not None and not is_loopback(host) and not keyed:
        found.append(
            f"it listens on {host} and needs no API key: whoever reaches this port can use it "
            "(set args.security.keys_file, or listen on 127.0.0.1; docs/security.md)"
        )
    if grpc_from_anywhere and not keyed:
        found.append(
            "it answers gRPC calls from other machines (args.security.grpc_from_anywhere) and needs no API key; Serve "
            "listens for them on ALL addresses (set args.security.keys_file; docs/security.md)"
        )
    direct = [name for name in _DIRECT if environment.get(name, "0").lower() not in ("", "0", "false")]
    if direct:
        found.append(
            f"{direct[0]} is set: Ray Serve then listens on ALL addresses, whatever host is configured, also on ports "
            "30000-31000 (HTTP) and 40000-41000 (gRPC) of every node with an ingress replica; close them by a firewall "
            "or network policy" + ("" if keyed else ", and set API keys (args.security.keys_file)")
        )
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
