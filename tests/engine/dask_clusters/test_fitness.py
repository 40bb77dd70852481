"""Which workers can be used, and what is said of the others."""

import curate
from curate.engine.dask_clusters.fitness import Report, differing, unfit, versions

HERE = versions()


def test_a_worker_like_the_driver_is_fit_and_differs_in_nothing() -> None:
    found = {"tcp://a:1": Report(HERE, sees_workdir=True)}
    assert unfit(found) == []
    assert differing(found, HERE) == []


def test_every_reason_names_the_worker_and_what_to_do() -> None:
    found = {
        "tcp://a:1": ModuleNotFoundError("No module named 'curate'"),
        "tcp://b:1": Report(HERE | {"curate": "0.0.7"}, sees_workdir=True),
        "tcp://c:1": Report(HERE | {"faiss": None, "torch": None}, sees_workdir=True),
        "tcp://d:1": Report(HERE, sees_workdir=False),
        "tcp://e:1": Report(HERE, sees_workdir=True),
    }
    problems = unfit(found)
    cure = f"give it curate {curate.__version__}, as the driver has"
    assert [cure in problem for problem in problems] == [True, True, True, False]
    for problem, start in zip(
        problems,
        (
            "worker tcp://a:1: ModuleNotFoundError: No module named 'curate'",
            "worker tcp://b:1 has curate 0.0.7",
            "worker tcp://c:1 has no faiss, no torch",
            "worker tcp://d:1 does not see what the driver writes to the workdir",
        ),
        strict=True,
    ):
        assert problem.startswith(start)


def test_other_versions_are_told_once_for_all_workers_that_have_them() -> None:
    old = Report(HERE | {"pyarrow": "1.0"}, sees_workdir=True)
    found = {"tcp://a:1": old, "tcp://b:1": old, "tcp://c:1": Report(HERE, sees_workdir=True)}
    assert differing(found, HERE) == [f"pyarrow 1.0 on tcp://a:1 and 1 more, {HERE['pyarrow']} in the driver"]


def test_versions_name_what_computes_reads_and_transports() -> None:
    assert {"python", "curate", "torch", "faiss", "pyarrow", "numpy", "distributed"} <= HERE.keys()
    assert all(HERE.values())
