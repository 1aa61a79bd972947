"""A workflow of DBOS with three steps, in the producer's own process and two threads: its quickest way."""
# pyright: basic, reportMissingImports=false
# (it is installed by the extra `bench` only)

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS

from dev.bench.peers import marks

DBOS(
    config={
        "name": "bench",
        "system_database_url": os.environ["BENCH_DB"],
        "log_level": "WARNING",
        "application_version": "1",
    }
)


@DBOS.step()
def step(session: str | None) -> str:
    """One step."""
    del session
    return marks.step()


@DBOS.workflow()
def project_chain() -> str | None:
    """All three."""
    session = None
    for _ in range(marks.STEPS):
        session = step(session)
    return session


if __name__ == "__main__":
    DBOS.launch()
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(project_chain) for _ in range(int(sys.argv[1]))]:
            done.result()
    DBOS.destroy()
