"""The command ``resumable``."""
