"""What content teams order and get."""
