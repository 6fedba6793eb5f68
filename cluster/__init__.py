"""Where Tutti runs: local stack, images, launchers."""
