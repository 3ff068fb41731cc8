"""The simulated AWS region (see docs/rehearsal/cloud.md)."""

from rehearsal.cloud.cloud import Cloud
from rehearsal.cloud.settings import CloudSettings

__all__ = ["Cloud", "CloudSettings"]
