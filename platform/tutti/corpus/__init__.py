"""Music as it is: scores from files, described, licensed, split."""
