"""Entry of ``python -m farmnode``."""

from __future__ import annotations

import sys

from farmnode.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
