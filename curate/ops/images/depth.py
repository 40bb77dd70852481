"""How many bits of their samples 16-bit pictures use, as a setting; importing it costs no decoder."""

from typing import Annotated, Literal

from pydantic import Field

SignificantBits = Literal["auto"] | Annotated[int, Field(ge=8, le=16)]
"""Bits that the samples of 16-bit pictures use, 8..16; `auto`: what the file declares, else 16."""
