"""Which GPU a process trains on, told by what torch would be asked for."""

import pytest
import torch

from curate.trainer.parallel import local_device


@pytest.mark.parametrize(("choice", "rank", "wanted"), [("auto", None, 0), ("cuda", "1", 1), ("cuda:1", "0", 1)])
def test_a_process_takes_a_gpu_by_its_number(
    choice: str, rank: str | None, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", taken.append, raising=False)  # below torch's own check
    if rank is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert local_device(choice) == torch.device("cuda", wanted)
    assert taken == [wanted]
