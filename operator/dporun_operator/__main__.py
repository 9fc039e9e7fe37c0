"""``dporun-operator``: runs the operator, configured by the environment (see ``settings``)."""

import sys

from dporun_api import logs
from dporun_operator.errors import InvalidSettingsError
from dporun_operator.settings import Settings


def main() -> int:
    """Run the operator until SIGTERM or SIGINT; returns the exit status, 2 when the environment is wrong."""
    try:
        settings = Settings.from_env()
        logs.configure(settings.log_level)
        from dporun_operator import app  # noqa: PLC0415  wrong settings are reported before the heavy imports

        app.run(settings)
    except InvalidSettingsError as error:
        print(f"dporun-operator: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
