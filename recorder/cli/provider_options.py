"""The options of `recorder serve` for providers' paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from recorder.errors import ConfigError
from recorder.replay.pace import FASTEST, SLOWEST

if TYPE_CHECKING:
    from recorder.server.proxy.upstreams import Upstream

Proxy = Annotated[
    bool,
    typer.Option("--proxy", help="Pass calls to /openai/v1/... and /anthropic/v1/... on, and record them."),
]
AsProvider = Annotated[bool, typer.Option("--replay", help="Answer calls to these paths from the recording.")]
Upstreams = Annotated[
    list[str] | None, typer.Option(metavar="NAME=URL", help="One more provider, at /NAME/...")
]
Speed = Annotated[
    float, typer.Option(min=SLOWEST, max=FASTEST, help="With --replay: 2 answers twice as fast as recorded.")
]
MaxGap = Annotated[float | None, typer.Option(min=0, help="With --replay: the longest pause, in seconds.")]
DrainWithin = Annotated[
    int,
    typer.Option(min=1, max=3600, help="Calls under way may go on for so long after SIGTERM, in seconds."),
]


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """Whether the server is a recording proxy, or replays. Raises `ConfigError` for options that do not go together."""

    proxy: bool = False
    replay: bool = False
    #: `NAME=URL`, each.
    given_upstreams: Sequence[str] = ()
    #: The pace of a replay.
    speed: float | None = 1.0
    max_gap: float | None = None
    #: How long calls may go on after the signal to end (seconds).
    drain_within: int = 5

    def __post_init__(self) -> None:
        if self.proxy and self.replay:
            raise ConfigError("--proxy records and --replay answers from the recording; give one of them")
        if self.given_upstreams and not (self.proxy or self.replay):
            raise ConfigError("--upstream names a provider for --proxy or --replay; give one of them, too")

    def upstreams(self, configured: Mapping[str, Upstream]) -> Mapping[str, Upstream]:
        """The upstreams by name, with those of the configuration. Raises `ConfigError`."""
        if not (self.proxy or self.replay):
            if configured:
                raise ConfigError(
                    "[upstreams] names providers for --proxy or --replay; give one of them, too"
                )
            return {}
        from recorder.server.proxy.upstreams import upstreams_of_options

        return upstreams_of_options(self.given_upstreams, configured)


NO_PROVIDERS = ProviderOptions()
