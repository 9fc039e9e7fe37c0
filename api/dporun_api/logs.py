"""One form of log lines for every program."""

import logging
import os

from dporun_api.pod import LOG_LEVEL_VARIABLE


def configure(level: str | None = None) -> None:
    """Log to standard error, from ``level`` upwards; without one, from that of the pod's environment, else INFO."""
    level = level or os.environ.get(LOG_LEVEL_VARIABLE, "INFO")
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
