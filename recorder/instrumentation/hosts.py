"""Which hosts' model calls are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from recorder.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Hosts:
    """Patterns of host names as in the shell, for example "*.openai.azure.com". No `included` means every host."""

    included: Sequence[str] = ()
    excluded: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, given in (("include_hosts", self.included), ("exclude_hosts", self.excluded)):
            if isinstance(given, str) or not all(isinstance(each, str) for each in given):
                raise ConfigError(
                    f"{name} is {given!r:.60}; pass a list of host names, for example ['api.openai.com']"
                )

    def include(self, host: str) -> bool:
        """Whether the model calls to this host are recorded."""
        return not _matches(host, self.excluded) and (not self.included or _matches(host, self.included))


def _matches(host: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(host.lower(), pattern.lower()) for pattern in patterns)


ALL_HOSTS = Hosts()
