"""Which instances of this process are alive, so that each happening is counted by one of them.

The Agent cannot stop a check that runs: when the configuration is edited it calls `cancel()`, starts the new instance
beside the old one, and lets that run to its end. So submitting and persisting hold the lock of the registry, a
cancelled instance does neither, and a new one loads its state under the same lock: after what the old one persisted.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from threading import Event, RLock
from weakref import WeakSet

from datadog_checks.base import ConfigurationError


class Cancelled(Exception):
    """The Agent has dropped this instance: it submits and persists nothing more."""


@dataclass(eq=False, weakref_slot=True, slots=True)
class Member:
    """One instance. `state_id` is the same for all that count the same, `instance_id` tells these apart.

    `cancelled` is set by `cancel()`. `ui_url` is where people open the server, `server_url` is where this instance asks
    it, and `server` is what tells it from other servers, once that is known. `has_common_state` says that it keeps the
    state that goes by `state_id` alone.
    """

    state_id: str
    instance_id: str
    ui_url: str
    server_url: str
    cancelled: Event
    has_common_state: bool = False
    server: tuple[str, str] | None = None


class Registry:
    """`lock` is reentrant. An instance that nobody holds any more leaves by itself."""

    def __init__(self) -> None:
        self.lock = RLock()
        self._members: WeakSet[Member] = WeakSet()

    def enter(self, member: Member) -> None:
        """Raises ConfigurationError if another instance does the same, and Cancelled for one that has been dropped."""
        with self.lock:
            if member.cancelled.is_set():
                raise Cancelled('the Agent has dropped this instance')
            self._members.add(member)
            if self.counting_the_same(member):
                # Some may be garbage already, which only their cycles keep.
                gc.collect()
            if any(other.instance_id == member.instance_id for other in self.counting_the_same(member)):
                self._members.discard(member)
                raise ConfigurationError(
                    f'Two instances count the same runs of {member.server_url} and differ in nothing that would tell '
                    'their series apart. Remove one of them, or give it filters or `tags` of its own'
                )

    def counting_the_same(self, member: Member) -> list[Member]:
        """The other instances that are alive and count the same."""
        return [other for other in self._others(member) if other.state_id == member.state_id]

    def with_its_ui_url(self, member: Member) -> list[Member]:
        """The other instances that are alive and ask at another address for what people open at the same one."""
        others = self._others(member)
        return [other for other in others if other.ui_url == member.ui_url and other.server_url != member.server_url]

    def _others(self, member: Member) -> list[Member]:
        with self.lock:
            return [other for other in self._members if other is not member and not other.cancelled.is_set()]


# Of this process: the Agent's instances know nothing of each other.
REGISTRY = Registry()
