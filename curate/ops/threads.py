"""How many threads the numeric libraries use in this process."""

import faiss
import pyarrow as pa
import torch


def set_threads(num_threads: int) -> None:
    """Bound torch, faiss and Arrow; results are byte-equal only between runs with equal numbers of threads."""
    if torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)
    faiss.omp_set_num_threads(num_threads)
    pa.set_cpu_count(num_threads)
