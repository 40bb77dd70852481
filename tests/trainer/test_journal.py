import sys
from contextlib import closing
from types import SimpleNamespace

import pytest

from curate.errors import MissingExtra, WorkdirError
from curate.trainer.journal import Journal, read_log, write_log


def test_rows_come_back(tmp_path):
    with closing(Journal(tmp_path, start=0)) as journal:
        journal.write({"step": 1, "loss": 2.5})
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "loss": 2.5}]


def test_resume_drops_rows_after_the_checkpoint(tmp_path):
    with closing(Journal(tmp_path, start=0)) as journal:
        for step in range(1, 6):
            journal.write({"step": step, "loss": float(step)})
    with closing(Journal(tmp_path, start=3)) as journal:
        journal.write({"step": 4, "loss": 40.0})
    assert [r["loss"] for r in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 40]
    assert [r["step"] for r in journal.rows] == [1, 2, 3, 4]


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_log(path) == [{"step": 1}]
    assert read_log(tmp_path / "none") == []


def test_wandb_gets_the_same_rows_under_one_run_for_one_folder(tmp_path, monkeypatch):
    runs, rows = [], []
    run = SimpleNamespace(log=lambda figures, step: rows.append((step, figures)), finish=lambda: rows.append("end"))
    fake = SimpleNamespace(init=lambda **told: runs.append(told) or run, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for start in (0, 1):
        with closing(Journal(tmp_path, start=start, wandb="pool")) as journal:
            journal.write({"step": start + 1, "loss": 2.5})
    assert rows == [(1, {"loss": 2.5}), "end", (2, {"loss": 2.5}), "end"]
    assert runs[0] == runs[1]
    assert (runs[0]["project"], runs[0]["resume"]) == ("pool", "allow")


def test_wandb_that_is_not_installed_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("curate.trainer.journal.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"wandb is not installed; .*curate-vision\[wandb\]"):
        Journal(tmp_path, start=0, wandb="pool")


@pytest.mark.parametrize("line", [b"{", b"\xff", b"3", b'{"loss": 1}', b'{"step": "x"}', b"null", b"[" * 100_000])
def test_a_garbled_log_is_named_with_its_line(tmp_path, line):
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1, "loss": 2}\n' + line + b"\n")
    with pytest.raises(WorkdirError, match="log.jsonl: line 2: damaged; remove the file"):
        Journal(tmp_path, start=2)
    with closing(Journal(tmp_path, start=0)) as journal:  # a run that begins has no use for it
        assert journal.rows == []


def test_the_copy_in_a_checkpoint_comes_first(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b"garbled\n")
    write_log(tmp_path / "kept.jsonl", [{"step": 1, "loss": 2.5}])
    with closing(Journal(tmp_path, start=1, kept=tmp_path / "kept.jsonl")) as journal:
        journal.write({"step": 2, "loss": 1.5})
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1.5}]
