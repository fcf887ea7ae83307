"""The ``fastdpm`` command, which is also ``python -m fastdpm``."""

import sys


def main() -> None:
    """Run the command line; an interrupt while it is imported is one line as well."""
    try:
        from fastdpm.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
