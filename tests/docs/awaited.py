"""Commands and options that the documents show and the program is about to get; this file goes once it has them all."""

import re

AWAITED = (
    r"curate (list|write|review|config|init|doctor)\b",
    r"--(pool|heldout|curated|workdir|update|version|shards)\b",
    r"curate train .*--output\b",
    r"copies\.threshold=[0-9]",
    r"run\.list\(",
    r"copies\.heldout_threshold",
    r"curate (eval|export|visualize) runs/",
    r"curate report .*--open",
)


def is_awaited(text: str) -> bool:
    """Whether a text shows one of them."""
    return any(re.search(pattern, text) for pattern in AWAITED)
