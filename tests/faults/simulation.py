"""One process, one seed, one history: the actors of Baton, interleaved step by step.

Two relays, three workers, a producer and an operator (tests/faults/actors.py) drive the
product's SQL on a real Postgres with a clock of ours. Each is a generator that stops
wherever another may come between; who goes next, who dies or is paused, how time passes
and what the broker loses is drawn from the seed. Then the faults end, everybody is let
run, and every job must come to an end: one that nobody had claimed before without a turn.

What is simulated: the processes, the broker, the agents and time. What is real: every
statement, and the order rules in it. Statements do not overlap (see clock.py).
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from db.jobs.attempts import Claimed
from tests.faults.compared import TRUSTED, Ledger
from tests.faults.ledger_rows import FOREVER, Job

WINDOW = 1  # messages that a relay lets be out
LEAPS = (1, 2, 3, 6, 9, 26, 31)  # seconds that pass at once
STRIKES = 0.18  # of the steps are a fault, or time that passes
ROUNDS = 40  # of relays and workers without a fault, within which all must have ended
Steps = Generator[None]


@dataclass
class Agent:
    """The agent of an attempt, with the keeper that kills it when it is not fed."""

    job: Claimed
    pid: int  # of its worker
    fed_until: float
    ended: bool = False


@dataclass
class Actor:
    """A process: `life` is one round of it, begun again and again (`once`: only once)."""

    name: str
    life: Callable[[], Steps]
    ready: Callable[[], bool] = lambda: True
    once: bool = False
    weight: int = 1  # how often it is its turn, among those that can
    steps: Steps | None = None
    away_until: int = 0  # step of the history: paused, or dead and not yet replaced

    def step(self) -> None:
        """Go on to the next point at which others may come between."""
        self.steps = self.steps or self.life()
        try:
            next(self.steps)
        except StopIteration:
            self.steps = None
            if self.once:
                self.ready = lambda: False

    def can(self, at: int) -> bool:
        return at >= self.away_until and (self.steps is not None or self.ready())


@dataclass
class World:
    """All there is in one history. `flaws` name what is broken on purpose."""

    ledger: Ledger
    rng: Random
    name: str
    flaws: frozenset[str] = frozenset()
    queue: list[UUID] = field(default_factory=list[UUID])  # messages: each names a job
    unacked: dict[str, UUID] = field(default_factory=dict[str, UUID])
    agents: list[Agent] = field(default_factory=list[Agent])
    pids: dict[str, int] = field(default_factory=dict[str, int])  # of the workers that live
    actors: list[Actor] = field(default_factory=list[Actor])
    at: int = 0  # steps so far
    someone_died: bool = False  # and no relay has looked since
    calm: bool = False  # the faults are over

    @property
    def now(self) -> int:
        return self.ledger.now

    def uuid(self) -> UUID:
        return UUID(int=self.rng.getrandbits(128), version=4)

    def happens(self, share: float) -> bool:
        """Whether what happens in that share of cases does now; never when it is calm."""
        return not self.calm and self.rng.random() < share

    def open_jobs(self) -> list[Job]:
        return [job for job in self.ledger.model.jobs.values() if job.open]

    def has_work(self) -> bool:
        """Whether a relay that looks is likely to find something: most looks find nothing."""
        return any(
            self.ledger.model.claimable(job) and (job.id not in self.queue or self.happens(0.1))
            if job.waits
            else self.someone_died or self.now > (job.lease_until or 0)
            for job in self.open_jobs()
        ) or self.happens(0.05)

    # The broker

    def publish(self, job: UUID, by: str) -> None:
        self.ledger.tell(f"{by} publishes {job}")
        self.queue.append(job)

    def receive(self, worker: str) -> UUID:
        """Mostly the oldest message; it is the worker's until it is acknowledged."""
        place = self.rng.randrange(len(self.queue)) if self.happens(0.3) else 0
        self.unacked[worker] = self.queue.pop(place)
        return self.unacked[worker]

    def lose(self) -> None:
        """The broker loses a message, or all, or has one twice, or another order."""
        if not self.queue:
            return
        match self.rng.randrange(4):
            case 0:
                self.queue.pop(self.rng.randrange(len(self.queue)))
            case 1:
                self.queue.clear()
            case 2:
                self.queue.append(self.rng.choice(self.queue))
            case _:
                self.rng.shuffle(self.queue)
        self.ledger.tell(f"the broker errs: {[str(job) for job in self.queue]}")

    # Agents

    def spawn(self, job: Claimed, pid: int, fed_until: float) -> Agent:
        """Start an agent. No other may be alive in its lane, whoever believes to hold it."""
        agent = Agent(job, pid, fed_until)
        for other in self.agents if self.lives(agent) else ():
            self.ledger.demand(
                (other.job.project_id, other.job.lane) != (job.project_id, job.lane)
                or not self.lives(other),
                f"two agents are alive in a lane, of {other.job.id} and of {job.id}",
            )
        self.agents.append(agent)
        return agent

    def lives(self, agent: Agent) -> bool:
        outlives = "an agent that outlives its trust" in self.flaws
        return not agent.ended and (outlives or agent.fed_until > self.now)

    def feed(self, agent: Agent, until: float) -> None:
        if agent.fed_until > self.now:  # else its keeper has killed it
            agent.fed_until = until

    def reap(self, attempt: UUID) -> bool:
        """Kill what still carries the attempt; whether there was something."""
        left = [a for a in self.agents if a.job.attempt == attempt and self.lives(a)]
        for agent in left:
            agent.ended = True
        return bool(left)

    # Faults

    def strike(self) -> None:
        """Time passes, the broker errs, or somebody who is at work is killed or paused."""
        chance = self.rng.random()
        at_work = [actor for actor in self.actors if actor.steps and not actor.once]
        if chance < 0.4:
            self.ledger.tick(self.rng.choice(LEAPS))
        elif chance < 0.55:
            self.lose()
        elif at_work:
            actor = self.rng.choice(at_work)
            actor.away_until = self.at + self.rng.randrange(2, 16)
            if self.rng.random() < 0.4:
                self.kill(actor)
            else:
                self.ledger.tell(f"{actor.name} is paused")
            if self.rng.random() < 0.6:
                self.ledger.tick(TRUSTED + self.rng.randrange(1, 9))

    def kill(self, actor: Actor) -> None:
        """The process is gone, the next one has another pid; its agent may last a while."""
        self.ledger.tell(f"{actor.name} is killed")
        self.ledger.seen["killed"] += 1
        actor.steps = None
        if (pid := self.pids.get(actor.name)) is None:
            return
        self.pids[actor.name], self.someone_died = pid + 10, True
        for agent in self.agents:
            agent.ended = agent.ended or (agent.pid == pid and self.happens(0.5))
        if (job := self.unacked.pop(actor.name, None)) and self.happens(0.5):
            self.queue.append(job)

    # The history

    def play(self, steps: int) -> None:
        for self.at in range(steps):
            able = [actor for actor in self.actors if actor.can(self.at)]
            if not able or self.rng.random() < STRIKES:
                self.strike()
            else:
                self.rng.choices(able, [actor.weight for actor in able])[0].step()
        self.settle()

    def settle(self) -> None:
        """No more faults: whoever was away comes back, some late, and all comes to an end."""
        self.ledger.tell("no more faults")
        self.calm = True
        relays = [actor for actor in self.actors if "relay" in actor.name]
        for turn in range(ROUNDS):
            self.work()
            self.lift()
            if not self.open_jobs():
                break
            self.at += 4  # however long they were to be away
            self.ledger.tick(self.rng.choice(LEAPS[3:]))
            self.finish(relays[turn % 2])
        self.check_the_end()

    def finish(self, actor: Actor) -> None:
        """One round of an actor, without a pause."""
        actor.step()
        while actor.steps:
            actor.step()

    def check_the_end(self) -> None:
        self.ledger.compare()
        for job in self.ledger.model.jobs.values():
            self.ledger.demand(not job.open, f"{job.id} is {job.state} for ever")
            self.ledger.seen[job.state] += 1

    def lift(self) -> None:
        """Somebody clears what is limited until it is cleared."""
        for credential, until in list(self.ledger.model.limits.items()):
            if until == FOREVER:
                self.ledger.clear(credential)

    def work(self) -> None:
        """Until nobody has anything to do but the relays."""
        while able := [a for a in self.actors if "relay" not in a.name and a.can(self.at)]:
            self.rng.choice(able).step()
            self.at += 1
