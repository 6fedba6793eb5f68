"""A verb that does something itself and has other verbs below it: ``tutti catalogue ORDER``, ``… catalogue search``."""

from __future__ import annotations

from typing import Any

import click


class Branching(click.Group):
    """A command with commands below it: the first word names one of them, or else all words are its own.

    A file whose name is that of a command below is given with its folder, such as ``./search``.
    """

    # A group's own options end at its first argument; here they may follow the order.
    allow_interspersed_args = True

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that the words call."""
        if args and (below := self.commands.get(args[0])) is not None:
            return below.make_context(f"{info_name} {args[0]}", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take all words as its own."""
        return click.Command.parse_args(self, ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Do what the context's command does."""
        return click.Command.invoke(self, ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Only its own words; the commands below are listed at the end of its help."""
        return click.Command.collect_usage_pieces(self, ctx)
