"""``python -m fastdpm.cli``, the same as the ``fastdpm`` command."""

from fastdpm.cli.app import main

main()
