"""What the driver and the ranks of a training tell each other."""
