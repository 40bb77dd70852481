import pytest

from curate.errors import ConfigError
from curate.feed.split import BatchSplit


@pytest.mark.parametrize(("batch", "fitting"), [(10, "8 or 16"), (3, "8")])
def test_a_batch_that_cannot_be_shared_is_refused(batch, fitting):
    message = f"batch_size {batch} cannot be dealt evenly to 2 passes .* of 4 processes; set batch_size={fitting}$"
    with pytest.raises(ConfigError, match=message):
        BatchSplit(batch, accumulate=2, size=4)
