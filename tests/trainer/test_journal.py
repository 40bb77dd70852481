from contextlib import closing

from curate.trainer.journal import Journal, read_log


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
