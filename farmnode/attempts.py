"""What is done again and again: it may fail, nobody looks on, and the log must neither be silent nor be flooded."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from farmnode.errors import FarmNodeError
from farmnode.report import Log


class Attempts:
    """Logs each failure once: again only when the same work fails for another reason, or has worked meanwhile."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._failed: dict[str, str] = {}

    def do(self, what: str, work: Callable[[], object]) -> FarmNodeError | None:
        """Do ``work``, which ``what`` names in the log; returns why it failed, None when it did not. Never raises.

        ``work`` says False when there was nothing to do: that is no proof that it works again.
        """
        try:
            if work() is False:
                return None
        except FarmNodeError as error:
            failure, text = error, error.message
        except Exception as error:
            failure, text = FarmNodeError("unexpected", f"{type(error).__name__}: {error}"), traceback.format_exc()
        else:
            if self._failed.pop(what, None) is not None:
                self._log.info(f"{what}: works again")
            return None
        if self._failed.get(what) != failure.message:
            self._log.error(f"{what}: {text}")
        self._failed[what] = failure.message
        return failure
