"""What platforms, launchers and schedulers do differently."""
