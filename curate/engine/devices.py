"""Whether a stage's choice of device means a GPU on this machine."""


def uses_gpu(device: str) -> bool:
    """`auto` means the first GPU where there is one; torch is asked only then."""
    if device != "auto":
        return device.startswith("cuda")
    import torch

    return torch.cuda.is_available()
