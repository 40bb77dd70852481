"""Arguments and options that several commands share."""

from typing import Annotated

import typer

Config = Annotated[str, typer.Argument(help="YAML file, or the name of a bundled config such as dedup")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="override fields: a.b=1")]
Workdir = Annotated[str, typer.Argument(help="folder or URL of a run")]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
