"""Runs the inputs and compares what became of them with what must."""

import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.hostile.case import ACCEPTED, Case, Picture, put_good, run
from benchmarks.hostile.watch import LIMIT, Ended, Watched
from curate.engine.store import Store

GROUP = 32
"""Pictures that share a run."""
MARKUP = "<script>hostile"
"""What names and texts of strangers hold, and no page may hold as it stands."""
MAX_PRINTED = 256 << 10
"""Letters that a command may print of one hostile input, however long its names and texts are."""
KEPT = "kept"
NOTHING_LEFT = ("none of the pool is left", "no image was found")
"""How a run ends that reads all of a source and finds no good picture in it."""


@dataclass(frozen=True)
class Outcome:
    """What became of an input, or of several in one run."""

    family: str
    name: str
    inputs: int
    how: str
    """ended, crashed, hung, grew."""
    wrong: tuple[str, ...]
    seconds: float
    peak_bytes: int

    @property
    def place(self) -> str:
        """Family and name; of many pictures in one run, what is said of one names it."""
        return f"{self.family}/{self.name}" if self.inputs == 1 else self.family


@dataclass
class Result:
    """What became of all."""

    outcomes: list[Outcome] = field(default_factory=list)

    def inputs(self) -> int:
        """How many there were."""
        return sum(outcome.inputs for outcome in self.outcomes)

    def crashes(self) -> list[Outcome]:
        """Those that ended a command by a signal or an error that none expected."""
        return [outcome for outcome in self.outcomes if outcome.how == "crashed"]

    def hangs(self) -> list[Outcome]:
        """Those that had to be killed, for their time, memory or what they wrote."""
        return [outcome for outcome in self.outcomes if outcome.how in ("hung", "grew")]

    def wrong(self) -> list[str]:
        """A line for each: family and input, what was found and what is right."""
        return [f"{outcome.place}: {what}" for outcome in self.outcomes for what in outcome.wrong]

    def peak(self) -> Outcome | None:
        """The one with the most memory."""
        return max(self.outcomes, key=lambda outcome: outcome.peak_bytes, default=None)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        peak = self.peak()
        return {
            "inputs": self.inputs(),
            "crashes": len(self.crashes()),
            "hangs": len(self.hangs()),
            "wrong": self.wrong(),
            "peak_bytes": peak.peak_bytes if peak else 0,
            "peak_of": f"{peak.family}/{peak.name}" if peak else "",
            "seconds": sum(outcome.seconds for outcome in self.outcomes),
        }

    def as_text(self) -> str:
        """A line for each family, then what is wrong."""
        head = ("family", "inputs", "crashes", "hangs", "wrong", "seconds", "peak MiB")
        rows: list[tuple[str, ...]] = [head]
        for family in dict.fromkeys(outcome.family for outcome in self.outcomes):
            of = Result([outcome for outcome in self.outcomes if outcome.family == family])
            rows.append(_cells(family, of))
        rows.append(_cells("all", self))
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self.wrong()])


def _cells(family: str, of: Result) -> tuple[str, ...]:
    seconds, peak = sum(outcome.seconds for outcome in of.outcomes), of.peak()
    counts = (of.inputs(), len(of.crashes()), len(of.hangs()), len(of.wrong()))
    return (family, *map(str, counts), f"{seconds:.0f}", f"{(peak.peak_bytes if peak else 0) / 2**20:,.0f}")


