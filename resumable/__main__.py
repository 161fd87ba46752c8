"""``python -m resumable`` is the command ``resumable``."""

from resumable.cli import main

main()
