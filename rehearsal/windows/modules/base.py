"""What every module stand-in gets and gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rehearsal.windows import commandline
from rehearsal.windows.errors import WindowsError

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost


class ModuleFailed(Exception):
    """The module ends with ``failed``; the text is its ``msg``."""


@dataclass
class Call:
    """One run of a module: arguments as the module's code sees them, and the result that it builds."""

    host: WindowsHost
    parameters: Mapping[str, Any]
    check_mode: bool
    diff_mode: bool
    user: str
    environment: Mapping[str, str]
    result: dict[str, Any] = field(default_factory=lambda: {"changed": False})
    diff: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def get(self, name: str) -> Any:
        """An argument, None when it was not given."""
        return self.parameters.get(name)

    def text(self, name: str) -> str:
        """An argument that is a string, "" when it was not given."""
        value = self.parameters.get(name)
        return "" if value is None else str(value)

    def path(self, name: str) -> str:
        """An argument of type path with its environment variables put in."""
        return self.expand(self.text(name))

    def expand(self, text: str) -> str:
        """Put environment variables into a string."""
        return commandline.expand(text, {**self.host.environment(self.user), **self.environment})

    def changed(self) -> None:
        """Something changed, or would in check mode."""
        self.result["changed"] = True

    def fail(self, message: str, **values: Any) -> ModuleFailed:
        """The error to raise so that the module fails with ``message``; ``values`` join its result."""
        self.result.update(values)
        return ModuleFailed(message)

    def sid(self, name: str) -> str:
        """The identifier of an account, or the failure that Convert-ToSID of Ansible gives."""
        try:
            return self.host.accounts.sid(name)
        except WindowsError as error:
            raise self.fail(
                f'account_name {name} is not a valid account, cannot get SID: Exception calling "Translate" with '
                f'"1" argument(s): "{error}"'
            ) from None


StandIn = Callable[[Call], Awaitable[None] | None]
