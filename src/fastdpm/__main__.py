"""``python -m fastdpm``, the same as the ``fastdpm`` command."""

from fastdpm.cli.app import main

main()
