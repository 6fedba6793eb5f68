"""What was trained: runs, versions, cards."""
