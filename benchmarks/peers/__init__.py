"""Peers that need an environment of their own: each is a script that such an environment runs."""
