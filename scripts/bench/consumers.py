"""The consumers that are compared: ours, the limit of a Python process, and the textbook's."""

from collections.abc import Sequence
from pathlib import Path

from bench.contender import Contender, Job
from bench.running import program
from local import plan
from local.children import write_settings
from local.options import Options as LocalOptions
from local.plan import ROOT, Names


def ours(*, embedded: bool) -> Contender:
    def command(job: Job, folder: Path) -> Sequence[str]:
        return plan.command("src.consumer", settings_file(job, folder, embedded=embedded))

    return Contender(
        "our consumer",
        command,
        batches=(100, 500, 5_000),
        folder=ROOT / "consumer",
        stores=frozenset({"mongodb", "sqlite"}),
        guarantee="each message once",
    )


def limits() -> list[Contender]:
    return [
        Contender(
            "limit of a Python process",
            lambda _job, _folder: program("limit_consumer"),
            batches=(5_000,),
            share=2.0,
            note="two batches in flight; no checks, no coordinates, no commits",
        ),
        Contender(
            "textbook consumer",
            lambda _job, _folder: program("textbook_consumer"),
            batches=(1,),
            share=0.1,
            guarantee="at least once",
            note="poll, json.loads, insert_one, commit",
        ),
    ]


def settings_file(job: Job, folder: Path, *, embedded: bool, **consumer: object) -> Path:
    """The settings of our consumer for a job."""
    options = LocalOptions(kafka=None if embedded else job.bootstrap, mongodb=job.mongodb_uri)
    names = Names(job.topic, job.group, job.collection)
    settings = plan.consumer_settings(options, names, job.bootstrap, folder)
    settings["consumer"] = {"batch_size": job.batch, **consumer}
    settings["mongodb"] = {"uri": job.mongodb_uri, "database": job.database, "collection": job.collection}
    return write_settings(folder / "consumer.json", settings)
