"""Mix: the result as stated shares of the routes, as DINOv3 mixes its parts."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from curate.config import Settings
from curate.ops.selection.sampling import largest_remainder

Route = Literal["retrieval", "balance", "curated"]


class Mix(Settings):
    """The result as stated shares of the routes; an image counts for one route, curated and retrieved ones first."""

    routes: dict[Route, Annotated[float, Field(ge=0)]]
    """Share of each route by weight, or its size in images where no `total` is given; a route left out gives
    nothing."""
    total: Annotated[int, Field(ge=1)] | None = None
    """Images shown in an epoch, repeats included; null: the sum of the sizes."""
    max_repeats: Annotated[int, Field(ge=1)] = 1
    """Times one image may be shown in an epoch where its route is smaller than its share."""

    def sizes(self) -> dict[str, int]:
        """Images shown of each route; they sum to the total exactly.

        Raises:
            ConfigError: sizes that are not whole, or nothing at all.
        """
        names: list[str] = list(self.routes)
        values = np.array(list(self.routes.values()), np.float64)
        if values.sum() == 0:
            raise self.field_error("routes", ": every share is 0; give at least one route something")
        if self.total is not None:
            return dict(zip(names, largest_remainder(values, self.total).tolist(), strict=True))
        if (values != np.floor(values)).any():
            raise self.field_error("routes", f": {self.routes} are no whole sizes; give sizes, or shares and a total")
        return dict(zip(names, values.astype(np.int64).tolist(), strict=True))

    def check(self, route: str, available: int) -> None:
        """Raise ConfigError where a route of `available` images cannot meet its share."""
        wanted, most = self.sizes()[route], available * self.max_repeats
        if wanted > most:
            raise self.field_error(
                f"routes.{route}",
                f": {wanted} images are wanted, the route holds {available}, with max_repeats={self.max_repeats} at "
                f"most {most}; ask for less, or raise max_repeats",
            )
