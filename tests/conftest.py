"""Property tests try the same examples in every run; HYPOTHESIS_PROFILE=default looks for new ones."""

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