def bench(
    families: Mapping[str, Iterable[Case | Picture]],
    *,
    seed: int,
    watched: Watched,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Result:
    """Run all inputs of some families."""
    result = Result()
    for family, inputs in families.items():
        for case in _as_cases(inputs, seed):
            for outcome in judge(family, case, seed=seed, watched=watched):
                result.outcomes.append(outcome)
                tell(outcome)
    return result


def _as_cases(inputs: Iterable[Case | Picture], seed: int) -> Iterator[Case | list[Picture]]:
    """The cases, and the pictures in groups."""
    group: list[Picture] = []
    for one in inputs:
        if isinstance(one, Case):
            yield one
        elif one.alone:
            yield [one]
        else:
            group.append(one)
            if len(group) == GROUP:
                yield group
                group = []
    if group:
        yield group


def judge(family: str, case: Case | list[Picture], *, seed: int, watched: Watched) -> Iterator[Outcome]:
    """Run a case; of a group of pictures that does not end well, the halves again, until it is known which it was."""
    if isinstance(case, Case):
        yield run_case(family, case, watched)
        return
    limit = LIMIT + len(case) - 1
    outcome = run_case(family, as_case(case, seed), watched, limit=limit)
    if outcome.how == "ended" or len(case) == 1:
        yield outcome
        return
    half = len(case) // 2
    for part in (case[:half], case[half:]):
        yield from judge(family, part, seed=seed, watched=watched)


def as_case(pictures: Sequence[Picture], seed: int) -> Case:
    """A run over some pictures, with good ones beside them."""

    def make(folder: Path) -> list[list[str]]:
        put_good(folder / "pool", seed)
        for picture in pictures:
            (folder / "pool" / picture.key).write_bytes(picture.make())
        return [run(folder, folder / "pool", light=False)]

    name = pictures[0].name if len(pictures) == 1 else f"{pictures[0].name} ... {pictures[-1].name}"
    verdicts = {picture.key: picture.verdicts for picture in pictures}
    good = 4
    return Case(name, make, verdicts=verdicts, good=good, inputs=len(pictures))


def run_case(family: str, case: Case, watched: Watched, *, limit: float = LIMIT) -> Outcome:
    """Run the commands of a case in a folder of their own, and look at what they left."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as temporary:
        folder = Path(temporary) / "case"
        folder.mkdir()
        commands = case.make(folder)
        ends: list[Ended] = []
        for arguments in commands:
            ends.append(watched.run(arguments, folder, limit=limit))
            if ends[-1].how != "ended":
                break
        wrong = tuple(_what_is_wrong(case, ends, folder))
        return Outcome(
            family,
            case.name,
            case.inputs,
            ends[-1].how,
            wrong,
            sum(end.seconds for end in ends),
            max(end.peak_bytes for end in ends),
        )


def _what_is_wrong(case: Case, ends: Sequence[Ended], folder: Path) -> Iterator[str]:
    last, output = ends[-1], "".join(end.output for end in ends)
    if not case.untouched():
        yield "did what it must not"
    if last.how != "ended":
        yield f"{last.how}: {last.detail}"
        return
    if unprintable := _control_characters(output):
        yield f"printed control characters: {unprintable}"
    if len(output) > MAX_PRINTED:
        yield f"printed {len(output) >> 10} kB"
    if case.secret and case.secret in output:
        yield "printed the secret"
    for end in ends[:-1]:
        if end.exit not in case.exits:
            yield f"exit status {end.exit} of an earlier command: {_last_words(end.output)}"
    if last.exit not in case.exits:
        yield f"exit status {last.exit}, not {' or '.join(map(str, sorted(case.exits)))}: {_last_words(last.output)}"
    elif last.exit:
        nothing_left = case.good is None and any(words in last.output for words in NOTHING_LEFT)
        for words in () if nothing_left else case.said:
            if words not in last.output:
                yield f"does not say {words!r}: {_last_words(last.output)}"
    elif (folder / "run" / "run.json").exists():
        yield from _wrong_in_tables(case, folder)
    if found := case.check(folder):
        yield found


def _wrong_in_tables(case: Case, folder: Path) -> Iterator[str]:
    store = Store(str(folder / "run"))
    keys = store.table("catalog").read_all(["key"])["key"].to_pylist()
    images = store.table("images").read_all(["reject", "detail", "extra"])
    uris = store.table("catalog").read_all(["uri"])["uri"].to_pylist()
    rejects, details = images["reject"].to_pylist(), images["detail"].to_pylist()
    verdicts = [(reject or ACCEPTED, detail) for reject, detail in zip(rejects, details, strict=True)]
    found = dict(zip(keys, verdicts, strict=True))
    for key, right in case.verdicts.items():
        verdict, detail = found.get(key, ("not listed", None))
        if verdict not in right:
            yield f"{key} is {verdict} ({detail}), not {' or '.join(sorted(right))}"
    for key in case.absent & found.keys():
        yield f"{key} is listed, and must not be"
    accepted = sum(verdict == ACCEPTED for verdict, _ in verdicts)
    if case.accepted is not None and accepted != case.accepted:
        yield f"{accepted} of {len(keys)} images are accepted, not {case.accepted}: {sorted(map(str, verdicts))[:3]}"
    if case.rest is not None:
        for key, (verdict, detail) in zip(keys, verdicts, strict=True):
            if verdict != ACCEPTED and verdict not in case.rest:
                yield f"{key} is {verdict} ({detail}), not {' or '.join(sorted(case.rest))}"
    yield from _wrong_with_good(case, found, store)
    if case.secret and case.secret in repr((keys, uris, details, images["extra"].to_pylist())):
        yield "the secret is in a table"
    report = folder / "run" / "report" / "index.html"
    if report.exists() and MARKUP in report.read_text(encoding="utf-8"):
        yield "the report holds markup of a stranger"


def _wrong_with_good(case: Case, found: Mapping[str, tuple[str, Any]], store: Store) -> Iterator[str]:
    good = [place for place, key in enumerate(found) if _last_step(key).startswith("good")]
    lost = [key for key in found if _last_step(key).startswith("good") and found[key][0] != ACCEPTED]
    if case.good is not None and len(good) != case.good:
        yield f"{len(good)} good pictures are listed, not {case.good}"
    for key in lost:
        yield f"the good picture {key} is {found[key][0]} ({found[key][1]})"
    verdicts = store.table("duplicates").read_all(["verdict"])["verdict"].to_pylist()
    if len(verdicts) == len(found):
        for place in good:
            if verdicts[place] != KEPT and not lost:
                yield f"a good picture is {verdicts[place]}, not kept"


def _last_step(key: str) -> str:
    return key.rsplit("/", 1)[-1]


def _control_characters(text: str) -> str:
    """Characters that move the cursor, color, turn or hide what a terminal shows."""
    turning = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
    found = Counter(
        letter
        for letter in text
        if (unicodedata.category(letter) == "Cc" and letter not in "\n\t\r") or ord(letter) in turning
    )
    return ", ".join(f"U+{ord(letter):04X}" for letter in sorted(found))


def _last_words(output: str) -> str:
    lines = [line for line in output.strip().splitlines() if line]
    at = next((n for n, line in enumerate(lines) if line.startswith("error: ")), max(0, len(lines) - 1))
    return " ".join(lines[at:])[:300]
