"""`recorder serve`: recordings over HTTP and WebSocket."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from contextlib import closing, nullcontext
from functools import partial
from typing import Literal

from rich.text import Text

from recorder.cli import console
from recorder.cli.provider_options import NO_PROVIDERS, ProviderOptions
from recorder.errors import ConfigError
from recorder.server import missing
from recorder.storage.dialects import masked

#: The file descriptor of the log.
_STDERR = 2


def run(
    url: str, host: str, port: int, tokens: Sequence[str], hosts: Sequence[str], origins: Sequence[str],
    config: str | None = None, log_format: Literal["text", "json"] | None = None,
    providers: ProviderOptions = NO_PROVIDERS,
) -> int:  # fmt: skip
    """Serve until Ctrl-C or SIGTERM; the exit code. Raises `RecorderError` for whatever prevents it from starting."""
    try:
        from recorder.cli.new_server import new_server
        from recorder.server.access import Access, tokens_from
        from recorder.server.configuration import Configuration, read_configuration
        from recorder.server.log_output import logging_to
        from recorder.server.serving import listen
    except ModuleNotFoundError as error:
        raise missing(error) from error
    if not tokens and not _is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached by other machines, so a token is needed; give --token or RECORDER_TOKEN, "
            "or listen on 127.0.0.1"
        )
    access = Access(tokens_from(tokens), hosts or None, origins)
    configuration = Configuration() if config is None else read_configuration(config)
    address = f"[{host}]" if ":" in host else host
    with closing(listen(host, port)) as listening:
        server = new_server(url, listening, access, origins, configuration, providers)
        console.notice(Text(f"Serving {masked(url)} at http://{address}:{server.port}; Ctrl-C ends."))
        with nullcontext() if log_format is None else logging_to(partial(os.write, _STDERR), log_format):
            server.run()
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
