"""``python -m resumable`` is the command ``resumable``."""

from resumable.cli.commands import main

main()
