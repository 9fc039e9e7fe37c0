"""One form of log lines for every program."""

import logging


def configure(level: str = "INFO") -> None:
    """Log to standard error, from ``level`` upwards."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
