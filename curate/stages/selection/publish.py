"""What whoever publishes the shards says of them, beside what the run itself knows."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from curate.config import Settings, absolute_path


def _day(day: Any) -> str:
    text = str(day)  # YAML makes a date of it
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text) is None:
        raise ValueError(f"{text!r} is no day; write YYYY-MM-DD")
    return text


Day = Annotated[str, BeforeValidator(_day)]
Statement = Annotated[str, Field(min_length=1, max_length=20_000)]


class Responsible(Settings):
    """Statements of the responsible-AI part of Croissant that only people can make; what is null is left out."""

    biases: Statement | None = None
    """Known biases of the data (`rai:dataBiases`)."""
    use_cases: Statement | None = None
    """What the data are meant for, and what not (`rai:dataUseCases`)."""
    social_impact: Statement | None = None
    """Effects on people that are expected (`rai:dataSocialImpact`)."""
    personal_information: Statement | None = None
    """What is known of personal and sensitive information (`rai:personalSensitiveInformation`), beside what the run
    itself has or has not looked for."""
    time_frame: tuple[Day, ...] = ()
    """First and last day of the collection (`rai:dataCollectionTimeFrame`), YYYY-MM-DD each."""
    maintenance: Statement | None = None
    """How long and by whom the data are kept up (`rai:dataReleaseMaintenancePlan`), beside how images go."""


class Publish(Settings):
    """What `croissant.json`, the summary and the signed manifest of the shards say that no run can know."""

    name: Statement | None = None
    """Name of the data set; null: the last step of the workdir's path."""
    description: Statement | None = None
    """What the data set is; null: what the run knows of it."""
    license: Statement | None = None
    """URL or SPDX name of the license of the data set as a whole; the pictures keep their own. Null: none is stated."""
    url: Statement | None = None
    """Page of the data set."""
    creators: tuple[Statement, ...] = ()
    """Who made it."""
    citation: Statement | None = None
    """How it is cited, best as BibTeX."""
    version: str = Field(default="1.0.0", pattern=r"^\d+\.\d+\.\d+$")
    """Version of the data set, MAJOR.MINOR.PATCH."""
    date_published: Day | None = None
    """Day of the publication, YYYY-MM-DD; null: not stated."""
    responsible: Responsible = Responsible()
    """Statements of responsible AI."""
    sign_key: str | None = None
    """File of an Ed25519 key in the format of OpenSSH, without a passphrase, that signs `manifest.json`; null: it is
    not signed, or later, by `curate sign` or `ssh-keygen -Y sign`."""

    @field_validator("sign_key")
    @classmethod
    def _absolute_key(cls, path: str | None) -> str | None:
        return None if path is None else absolute_path(path)
