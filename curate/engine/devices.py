"""Whether a stage's choice of device may mean a GPU."""


def may_use_gpu(device: str) -> bool:
    """`auto` may: it means the first GPU of the worker, and only workers know whether they have one."""
    return device == "auto" or device.startswith("cuda")
