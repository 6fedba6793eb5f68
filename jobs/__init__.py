"""Verbs: one a file; the only place, with serve, where rooms are joined."""
